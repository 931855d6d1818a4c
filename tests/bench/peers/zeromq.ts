/** ZeroMQ by its package for Node, fetched once into a folder that git ignores: the project itself has no use for it. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { measurePairs } from './pairs.js'
import type { Peer } from './work.js'

const version = '6.8.0'
const folder = fileURLToPath(new URL('../../../.cache/bench-zeromq', import.meta.url))

const program = {
  command: process.execPath,
  leading: [fileURLToPath(new URL('zeromq-peer.js', import.meta.url))],
  environment: { ZEROMQ_FROM: folder },
}

function fetched(): string | undefined {
  if (existsSync(`${folder}/node_modules/zeromq/package.json`)) return undefined
  mkdirSync(folder, { recursive: true })
  writeFileSync(`${folder}/package.json`, JSON.stringify({ private: true, dependencies: { zeromq: version } }))
  const { status, stderr } = spawnSync('npm', ['install', '--no-audit', '--no-fund', '--silent'], {
    cwd: folder,
    encoding: 'utf8',
    timeout: 120_000,
  })
  return status === 0 ? undefined : `npm could not fetch zeromq ${version}: ${stderr.trim().split('\n')[0] ?? ''}`
}

export const zeromq: Peer = {
  name: 'zeromq',
  how: `npm zeromq ${version} over TCP, PAIR and PUSH/PULL, awaited as it wants`,
  missing: fetched,
  measure: async (work, durationMs) => {
    return work.place === 'local' ? undefined : measurePairs(program, work, durationMs)
  },
}
