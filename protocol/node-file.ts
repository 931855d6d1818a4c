/**
 * The node file: the broker's mapped description of itself in the runtime directory. Readable when the broker hangs or is dead;
 * adopted, not recreated, by the next broker of the same boot, because the numbers it reserves must not be issued twice while an old
 * holder may live (crash-consistency S8).
 *
 *   ┌ header: identity, key of the tables, heartbeat, high-water marks; `ready` is stored last ┐
 *   ├ counters ┤ jobs ┤ members ┤ queue pairs ┤ completion queues ┤ regions ┤ peers ┤ shared queue pairs ┤ errors ┤ events ┤
 *
 * Each table: fixed rows; a row whose `state` is 0 is free. Only the broker writes (kernel lock on the file held for life). A row's
 * number is its index; its generation goes up each time it is issued and is stored before the number is handed out.
 */
import { cacheLine, f64, gap, layout, text, u32, word } from '../shm/layout.js'
import { limits } from './limits.js'

export const nodeFileMagic = 0x6e646631

export const nodeFileHeader = layout('node-file-header', {
  magic: u32(),
  version: u32(),
  fingerprint: u32(),
  /** 0 while being filled, 1 when readers may trust the rest. */
  ready: word(),
  epoch: u32(),
  processId: u32(),
  state: word(),
  heartbeat: word(),
  heartbeatTimeMs: f64(),
  startedTimeMs: f64(),
  node: text(limits.nameByteLength),
  bootId: text(40),
  nodeId: text(40),
  provider: text(16),
  device: text(32),
  linkAddress: text(64),
  nextRegionGeneration: u32(),
  nextIncarnation: u32(),
  lanes: u32(),
  pad: gap(4),
  engineTurns: f64(),
  /** When the last broker that handed over had stopped, and when the last job of its sessions went on; 0: never. */
  quiescedTimeMs: f64(),
  resumedTimeMs: f64(),
  headerEnd: cacheLine(),
})

/** Names of the engine's and control plane's counters, in order; each is one f64 in the counters section. */
export const counterNames = [
  'messages-sent',
  'messages-received',
  'bytes-sent',
  'bytes-received',
  'sends-posted',
  'receives-posted',
  'writes-posted',
  'reads-posted',
  'atomics-posted',
  'atomics-executed',
  'completions',
  'completions-error',
  'frames-sent',
  'frames-received',
  'acknowledgements-sent',
  'eager-segments',
  'granted-writes',
  'local-messages',
  'local-bytes',
  'lane-credit-stalls',
  'queue-pair-credit-stalls',
  'bulk-window-stalls',
  'completion-queue-stalls',
  'receiver-not-ready-sent',
  'receiver-not-ready-received',
  'provider-receiver-not-ready',
  'wake-ups',
  'engine-turns',
  'engine-sleeps',
  'duty-cycle-worst-us',
  'protocol-errors',
  'stale-messages',
  'corrupt-segments',
  'containment-refusals',
  'resolves',
  'revokes',
  'connects',
  'accepts',
  'rejects',
  'disconnects',
  'shared-queue-pairs-created',
  'shared-queue-pairs-reaped',
  'lane-failures',
  'sessions-attached',
  'sessions-died',
  'locks-reclaimed',
  'slots-swept',
  'control-requests',
  'control-refusals',
  'provider-system-calls',
  'provider-messages',
  'provider-bytes-sent',
  'provider-bytes-received',
  'link-connects',
  'link-failures',
  'link-refusals',
  'flows-suspended',
  'flows-resumed',
  'requests-resent',
  'verdicts-unknown',
] as const
export type CounterName = (typeof counterNames)[number]
export const counterIndex = Object.fromEntries(counterNames.map((name, index) => [name, index])) as Readonly<
  Record<CounterName, number>
>

export const jobRow = layout('job-row', {
  state: u32(),
  number: u32(),
  userId: u32(),
  members: u32(),
  name: text(limits.nameByteLength),
  livenessInode: f64(),
  activityInode: f64(),
  /** Salt and salted hash of the job's key, by which a successor recognises it; the key itself is nowhere. */
  keyProof: text(64),
})

export const memberState = { free: 0, alive: 1, detaching: 2, dying: 3 } as const
export const memberStateNames = ['free', 'alive', 'detaching', 'dying'] as const

export const memberRow = layout('member-row', {
  state: u32(),
  job: u32(),
  member: u32(),
  generation: u32(),
  processId: u32(),
  userId: u32(),
  attachedTimeMs: f64(),
  queuePairs: u32(),
  regions: u32(),
  registeredByteLength: f64(),
  /** Of the process, by the kernel's clock: another process with the same number is another one. */
  processStartTime: f64(),
  name: text(32),
})

export const queuePairRow = layout('queue-pair-row', {
  state: u32(),
  job: u32(),
  member: u32(),
  generation: u32(),
  type: u32(),
  sendCompletionQueue: u32(),
  receiveCompletionQueue: u32(),
  lane: u32(),
  peerNumber: u32(),
  peerGeneration: u32(),
  sendSlots: u32(),
  receiveSlots: u32(),
  messagesSent: f64(),
  messagesReceived: f64(),
  bytesSent: f64(),
  bytesReceived: f64(),
  segmentInode: f64(),
  segmentByteLength: f64(),
  peerNode: text(32),
  /** What a successor needs: `queuePairState` and the status of an error, as the engine has them; row of the peer, index of the lane. */
  condition: u32(),
  errorStatus: u32(),
  peer: u32(),
  laneIndex: u32(),
  /** 1: peer, peerNumber, peerGeneration and laneIndex name a connection. */
  connected: u32(),
  inlineByteLength: u32(),
  trafficClass: u32(),
  rnrRetry: u32(),
  rnrTimerMs: f64(),
})

export const completionQueueRow = layout('completion-queue-row', {
  state: u32(),
  job: u32(),
  member: u32(),
  generation: u32(),
  capacity: u32(),
  pad: gap(4),
  completions: f64(),
  segmentInode: f64(),
  segmentByteLength: f64(),
})

export const regionRow = layout('region-row', {
  state: u32(),
  job: u32(),
  member: u32(),
  generation: u32(),
  rights: u32(),
  deviceKey: u32(),
  byteLength: f64(),
  segmentInode: f64(),
  segmentByteLength: f64(),
})

export const peerStateNames = ['free', 'dialling', 'connected', 'lost', 'refused'] as const
export const peerRow = layout('peer-row', {
  state: u32(),
  epoch: u32(),
  lanes: u32(),
  failures: u32(),
  connectedTimeMs: f64(),
  heardTimeMs: f64(),
  node: text(limits.nameByteLength),
  address: text(64),
})

export const laneStateNames = ['free', 'opening', 'up', 'closing', 'failed'] as const
export const sharedQueuePairRow = layout('shared-queue-pair-row', {
  state: u32(),
  job: u32(),
  peer: u32(),
  lane: u32(),
  providerNumber: u32(),
  remoteNumber: u32(),
  incarnation: u32(),
  trafficClass: u32(),
  queuePairs: u32(),
  postedBytes: u32(),
  framesSent: f64(),
  framesReceived: f64(),
  bytesSent: f64(),
  bytesReceived: f64(),
  /** Frames this side may still send, and bounce buffers it offers. */
  credit: u32(),
  bounceBuffers: u32(),
})

/** Distinct errors: one row for each code and subject, counted. */
export const errorRow = layout('error-row', {
  state: u32(),
  count: u32(),
  firstTimeMs: f64(),
  lastTimeMs: f64(),
  code: text(40),
  message: text(160),
  pad: gap(4),
  rowEnd: gap(4),
})

export const eventRow = layout('event-row', {
  state: u32(),
  sequence: u32(),
  timeMs: f64(),
  kind: text(32),
  message: text(144),
})

export const nodeFileLayouts = [
  nodeFileHeader,
  jobRow,
  memberRow,
  queuePairRow,
  completionQueueRow,
  regionRow,
  peerRow,
  sharedQueuePairRow,
  errorRow,
  eventRow,
] as const

const sections = [
  ['jobs', jobRow.byteLength, limits.jobs],
  ['members', memberRow.byteLength, limits.members + 1],
  ['queuePairs', queuePairRow.byteLength, limits.queuePairs],
  ['completionQueues', completionQueueRow.byteLength, limits.completionQueues],
  ['regions', regionRow.byteLength, limits.regions],
  ['peers', peerRow.byteLength, limits.peers],
  ['sharedQueuePairs', sharedQueuePairRow.byteLength, limits.sharedQueuePairs],
  ['errors', errorRow.byteLength, 256],
  ['events', eventRow.byteLength, 256],
] as const

export type NodeFileSection = (typeof sections)[number][0]

export interface SectionGeometry {
  readonly offset: number
  readonly rowByteLength: number
  readonly rows: number
}

const countersOffset = nodeFileHeader.byteLength
const countersByteLength = 64 * 16
if (counterNames.length * 8 > countersByteLength)
  throw new RangeError(`${counterNames.length} counters do not fit the section`)

/** Where each table lies; computed once, the same for writers and readers. */
export const nodeFileGeometry = (() => {
  let end = countersOffset + countersByteLength
  const placed = sections.map(([name, rowByteLength, rows]) => {
    const offset = Math.ceil(end / 64) * 64
    end = offset + rowByteLength * rows
    return [name, { offset, rowByteLength, rows }] as const
  })
  return {
    countersOffset,
    sections: Object.fromEntries(placed) as Readonly<Record<NodeFileSection, SectionGeometry>>,
    byteLength: Math.ceil(end / 4096) * 4096,
  }
})()
