import test from 'ava'
import { describe, explore, replay } from '../support/explorer.js'
import { loadExplored } from './load.js'
import { mutants } from './mutants.js'

for (const mutant of mutants) {
  test(`caught: ${mutant.name}`, async (t) => {
    t.timeout(300_000)
    const scenario = mutant.scenario(await loadExplored(mutant.changes))
    const report = explore(scenario)
    t.log(describe(report))
    if (!report.failure) return t.fail('the mutant behaves')
    t.log(report.failure.message.split('\n')[0])
    t.log(`replay: ${report.failure.schedule}`)
    t.true(mutant.caughtBy.includes(report.failure.invariant), `caught by ${report.failure.invariant}`)
    t.deepEqual(replay(scenario, report.failure.schedule).trace, report.failure.trace)
  })
}
