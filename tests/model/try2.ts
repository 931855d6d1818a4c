import { describe, explore } from '../support/explorer.js'
import { loadExplored } from './load.js'
import { lockScenario } from './lock-scene.js'
import { postScenario } from './post-scene.js'
const code = await loadExplored()
const run = (s: any) => { const report = explore(s); console.log(describe(report), report.failure) }
run(postScenario(code, 'stop', { lists: [[1, 1], [1]], slots: 2 }, { stops: { client: 1 }, timeouts: 'always' }))
run(lockScenario(code, 'reuse', { clients: 2, rounds: 1, sweeper: true, reuse: 'after-sweep' }, { crashes: { client: 1, again: 1, broker: 1 } }))
run(postScenario(code, '', { lists: [[2, 1]], slots: 2 }, { crashes: { client: 1, broker: 2 }, preemptions: 3 }))
