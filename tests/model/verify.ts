/** What the tests of explorations share: the code, the larger bounds, and how a result is told. */
import type { ExecutionContext } from 'ava'
import { describe, explore, type Scenario } from '../support/explorer.js'

/** Larger bounds, for `npm run explore`. */
export const isLong = process.env['EXPLORE_LONG'] === '1'

/** Every state within the bounds is visited, and every check holds. */
export function holds(t: ExecutionContext, scenario: Scenario): void {
  const report = explore(scenario)
  t.log(describe(report))
  if (report.failure) {
    for (const step of report.failure.trace) t.log(step)
    t.log(`replay: ${report.failure.schedule}`)
    t.fail(report.failure.message)
    return
  }
  t.true(report.complete, 'the exploration was cut')
}
