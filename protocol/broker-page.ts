/**
 * The page only the broker writes and every client maps read-only (sealed against writing by others): is the engine asleep, which
 * broker is this, does it live.
 *
 * `sleeping`: the engine stores 1, looks at all activity once more, sleeps on its doorbell, stores 0. A client publishes, marks
 * activity, then loads `sleeping`; if 1 it rings the doorbell. Both through `Words`, so one of the two sees the other.
 */
import { cacheLine, f64, layout, text, u32, word } from '../shm/layout.js'
import { limits } from './limits.js'

export const brokerPageMagic = 0x62706731

export const brokerPage = layout('broker-page', {
  magic: u32(),
  version: u32(),
  fingerprint: u32(),
  epoch: u32(),
  node: text(limits.nameByteLength),
  identityEnd: cacheLine(),
  sleeping: word(),
  sleepingEnd: cacheLine(),
  state: word(),
  heartbeat: word(),
  heartbeatTimeMs: f64(),
  /** Core that the engine ran on when it last found nothing to do: a hint for clients that wait. */
  core: word(),
  stateEnd: cacheLine(),
})

/** Names of nodes by index (row of the peers table; 0 is this node), behind the page's header; written before an index is handed out. */
export const nodeNameRow = layout('node-name-row', { name: text(limits.nameByteLength) })

export const brokerPageGeometry = {
  nodeNamesOffset: brokerPage.byteLength,
  nodeNames: limits.peers,
  byteLength: brokerPage.byteLength + limits.peers * nodeNameRow.byteLength,
} as const

export const brokerState = { starting: 0, running: 1, draining: 2, stopped: 3 } as const
export const brokerStateNames = ['starting', 'running', 'draining', 'stopped'] as const
