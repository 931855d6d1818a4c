/**
 * Small messages of one flow in a row, as frames mostly hold them: what holds for the whole row is looked at once, and each message goes from
 * the frame to its receive and to its completion without waiting anywhere. Whatever is not plainly possible is left to `dispatch.ts`, which
 * also knows why.
 *
 * Store order of each message as in `finish.ts`: body → slot done(sequence) → last → completion ring.
 */
import { side } from '../../protocol/completion-queue-segment.js'
import { counterIndex } from '../../protocol/node-file.js'
import { opcode, operationSgeCount, packOperation } from '../../protocol/opcodes.js'
import { receiveSlot, scatterGatherEntry } from '../../protocol/queue-pair-segment.js'
import { status } from '../../protocol/statuses.js'
import {
  kindFlags,
  kindLength,
  kindType,
  messageFlag,
  messageType,
  regionRight,
  routeHeader,
} from '../../protocol/wire.js'
import { copyBytes } from '../../shm/copy.js'
import { postedToDone } from '../../shm/slot-state.js'
import { findFlow, takeNews } from './dispatch.js'
import type { Engine } from './engine.js'
import { storeLast, tallyReceived } from './finish.js'
import type { Flow } from './flow.js'
import type { Lane } from './lane.js'
import { within } from './region.js'

const ROUTE_BYTES = routeHeader.byteLength
const WORD = routeHeader.word
const ENTRY = receiveSlot.word.entries
const ENTRY_KEY = (ENTRY + scatterGatherEntry.word.key) >>> 1
const ENTRY_OFFSET = ENTRY + scatterGatherEntry.word.offset
const ENTRY_LENGTH = ENTRY + scatterGatherEntry.word.byteLength
const RESULT_LENGTH = receiveSlot.word.byteLength >>> 1
const MESSAGES_RECEIVED = counterIndex['messages-received']
const BYTES_RECEIVED = counterIndex['bytes-received']

/** Takes messages from offset `from` of the lane's memory on, at most up to `end`; the offset of the first that was not taken. */
export function takeRow(engine: Engine, lane: Lane, from: number, end: number): number {
  const flow = findFlow(engine, lane, from, false)
  if (flow === null || !isOpen(flow)) return from
  const { i32 } = lane.memory
  let at = from
  let messages = 0
  let bytes = 0
  let delivered = 0
  let limit = 0
  while (end - at >= ROUTE_BYTES) {
    const word = at >>> 2
    const length = kindLength(i32[word + WORD.kind]!)
    if (length < ROUTE_BYTES || at + length > end) break
    if (!isOf(flow, lane, word) || !receive(engine, flow, lane, at, length - ROUTE_BYTES)) break
    delivered = i32[word + WORD.delivered]!
    limit = i32[word + WORD.receiveLimit]!
    bytes += length - ROUTE_BYTES
    messages++
    at += (length + 7) & ~7
  }
  if (messages > 0) tell(engine, flow, lane, messages, bytes)
  if (messages > 0) takeNews(engine, flow, delivered, limit)
  return at
}

/** Nothing of the flow is on its way to a receive, and nothing keeps it back. */
function isOpen({ connected, suspended, inboundStarted, assembling, inbound, parked, queuePair }: Flow): boolean {
  if (!connected || suspended || parked || !inboundStarted || assembling !== null) return false
  return inbound.size === 0 && !queuePair.ending
}

/** A whole eager message of this very flow that was not accepted before. */
function isOf(flow: Flow, lane: Lane, word: number): boolean {
  const { i32, u32 } = lane.memory
  const kind = i32[word + WORD.kind]!
  return (
    kindType(kind) === messageType.eager &&
    (kindFlags(kind) & messageFlag.more) === 0 &&
    i32[word + WORD.segmentOffset] === 0 &&
    u32[word + WORD.destinationNumber] === flow.queuePair.number &&
    u32[word + WORD.destinationGeneration] === flow.queuePair.generation &&
    u32[word + WORD.sourceNumber] === flow.remoteNumber &&
    u32[word + WORD.sourceGeneration] === flow.remoteGeneration &&
    ((i32[word + WORD.sequence]! - flow.accepted) | 0) > 0
  )
}

/** Fills the oldest posted receive and commits it; false: it is not there, or not plainly fit. */
function receive(engine: Engine, flow: Flow, lane: Lane, at: number, byteLength: number): boolean {
  const { queuePair } = flow
  const { receives, memory, receiveQueue } = queuePair
  const slot = receives.first
  if (slot < 0) return false
  const { i32, u32, f64 } = memory
  const word = queuePair.receiveSlotWord(slot)
  if (operationSgeCount(i32[word + receiveSlot.word.operation]!) !== 1) return false
  const room = u32[word + ENTRY_LENGTH]!
  const offset = u32[word + ENTRY_OFFSET]!
  if (room === 0 || byteLength > room) return false
  const region = engine.regions.find(f64[(word >>> 1) + ENTRY_KEY]!, queuePair.job)
  if (region === null || (region.rights & regionRight.localWrite) === 0 || !within(region, offset, room)) return false
  copyBytes(region.memory, offset, lane.memory, at + ROUTE_BYTES, byteLength)
  receives.shift()
  receives.end(slot)
  const header = lane.memory.i32
  const from = at >>> 2
  const flags = kindFlags(header[from + WORD.kind]!)
  const hasImmediate = (flags & messageFlag.hasImmediate) !== 0
  const sequence = header[from + WORD.sequence]!
  const generation = receives.generationOf(slot)
  i32[word + receiveSlot.word.status] = status.success
  f64[(word >>> 1) + RESULT_LENGTH] = byteLength
  i32[word + receiveSlot.word.operation] = packOperation(
    hasImmediate ? opcode.receiveWithImmediate : opcode.receive,
    0,
    1,
  )
  i32[word + receiveSlot.word.immediate] = hasImmediate ? header[from + WORD.immediate]! : 0
  i32[word + receiveSlot.word.sourceNode] = flow.peer
  i32[word + receiveSlot.word.sourceNumber] = flow.remoteNumber
  i32[word + receiveSlot.word.sourceGeneration] = flow.remoteGeneration
  i32[word + receiveSlot.word.sequence] = sequence
  const committed = postedToDone(queuePair.words, word, generation)
  flow.accepted = sequence
  flow.lastDelivered = sequence
  storeLast(flow)
  if (committed) receiveQueue.push(queuePair, side.receive, slot, generation, (flags & messageFlag.solicited) !== 0)
  else engine.corrupt(queuePair, 'a receive slot changed before its completion')
  return true
}

/** The peer will hear of them, and whoever waits for their completions. */
function tell(engine: Engine, flow: Flow, lane: Lane, messages: number, bytes: number): void {
  engine.counters[MESSAGES_RECEIVED]! += messages
  engine.counters[BYTES_RECEIVED]! += bytes
  tallyReceived(engine, flow.queuePair, messages, bytes)
  engine.touchQueue(flow.queuePair.receiveQueue)
  flow.acknowledgementDue = true
  lane.addNews(flow)
  lane.newsMessages += messages - 1
  engine.markBusy(lane)
}
