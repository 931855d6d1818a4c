/** What another process holds, as the kernel counts it. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { connectionsOf } from './socket-faults.js'

export interface Holdings {
  /** Shared memory that it has mapped. */
  readonly segments: number
  /** Open descriptors without TCP connections, which come and go with their lanes. */
  readonly descriptors: number
}

export function holdingsOf(processId: number): Holdings {
  const folder = `/proc/${processId}/fd`
  const open = readdirSync(folder).filter((name) => {
    try {
      return readlinkSync(`${folder}/${name}`) !== ''
    } catch {
      // Closed in the meantime.
      return false
    }
  })
  const maps = readFileSync(`/proc/${processId}/maps`, 'latin1')
  const segments = new Set(maps.match(/\d+ +\/memfd:.*$/gm) ?? [])
  return { segments: segments.size, descriptors: open.length - connectionsOf(processId).length }
}
