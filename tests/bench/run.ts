/**
 * All microbenchmarks, one table: `npm run bench [-- name …]`. Names: shm, client, provider, engine, allocation. Numbers are for the machine they
 * ran on, medians of several rounds; compare only within one run.
 */
import { spawnSync } from 'node:child_process'
import { cpus, loadavg } from 'node:os'
import { fileURLToPath } from 'node:url'
import { refuse, toolOptions } from '../support/tool-options.js'
import { figureHead } from './figures.js'

const programs: Readonly<Record<string, readonly string[]>> = {
  shm: ['shm.ts'],
  client: ['client-post-poll.ts'],
  provider: ['soft-provider.ts', '1'],
  engine: ['engine.ts'],
  allocation: ['allocation.ts'],
}

const help = `npm run bench -- [name …]

  names: ${Object.keys(programs).join(', ')} (all)`

const { positionals: wanted } = toolOptions(help, { allowPositionals: true })
const unknown = wanted.find((name) => programs[name] === undefined)
if (unknown !== undefined) refuse(help, `no microbenchmark is named ${unknown}`)

console.log(
  `${cpus().length} cores, ${cpus()[0]?.model.trim()}, Node ${process.versions.node}, load ${loadavg()[0]!.toFixed(2)}`,
)
console.log(figureHead())
for (const [name, [file = '', ...more]] of Object.entries(programs)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue
  const path = fileURLToPath(new URL(file, import.meta.url))
  const { status } = spawnSync(process.execPath, [...process.execArgv, path, ...more], { stdio: 'inherit' })
  if (status !== 0) throw new Error(`${file} ended with ${status}`)
}
