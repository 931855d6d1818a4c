/** The random programs, shared out to a process for each processor of the machine. */
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Report } from '../report.js'
import type { Wishes } from '../wishes.js'
import type { Compared } from './differential.js'

const PROGRAMS = 500
const PROCESSES = 2

const child = fileURLToPath(new URL('./differential-child.js', import.meta.url))

/** A share that did not come to its end is as bad as one that differs throughout. */
function runShare(first: number, count: number): Promise<Compared> {
  return new Promise((resolve) => {
    let compared: Compared = { count: 0, mismatches: count }
    const share = fork(child, [String(first), String(count)])
    share.on('message', (result: Compared) => {
      compared = result
    })
    share.on('exit', () => resolve(compared))
  })
}

export async function compareProviders(wishes: Wishes): Promise<Pick<Report, 'differentialPrograms' | 'mismatches'>> {
  const wished = wishes.programs ?? PROGRAMS
  const each = Math.ceil(wished / PROCESSES)
  const shares = await Promise.all(Array.from({ length: PROCESSES }, (_, index) => runShare(index * each, each)))
  const differentialPrograms = shares.reduce((sum, { count }) => sum + count, 0)
  const mismatches = shares.reduce((sum, share) => sum + share.mismatches, 0)
  console.log(`${differentialPrograms} programs, ${mismatches} mismatches`)
  return { differentialPrograms, mismatches }
}
