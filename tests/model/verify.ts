/** Explorations as tests. */
import test from 'ava'
import { describe } from '../support/explorer.js'
import { type Exploration, run, tellFailure } from './exploration.js'

/** Every state within the bounds is visited, and every check holds. */
export function testExplorations(explorations: readonly Exploration[]): void {
  for (const exploration of explorations.filter(({ isLong }) => !isLong)) {
    test(`${exploration.promise}: ${exploration.name}`, async (t) => {
      t.timeout(300_000)
      const report = await run(exploration)
      t.log(describe(report))
      t.deepEqual(tellFailure(exploration, report), [])
    })
  }
}
