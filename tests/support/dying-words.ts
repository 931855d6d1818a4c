/**
 * Death at a step: while `diesWithin` runs, every operation on shared words counts, and the last one does not happen any more. What the
 * process had in its own memory is then lost to its successor; what it had stored is not.
 */
import { SharedWords } from '../../shm/words.js'

class Death extends Error {}

let left = Number.POSITIVE_INFINITY

const operations = Object.getOwnPropertyNames(SharedWords.prototype).filter((name) => name !== 'constructor')
for (const name of operations) {
  const prototype = SharedWords.prototype as unknown as Record<string, (...given: number[]) => unknown>
  const real = prototype[name]
  if (typeof real !== 'function') continue
  prototype[name] = function dying(this: SharedWords, ...given: number[]): unknown {
    if (--left <= 0) throw new Death('killed')
    return real.apply(this, given)
  }
}

/** True if `run` was cut off at its operation number `steps`. */
export function diesWithin(steps: number, run: () => void): boolean {
  left = steps
  try {
    run()
    return false
  } catch (error) {
    if (error instanceof Death) return true
    throw error
  } finally {
    left = Number.POSITIVE_INFINITY
  }
}
