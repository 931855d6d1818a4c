/** A share of the random programs, in a process of its own: `differential-child.js <first> <count>`. */
import { comparePrograms } from './differential.js'

const [first, count] = process.argv.slice(2).map(Number)
process.send?.(comparePrograms(first!, count!))
process.disconnect?.()
