/**
 * What brokers exchange on a lane. Each provider SEND is one frame: a lane header and one or more routed messages, each
 * aligned to 8 bytes. Little-endian, naturally aligned.
 *
 *   frame    ┌ lane header 16 ┬ message ┬ message ┬ … ┐        at most bounceByteLength
 *   message  ┌ route header 40 ┬ extension / payload ┐         length counts header and payload, not the padding behind
 *
 * Reasons for packing (the specification's draft had one message a SEND): lane credit counts bounce buffers, so 16 buffers carry
 * 600 small messages instead of 16, a device sees one work request for dozens of messages, and one acknowledgement serves all.
 *
 * laneSequence counts frames, +1 each, compares by serial arithmetic; a gap or repeat is a protocol error. laneAcknowledged is the
 * last frame whose bounce buffer was consumed and reposted; laneLimit the highest laneSequence the receiver of this frame may send.
 * delivered and receiveLimit speak of the reverse direction of a connected flow; both absolute, so losing or merging them is harmless.
 */
import { f64, gap, i64, layout, text, u32 } from '../shm/layout.js'
import { limits } from './limits.js'

export const laneHeader = layout('lane-header', {
  /** byteLength of the frame (bits 15..0), `frameFlag` (bits 31..16). */
  frame: u32(),
  laneSequence: u32(),
  laneAcknowledged: u32(),
  laneLimit: u32(),
})

export const frameFlag = {
  /** Acknowledgements and nothing else: never answered by such a frame alone, or two idle brokers would answer each other for ever. */
  acknowledgementsOnly: 1,
} as const

export const routeHeader = layout('route-header', {
  /** type (bits 7..0), flags (15..8), length (31..16). */
  kind: u32(),
  immediate: u32(),
  destinationNumber: u32(),
  destinationGeneration: u32(),
  sourceNumber: u32(),
  sourceGeneration: u32(),
  sequence: u32(),
  delivered: u32(),
  receiveLimit: u32(),
  /** eager: byte offset of this segment in the message. */
  segmentOffset: u32(),
})

export const messageType = {
  eager: 1,
  grant: 2,
  placed: 3,
  immediate: 4,
  request: 5,
  acknowledgements: 6,
  receiverNotReady: 7,
  ready: 8,
  atomic: 9,
  atomicResult: 10,
  connect: 11,
  accept: 12,
  reject: 13,
  disconnect: 14,
  disconnected: 15,
  queuePairError: 16,
  resolve: 17,
  resolved: 18,
  revoke: 19,
  revokeAcknowledged: 20,
  marker: 21,
  probe: 22,
  probeReply: 23,
  laneClose: 24,
  resume: 25,
  row: 26,
} as const

export const messageFlag = {
  solicited: 1,
  hasImmediate: 2,
  more: 4,
  replay: 8,
  forget: 16,
} as const

export const packKind = (type: number, flags: number, length: number): number =>
  (type | (flags << 8) | (length << 16)) >>> 0
export const kindType = (kind: number): number => kind & 0xff
export const kindFlags = (kind: number): number => (kind >>> 8) & 0xff
export const kindLength = (kind: number): number => kind >>> 16

/** In front of each message of a row: whole sends of one connected flow, aligned to 8 bytes, behind one route header. */
export const rowEntry = layout('row-entry', {
  /** flags (bits 15..8), length of the payload (31..16). */
  kind: u32(),
  sequence: u32(),
})

/** One destination a granted write may write to. A grant carries up to four behind its header. */
export const grantSegment = layout('grant-segment', {
  deviceKey: u32(),
  pad: gap(4),
  address: f64(),
  byteLength: f64(),
})

/** Payload of request, placed and immediate. */
export const lengthExtension = layout('length-extension', { byteLength: f64() })

/** One row of an acknowledgements message. `destination` is the queue pair that sent, `source` the one that received. */
export const acknowledgementRow = layout('acknowledgement-row', {
  destinationNumber: u32(),
  destinationGeneration: u32(),
  sourceNumber: u32(),
  sourceGeneration: u32(),
  delivered: u32(),
  receiveLimit: u32(),
})

export const atomicExtension = layout('atomic-extension', {
  operation: u32(),
  pad: gap(4),
  key: f64(),
  offset: f64(),
  compare: i64(),
  swap: i64(),
})

export const atomicResultExtension = layout('atomic-result-extension', {
  original: i64(),
  status: u32(),
  pad: gap(4),
})

/** connect: destination number 0xffffffff means "by service". accept and reject carry it back with reason. */
export const connectExtension = layout('connect-extension', {
  cookie: u32(),
  reason: u32(),
  receiveLimit: u32(),
  flags: u32(),
  service: text(limits.serviceByteLength),
})
export const connectByService = 0xffffffff

export const rejectReason = {
  none: 0,
  noSuchQueuePair: 1,
  stale: 2,
  busy: 3,
  noListener: 4,
  refused: 5,
  timeout: 6,
  wrongType: 7,
} as const
export const rejectReasonNames = [
  'none',
  'no-such-queue-pair',
  'stale',
  'busy',
  'no-listener',
  'refused',
  'timeout',
  'wrong-type',
] as const

/**
 * resume: what a flow's end knows, after both ends fenced the lane's predecessor. The header's `delivered` is the last sequence delivered
 * to the teller; `receiveLimit` counts the receives posted there, from zero: credit begins anew.
 */
export const resumeExtension = layout('resume-extension', {
  /** 1: tell me yours. */
  ask: u32(),
  /** Name of the predecessor, and its last frame that arrived here: all that was posted before that frame was executed. 0: not known. */
  predecessor: u32(),
  lastReceived: u32(),
  /** 1: `delivered` says something; 0: nothing of this flow was ever delivered here. */
  anyDelivered: u32(),
})

/** resolve, revoke and revokeAcknowledged carry the key; resolved the whole row. */
export const keyExtension = layout('key-extension', { key: f64() })
export const resolvedExtension = layout('resolved-extension', {
  key: f64(),
  /** Where the region starts on the device (arena offset), and its length. */
  address: f64(),
  byteLength: f64(),
  deviceKey: u32(),
  rights: u32(),
  /** 0 found, else a status: the key is unknown, closing, or of another job. */
  status: u32(),
  pad: gap(4),
})

export const wireLayouts = [
  laneHeader,
  routeHeader,
  rowEntry,
  grantSegment,
  lengthExtension,
  acknowledgementRow,
  atomicExtension,
  atomicResultExtension,
  connectExtension,
  resumeExtension,
  keyExtension,
  resolvedExtension,
] as const

/** Rights of a region, bits; the order is that of IBV_ACCESS_* in ibv_reg_mr(3). */
export const regionRight = { localWrite: 1, remoteWrite: 2, remoteRead: 4, remoteAtomic: 8 } as const
