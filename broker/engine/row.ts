/**
 * Small messages of one flow in a row, as frames mostly hold them: what holds for the whole row is looked at once, and each message goes from
 * the frame to its receive and to its completion without waiting anywhere. Whatever is not plainly possible is left to `dispatch.ts`, which
 * also knows why.
 */
import { counterIndex } from '../../protocol/node-file.js'
import { kindFlags, kindLength, kindType, messageFlag, messageType, routeHeader } from '../../protocol/wire.js'
import { findFlow, takeNews } from './dispatch.js'
import type { Engine } from './engine.js'
import { tallyReceived } from './finish.js'
import type { Flow } from './flow.js'
import type { Lane } from './lane.js'
import { PlainReceive } from './plain-receive.js'

const ROUTE_BYTES = routeHeader.byteLength
const WORD = routeHeader.word
const MESSAGES_RECEIVED = counterIndex['messages-received']
const BYTES_RECEIVED = counterIndex['bytes-received']
/** One for the thread: it is found and filled without anything in between. */
const posted = new PlainReceive()

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
  if (!posted.find(engine, flow.queuePair, byteLength)) return false
  const { i32 } = lane.memory
  const word = at >>> 2
  const flags = kindFlags(i32[word + WORD.kind]!)
  const hasImmediate = (flags & messageFlag.hasImmediate) !== 0
  const solicited = (flags & messageFlag.solicited) !== 0
  const immediate = hasImmediate ? i32[word + WORD.immediate]! : 0
  const sequence = i32[word + WORD.sequence]!
  posted.fill(engine, flow, lane.memory, at + ROUTE_BYTES, byteLength, sequence, hasImmediate, immediate, solicited)
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
