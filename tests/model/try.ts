import { describe, explore } from '../support/explorer.js'
import { loadExplored } from './load.js'
import { postScenario } from './post-scene.js'
const code = await loadExplored()
const go = (...a: any[]) => { const report = explore((postScenario as any)(code, ...a)); console.log(describe(report), report.failure) }
go('1 client', {lists:[[1]], slots:2}, {})
go('1 client 3 lists', {lists:[[2, 1]], slots:2}, {})
go('1 client 1 crash', {lists:[[1,1]], slots:2}, {crashes: {client:1, broker:1}})
go('2 clients', {lists:[[1],[1]], slots:2}, {})
go('2 clients', {lists:[[1],[1]], slots:2}, {crashes: {client:1}})
go('2 clients', {lists:[[1],[1]], slots:2}, {crashes: {broker:1}})
