import { describe, explore } from '../support/explorer.js'
import { loadExplored } from './load.js'
import { pollScenario } from './poll-scene.js'
const code = await loadExplored()
const go = (...a: any[]) => { const report = explore((pollScenario as any)(code, ...a)); console.log(describe(report), report.failure) }
go('2 pollers, 3 requests', {pollers:2, requests:3, slots:2, batch:1}, {maxStates: 100000})
