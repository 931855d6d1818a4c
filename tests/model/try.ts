import { describe, explore } from '../support/explorer.js'
import { loadExplored } from './load.js'
import { pollScenario } from './poll-scene.js'
const code = await loadExplored()
const go = (...a: any[]) => { const report = explore((pollScenario as any)(code, ...a)); console.log(describe(report), report.failure) }
go('2 pollers, 2 requests 1 slot', {pollers:2, requests:2, slots:1, batch:1}, {})
go('2 pollers, 3 requests', {pollers:2, requests:3, slots:2, batch:1}, {})
go('2 pollers, 3 requests, pree 3', {pollers:2, requests:3, slots:2, batch:1}, {preemptions: 3})
go('2 pollers, 2 requests, 1 slot, 1p 1b', {pollers:2, requests:2, slots:1, batch:1}, {crashes:{poller:1,broker:1}})
go('2 pollers, 2 requests, 2 slots, 1p 1b', {pollers:2, requests:2, slots:2, batch:1}, {crashes:{poller:1,broker:1}})
go('2 pollers, 3 requests, 1 crash, pree 2', {pollers:2, requests:3, slots:2, batch:1}, {crashes:{poller:1,broker:1}, preemptions:2})
go('2 pollers, 4 requests, 1 crash, pree 2', {pollers:2, requests:4, slots:2, batch:2}, {crashes:{poller:1,broker:1}, preemptions:2})
