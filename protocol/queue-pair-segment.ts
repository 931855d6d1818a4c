/**
 * The segment of one queue pair: what a client posts to and where the results lie. Made by the broker, mapped by every
 * process that opened the queue pair. Invariants (crash-consistency §2):
 *
 *   - a slot's state word is the only truth; rings hold hints: slot index + 1, in posting order
 *   - the store of a ring's tail under the robust lock commits a whole list; the broker never takes these locks
 *   - the ring position of a work request is its sequence in its flow; the broker stores it in the slot before `queued`
 *   - all bytes may be changed by any holder at any time: the broker copies, then checks, then uses
 *   - whoever commits to a ring then marks its bit in the job's activity (shm/activity): `activityBit`, one for each side
 *
 *   0        identity (broker, once)                       ┐
 *   64       send lock · want room          (clients)      │ header
 *   128      receive lock                   (clients)      │
 *   192      state · last · peer …          (broker)       ┘
 *   …        send ring           shm/reference-ring: tail line, head line, entries
 *   …        receive ring
 *   …        atomic records      atomicWindow × 64 bytes    (broker: exactly-once memory of executed atomics)
 *   …        flow table          datagram only, flows × 24  (broker: last sequence of each sender)
 *   …        send slots          sendSlotByteLength each
 *   …        receive slots       128 bytes each
 */
import { cacheLine, f64, gap, i64, layout, u32, word } from '../shm/layout.js'
import { ringByteLength, ringCapacity } from '../shm/reference-ring.js'
import { limits } from './limits.js'

export const queuePairMagic = 0x71707331

export const queuePairHeader = layout('queue-pair-header', {
  magic: u32(),
  version: u32(),
  number: u32(),
  generation: u32(),
  type: u32(),
  sendSlots: u32(),
  receiveSlots: u32(),
  inlineByteLength: u32(),
  trafficClass: u32(),
  sendCompletionQueue: u32(),
  receiveCompletionQueue: u32(),
  identityEnd: cacheLine(),
  sendLock: word(),
  /** A poster found no room or a busy lock and would like an event. */
  wantRoom: word(),
  sendClientEnd: cacheLine(),
  receiveLock: word(),
  receiveClientEnd: cacheLine(),
  state: word(),
  /** Last sequence delivered to this queue pair (connected); pairs with slot done(sequence), stored after it. */
  last: word(),
  errorStatus: word(),
  peerNode: u32(),
  peerNumber: u32(),
  peerGeneration: u32(),
  epoch: word(),
  /** The last message that arrived and could not be received, and what its sender is told (connected). */
  failedSequence: u32(),
  failedStatus: u32(),
  brokerEnd: cacheLine(),
})

/** Bit of a ring in its job's activity bitmap; `side` as in completion-queue-segment.ts. */
export const activityBit = (queuePair: number, onSide: number): number => queuePair * 2 + onSide
export const activityQueuePair = (bit: number): number => bit >>> 1

export const queuePairType = { connected: 1, datagram: 2 } as const

export const queuePairState = { idle: 0, connecting: 1, connected: 2, draining: 3, error: 4, closed: 5 } as const
export const queuePairStateNames = ['idle', 'connecting', 'connected', 'draining', 'error', 'closed'] as const

/**
 * A posted send, write, read or atomic. First line: state, result and all that a send with one entry says; then what other requests say; then
 * further entries or inline payload.
 */
export const sendSlot = layout('send-slot', {
  state: word(),
  position: word(),
  incarnation: word(),
  laneSequence: word(),
  status: u32(),
  generation: u32(),
  byteLength: f64(),
  id: f64(),
  operation: u32(),
  immediate: u32(),
  firstEntry: gap(16),
  remoteKey: f64(),
  remoteOffset: f64(),
  compare: i64(),
  /** Value to store (compare-and-swap) or to add (fetch-and-add). */
  swap: i64(),
  destinationNode: u32(),
  destinationNumber: u32(),
  destinationGeneration: u32(),
  inlineByteLength: u32(),
  requestEnd: cacheLine(),
  /** Three more entries, or the inline payload; slots with a larger inline capacity go on behind. */
  furtherEntries: gap(64),
})

/** As the other; `operation` says the status too, once there is a result (`packOutcome`). */
export const receiveSlot = layout('receive-slot', {
  state: word(),
  position: word(),
  generation: u32(),
  operation: u32(),
  byteLength: f64(),
  id: f64(),
  sourceNode: u32(),
  sourceNumber: u32(),
  sourceGeneration: u32(),
  sequence: u32(),
  firstEntry: gap(16),
  furtherEntries: gap(48),
  immediate: u32(),
  resultEnd: cacheLine(),
})

/** One scatter/gather entry inside a slot. */
export const scatterGatherEntry = layout('scatter-gather-entry', {
  key: f64(),
  offset: u32(),
  byteLength: u32(),
})

const ENTRY_WORDS = scatterGatherEntry.byteLength / 4

/** Where entry `index` of a slot stands: the first in its first line, the others behind. In 32-bit words. */
export function entryWord(first: number, further: number, index: number): number {
  return index === 0 ? first : further + (index - 1) * ENTRY_WORDS
}

/** Exactly-once memory of an atomic the broker executed for the connected peer; index = sequence modulo the window. */
export const atomicRecord = layout('atomic-record', {
  /** 0 free, 1 intent written, 2 executed. */
  state: word(),
  sequence: u32(),
  key: f64(),
  offset: f64(),
  original: i64(),
  replacement: i64(),
  status: u32(),
  recordEnd: cacheLine(),
})

export const flowRecord = layout('flow-record', {
  sourceNode: u32(),
  sourceNumber: u32(),
  sourceGeneration: u32(),
  last: word(),
  /** As in the header, for this sender. */
  failedSequence: u32(),
  failedStatus: u32(),
})

export interface QueuePairGeometry {
  readonly sendSlots: number
  readonly receiveSlots: number
  readonly inlineByteLength: number
  /** Entries of the rings, powers of two. */
  readonly sendRingCapacity: number
  readonly receiveRingCapacity: number
  readonly sendSlotByteLength: number
  readonly receiveSlotByteLength: number
  readonly sendRingOffset: number
  readonly receiveRingOffset: number
  readonly atomicRecordsOffset: number
  readonly flowTableOffset: number
  readonly flowRecords: number
  readonly sendSlotsOffset: number
  readonly receiveSlotsOffset: number
  readonly byteLength: number
}

const roundUp = (value: number, unit: number): number => Math.ceil(value / unit) * unit

/** Where everything lies; broker and clients compute it from the same four numbers. Throws nothing: arguments are checked by the caller. */
export function queuePairGeometry(of: {
  type: number
  sendSlots: number
  receiveSlots: number
  inlineByteLength: number
}): QueuePairGeometry {
  const sendRingCapacity = ringCapacity(of.sendSlots)
  const receiveRingCapacity = ringCapacity(of.receiveSlots)
  const inlineCapacity = Math.max(64, roundUp(of.inlineByteLength, 64))
  const sendSlotByteLength = sendSlot.byteLength - 64 + inlineCapacity
  const sendRingOffset = queuePairHeader.byteLength
  const receiveRingOffset = sendRingOffset + roundUp(ringByteLength(sendRingCapacity), 64)
  const atomicRecordsOffset = receiveRingOffset + roundUp(ringByteLength(receiveRingCapacity), 64)
  const flowTableOffset = atomicRecordsOffset + limits.atomicWindow * atomicRecord.byteLength
  const flowRecords = of.type === queuePairType.datagram ? limits.datagramFlows : 0
  const sendSlotsOffset = flowTableOffset + flowRecords * flowRecord.byteLength
  const receiveSlotsOffset = sendSlotsOffset + of.sendSlots * sendSlotByteLength
  return {
    sendSlots: of.sendSlots,
    receiveSlots: of.receiveSlots,
    inlineByteLength: inlineCapacity,
    sendRingCapacity,
    receiveRingCapacity,
    sendSlotByteLength,
    receiveSlotByteLength: receiveSlot.byteLength,
    sendRingOffset,
    receiveRingOffset,
    atomicRecordsOffset,
    flowTableOffset,
    flowRecords,
    sendSlotsOffset,
    receiveSlotsOffset,
    byteLength: receiveSlotsOffset + of.receiveSlots * receiveSlot.byteLength,
  }
}
