/** Sockets in C, compiled when needed: what the operating system gives without anything on top. */
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { measurePairs } from './pairs.js'
import { isInstalled } from './programs.js'
import type { Peer } from './work.js'

const folder = fileURLToPath(new URL('../../../.cache/bench-tcp', import.meta.url))
const program = { command: `${folder}/tcp-peer`, leading: [] }

function compiled(): string | undefined {
  if (!isInstalled('gcc')) return 'gcc is not installed'
  mkdirSync(folder, { recursive: true })
  const source = fileURLToPath(new URL('tcp-peer.c', import.meta.url))
  const { status, stderr } = spawnSync('gcc', ['-O2', '-o', program.command, source], { encoding: 'utf8' })
  return status === 0 ? undefined : `gcc failed: ${stderr.split('\n')[0] ?? ''}`
}

export const tcp: Peer = {
  name: 'tcp',
  how: 'sockets in C; ping-pong of one pair spins, the rest blocks; one send a message',
  missing: compiled,
  measure: async (work, durationMs) => {
    return work.place === 'local' ? undefined : measurePairs(program, work, durationMs)
  },
}
