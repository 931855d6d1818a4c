import { fileURLToPath } from 'node:url'
import { measurePairs } from './pairs.js'
import type { Peer } from './work.js'

const program = { command: process.execPath, leading: [fileURLToPath(new URL('net-peer.js', import.meta.url))] }

export const net: Peer = {
  name: 'net',
  how: 'node:net over TCP, one write a message',
  missing: () => undefined,
  measure: async (work, durationMs) => {
    return work.place === 'local' ? undefined : measurePairs(program, work, durationMs)
  },
}
