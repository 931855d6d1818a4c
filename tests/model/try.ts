import { describe, explore } from '../support/explorer.js'
import { loadExplored } from './load.js'
import { lockScenario } from './lock-scene.js'
import { postScenario } from './post-scene.js'
const code = await loadExplored()
const go = (...a: any[]) => { const report = explore((lockScenario as any)(code, ...a)); console.log(describe(report), report.failure) }
const gp = (...a: any[]) => { const report = explore((postScenario as any)(code, ...a)); console.log(describe(report), report.failure) }
go('3 clients, 2 deaths', {clients:3, rounds:1, sweeper:true}, {crashes:{client:2}})
go('2 clients, reuse', {clients:2, rounds:1, sweeper:true, reuse:'after-sweep'}, {crashes:{client:1, broker: 1}})
go('2 clients, reuse at once', {clients:2, rounds:1, sweeper:true, reuse:'at-once'}, {crashes:{client:1}})
gp('2 clients', {lists:[[1],[1]], slots:2}, {crashes: {}})
