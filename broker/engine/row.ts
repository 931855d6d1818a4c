/**
 * Rows: small messages of one flow behind one header, as streams have them. What holds for the whole row is looked at once, and each message
 * goes from the frame to its receive and to its completion without waiting anywhere. A message that cannot is handled as if it had come alone.
 */
import { counterIndex } from '../../protocol/node-file.js'
import { kindFlags, kindLength, messageFlag, routeHeader, rowEntry } from '../../protocol/wire.js'
import { findFlow, takeWhole } from './dispatch.js'
import type { Engine } from './engine.js'
import { tallyReceived } from './finish.js'
import type { Flow } from './flow.js'
import { takeNews } from './heard-news.js'
import type { Lane } from './lane.js'
import { PlainReceive } from './plain-receive.js'

const ROUTE_BYTES = routeHeader.byteLength
const ENTRY_BYTES = rowEntry.byteLength
const ROUTE = routeHeader.word
const WORD = rowEntry.word
const MESSAGES_RECEIVED = counterIndex['messages-received']
const BYTES_RECEIVED = counterIndex['bytes-received']
/** One for the thread: it is found and filled without anything in between. */
const posted = new PlainReceive()

/** Takes the row at `at` of the lane's memory; false: the peer broke the protocol. */
export function takeRow(engine: Engine, lane: Lane, at: number, payloadByteLength: number): boolean {
  const flow = findFlow(engine, lane, at, false)
  if (flow !== null) {
    if (!flow.connected) return false
    const { i32 } = lane.memory
    const word = at >>> 2
    if (!flow.suspended) takeNews(engine, flow, i32[word + ROUTE.delivered]!, i32[word + ROUTE.receiveLimit]!)
  }
  const end = at + ROUTE_BYTES + payloadByteLength
  let entry = at + ROUTE_BYTES
  while (entry >= 0 && entry < end) {
    if (flow !== null && isOpen(flow)) entry = fillRun(engine, flow, lane, entry, end)
    if (entry < end) entry = takeEntry(engine, lane, flow, at, entry, end)
  }
  return entry >= 0
}

/** Messages that find plain receives; where the first other one stands. Nothing in between can close the flow. */
function fillRun(engine: Engine, flow: Flow, lane: Lane, from: number, end: number): number {
  const { queuePair } = flow
  const { i32 } = lane.memory
  let { accepted } = flow
  let messages = 0
  let bytes = 0
  let entry = from
  posted.begin(flow)
  while (end - entry >= ENTRY_BYTES) {
    const kind = i32[(entry >>> 2) + WORD.kind]!
    const sequence = i32[(entry >>> 2) + WORD.sequence]!
    const byteLength = kindLength(kind)
    const flags = kindFlags(kind)
    const payload = entry + ENTRY_BYTES
    if (payload + byteLength > end || (flags & ~messageFlag.solicited) !== 0) break
    if (((sequence - accepted) | 0) <= 0 || !posted.find(engine, queuePair, byteLength)) break
    posted.fill(engine, queuePair, lane.memory, payload, byteLength, sequence, flags !== 0)
    accepted = sequence
    bytes += byteLength
    messages++
    entry = payload + ((byteLength + 7) & ~7)
  }
  if (messages > 0) {
    posted.end(flow, accepted)
    tell(engine, flow, lane, messages, bytes)
  }
  return entry
}

/** One message as if it had come alone; where the next one stands, or -1. */
function takeEntry(engine: Engine, lane: Lane, flow: Flow | null, at: number, entry: number, end: number): number {
  if (end - entry < ENTRY_BYTES) return -1
  const { i32 } = lane.memory
  const kind = i32[(entry >>> 2) + WORD.kind]!
  const sequence = i32[(entry >>> 2) + WORD.sequence]!
  const byteLength = kindLength(kind)
  const flags = kindFlags(kind)
  const payload = entry + ENTRY_BYTES
  if (payload + byteLength > end || (flags & ~messageFlag.solicited) !== 0) return -1
  if (!takeWhole(engine, lane, flow, at, sequence, flags, payload, byteLength)) return -1
  return payload + ((byteLength + 7) & ~7)
}

/** Nothing of the flow is on its way to a receive, and nothing keeps it back. */
function isOpen(flow: Flow): boolean {
  if (flow.suspended || !flow.inboundStarted || flow.assembling !== null || flow.inbound.size > 0) return false
  return !flow.queuePair.ending
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
