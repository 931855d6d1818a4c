import { describe, explore } from '../support/explorer.js'
import { loadExplored } from './load.js'
import { pollScenario } from './poll-scene.js'
import { postScenario } from './post-scene.js'
const code = await loadExplored()
const gp = (...a: any[]) => { const report = explore((postScenario as any)(code, ...a)); console.log(describe(report), report.failure) }
gp('1 clients sleeps', {lists:[[1,1]], slots:2, sleeps:true}, {crashes: {}})
gp('1 clients sleeps', {lists:[[1,1]], slots:2, sleeps:true}, {crashes: {client:1,broker:1}})
gp('2 clients sleeps', {lists:[[1],[1]], slots:2, sleeps:true}, {crashes: {}})
gp('2 clients sleeps 1c', {lists:[[1],[1]], slots:2, sleeps:true}, {crashes: {client:1}, preemptions:3})
gp('no drain', {lists:[[1],[1]], slots:2, recovery:{drains:false}}, {crashes: {broker:1}, preemptions:3})
gp('clear last', {lists:[[1],[1]], slots:2, recovery:{clearsFirst:false}}, {crashes: {broker:1}, preemptions:3})
