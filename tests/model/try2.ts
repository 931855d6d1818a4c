import { describe, explore } from '../support/explorer.js'
import { loadExplored } from './load.js'
import { lockScenario } from './lock-scene.js'
import { postScenario } from './post-scene.js'
import { pollScenario } from './poll-scene.js'
import { waitScenario } from './wait-scene.js'
import { deliverScenario } from './deliver-scene.js'
const code = await loadExplored()
const run = (s: any) => { const report = explore(s); console.log(describe(report), report.failure?.message ?? '', report.failure?.schedule ?? '') }
const post = (n: string, o: any, b: any) => run(postScenario(code, n, o, b))
const poll = (n: string, o: any, b: any) => run(pollScenario(code, n, o, b))
const M = 3e6
console.log(process.argv[2])
if (process.argv[2] === 'a') {
post('2x1', {lists:[[1],[1]], slots:2}, {})
post('2x1 1c', {lists:[[1],[1]], slots:2}, {crashes:{client:1}})
post('2x1 2c p3', {lists:[[1],[1]], slots:2}, {crashes:{client:2}, preemptions:3})
post('2x1 1b p2', {lists:[[1],[1]], slots:2}, {crashes:{broker:1}, preemptions:2})
post('2x1 1b p3', {lists:[[1],[1]], slots:2}, {crashes:{broker:1}, preemptions:3})
post('2x1 1c 2b p1', {lists:[[1],[1]], slots:2}, {crashes:{client:1,broker:2}, preemptions:1})
post('2x1 1c 2b p2', {lists:[[1],[1]], slots:2}, {crashes:{client:1,broker:2}, preemptions:2, maxStates: M})
post('1x[2,2] 1c 2b', {lists:[[2,2]], slots:2}, {crashes:{client:1,broker:2}, maxStates: M})
post('1x[1,1,1] 1c 1b', {lists:[[1,1,1]], slots:2}, {crashes:{client:1,broker:1}, maxStates: M})
} else {
post('2x[2],[1] p2', {lists:[[2],[1]], slots:2}, {preemptions:2, maxStates: M})
post('3x1 p2', {lists:[[1],[1],[1]], slots:2}, {preemptions:2, maxStates: M})
post('3x1 p2 1c', {lists:[[1],[1],[1]], slots:3}, {crashes:{client:1}, preemptions:2, maxStates: M})
post('2x1 stop', {lists:[[1],[1]], slots:2}, {stops:{client:1},timeouts:'always', maxStates: M})
post('2x1 reads', {lists:[[1],[1]], slots:2}, {granularity:'reads', maxStates: M})
post('2x1 reads 1c p2', {lists:[[1],[1]], slots:2}, {granularity:'reads', crashes:{client:1}, preemptions:2})
}
