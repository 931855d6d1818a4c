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
  const { i32 } = lane.memory
  if (flow !== null) {
    if (!flow.connected) return false
    const word = at >>> 2
    if (!flow.suspended) takeNews(engine, flow, i32[word + ROUTE.delivered]!, i32[word + ROUTE.receiveLimit]!)
  }
  const end = at + ROUTE_BYTES + payloadByteLength
  let messages = 0
  let bytes = 0
  for (let entry = at + ROUTE_BYTES; entry < end; ) {
    if (end - entry < ENTRY_BYTES) return false
    const kind = i32[(entry >>> 2) + WORD.kind]!
    const sequence = i32[(entry >>> 2) + WORD.sequence]!
    const byteLength = kindLength(kind)
    const flags = kindFlags(kind)
    const payload = entry + ENTRY_BYTES
    if (payload + byteLength > end || (flags & ~messageFlag.solicited) !== 0) return false
    entry = payload + ((byteLength + 7) & ~7)
    if (flow !== null && isOpen(flow, sequence) && posted.find(engine, flow.queuePair, byteLength)) {
      posted.fill(engine, flow, lane.memory, payload, byteLength, sequence, flags !== 0)
      bytes += byteLength
      messages++
    } else if (!takeWhole(engine, lane, flow, at, sequence, flags, payload, byteLength)) return false
  }
  if (messages > 0) tell(engine, flow!, lane, messages, bytes)
  return true
}

/** A message that was not accepted before, nothing of its flow is on its way to a receive, and nothing keeps the flow back. */
function isOpen(flow: Flow, sequence: number): boolean {
  if (flow.suspended || !flow.inboundStarted || flow.assembling !== null || flow.inbound.size > 0) return false
  return !flow.queuePair.ending && ((sequence - flow.accepted) | 0) > 0
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
