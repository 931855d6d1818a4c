import { describe, explore } from '../support/explorer.js'
import { loadExplored } from './load.js'
import { mutants } from './mutants.js'
const only = process.argv[2]
for (const m of mutants) {
  if (only && !m.name.includes(only)) continue
  try {
  const code = await loadExplored(m.changes)
  const report = explore(m.scenario(code))
  const ok = report.failure && m.caughtBy.includes(report.failure.invariant)
  console.log(ok ? 'ok  ' : 'BAD ', m.name, '|', report.failure?.message.split('\n').slice(0,3).join(' / '), '|', report.states, (report.elapsedMs/1000).toFixed(1))
  if (only) console.log(report.failure)
  } catch (e) { console.log('ERR ', m.name, e) }
}
