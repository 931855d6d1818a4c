/**
 * Standing control messages: each is a flag or a bounded list in the flow's state, told as soon as the lane has control credit, latest
 * state wins. Control overtakes data in a lane's turn but never the data of its own flow that precedes it.
 */

import { counterIndex } from '../../protocol/node-file.js'
import {
  acknowledgementRow,
  atomicResultExtension,
  connectByService,
  connectExtension,
  grantSegment,
  messageType,
  resumeExtension,
} from '../../protocol/wire.js'
import type { Engine } from './engine.js'
import type { Flow } from './flow.js'
import { creditTier, type Lane } from './lane.js'
import { tellDelivered, tellLimit } from './news.js'
import { writeResume } from './resume.js'
import { writeRoute } from './route.js'

/** Acknowledgement rows that fit one message comfortably; more make another message. */
const ROWS = 64
/** A probe is longer than two path MTUs of common networks, so that a too large MTU shows before data does. */
const PROBE_BYTES = 3072

/** Tells what stands; returns how many messages. */
export function sendControl(engine: Engine, lane: Lane): number {
  let sent = sendProbes(lane)
  for (let message = lane.nextLoose; message; message = lane.nextLoose) {
    const offset = lane.beginMessage(message.payloadByteLength, creditTier.control)
    if (offset < 0) return sent
    lane.writeLooseRoute(offset, message)
    message.write(lane.memory, lane.payloadOffset(offset))
    lane.dropLoose()
    sent++
  }
  for (let flow = lane.takeControl(); flow; flow = lane.takeControl()) {
    if (flow.dead) continue
    const told = tellFlow(engine, lane, flow)
    sent += told < 0 ? -1 - told : told
    if (told < 0 || (hasControl(flow) && !flow.suspended)) {
      lane.addControl(flow)
      break
    }
  }
  return sent
}

function sendProbes(lane: Lane): number {
  if (!lane.probeDue && !lane.probeReplyDue) return 0
  let sent = 0
  const fill = Math.min(PROBE_BYTES, lane.payloadCapacity)
  for (const type of [messageType.probe, messageType.probeReply]) {
    const due = type === messageType.probe ? lane.probeDue : lane.probeReplyDue
    if (!due) continue
    const offset = lane.beginMessage(fill, creditTier.control)
    if (offset < 0) continue
    lane.writeLooseRoute(offset, {
      type,
      payloadByteLength: fill,
      sequence: 0,
      immediate: 0,
      write: () => {},
      destinationNumber: 0,
      destinationGeneration: 0,
      sourceNumber: 0,
      sourceGeneration: 0,
    })
    if (type === messageType.probe) lane.probeDue = false
    else lane.probeReplyDue = false
    sent++
  }
  return sent
}

/** A frame for its own sake. */
export function sendMarker(lane: Lane): number {
  const offset = lane.beginMessage(0, creditTier.control)
  if (offset < 0) return 0
  lane.writeLooseRoute(offset, {
    type: messageType.marker,
    payloadByteLength: 0,
    sequence: 0,
    immediate: 0,
    write: () => {},
    destinationNumber: 0,
    destinationGeneration: 0,
    sourceNumber: 0,
    sourceGeneration: 0,
  })
  return 1
}

export function hasControl(flow: Flow): boolean {
  return (
    flow.telling !== 'none' ||
    flow.connectDue ||
    flow.acceptDue ||
    flow.notReadyDue ||
    flow.readyDue ||
    flow.disconnectDue ||
    flow.disconnectedDue ||
    flow.failureDue ||
    flow.grantsDue.length > 0 ||
    flow.atomicResultsDue.length > 0
  )
}

/** Messages told; negative when frames or credit ran out (what is left stands). */
function tellFlow(engine: Engine, lane: Lane, flow: Flow): number {
  let told = 0
  const put = (type: number, payload: number, sequence: number, immediate: number): number => {
    const offset = lane.beginMessage(payload, creditTier.control)
    if (offset >= 0) {
      writeRoute(lane, offset, type, 0, payload, flow, sequence, immediate, 0)
      told++
    }
    return offset
  }
  // Before a resume, which counts them as delivered.
  told += tellFailures(lane, flow)
  if (flow.failureDue) return -1 - told
  if (flow.telling !== 'none') {
    const offset = put(messageType.resume, resumeExtension.byteLength, 0, 0)
    if (offset < 0) return -1 - told
    writeResume(engine, lane, offset, flow)
    engine.wakeFlow(flow)
  }
  // What else it has to say is told to an end that has said what it knows.
  if (flow.suspended) return told
  if (flow.connectDue || flow.acceptDue) {
    const offset = put(flow.acceptDue ? messageType.accept : messageType.connect, connectExtension.byteLength, 0, 0)
    if (offset < 0) return -1 - told
    writeConnect(lane, offset, flow)
    flow.connectDue = false
    flow.acceptDue = false
  }
  while (flow.grantsDue.length > 0) {
    const receive = flow.grantsDue[0]!
    const list = receive.local
    const offset = put(messageType.grant, list.count * grantSegment.byteLength, receive.sequence, 0)
    if (offset < 0) return -1 - told
    for (let index = 0; index < list.count; index++) {
      grantSegment.write(lane.memory, lane.payloadOffset(offset) + index * grantSegment.byteLength, {
        deviceKey: list.region(index).registered!.remoteKey,
        address: list.offset(index),
        byteLength: list.length(index),
      })
    }
    flow.grantsDue.shift()
  }
  while (flow.atomicResultsDue.length > 0) {
    const { sequence, outcome } = flow.atomicResultsDue[0]!
    const offset = put(messageType.atomicResult, atomicResultExtension.byteLength, sequence, 0)
    if (offset < 0) return -1 - told
    atomicResultExtension.write(lane.memory, lane.payloadOffset(offset), {
      original: outcome.original,
      status: outcome.status,
    })
    flow.atomicResultsDue.shift()
  }
  if (flow.notReadyDue) {
    if (put(messageType.receiverNotReady, 0, flow.parkedSequence, 0) < 0) return -1 - told
    flow.notReadyDue = false
  }
  if (flow.readyDue) {
    if (put(messageType.ready, 0, flow.parkedSequence, 0) < 0) return -1 - told
    flow.readyDue = false
  }
  if (flow.disconnectDue) {
    if (put(messageType.disconnect, 0, 0, flow.queuePair.errorStatus) < 0) return -1 - told
    flow.disconnectDue = false
    flow.disconnectSent = true
    engine.counters[counterIndex.disconnects]!++
  }
  if (flow.disconnectedDue) {
    if (put(messageType.disconnected, 0, 0, 0) < 0) return -1 - told
    flow.disconnectedDue = false
    flow.disconnectedSent = true
  }
  engine.touchEnding(flow.queuePair)
  return told
}

/** Messages that could not be received; how many went. */
function tellFailures(lane: Lane, flow: Flow): number {
  let told = 0
  while (flow.failureDue) {
    const offset = lane.beginMessage(0, creditTier.control)
    if (offset < 0) return told
    // Written before it leaves the list: what this very header tells as delivered must stay below the failure.
    const sequence = flow.failedSequences[0]!
    writeRoute(lane, offset, messageType.queuePairError, 0, 0, flow, sequence, flow.failedStatuses[0]!, 0)
    flow.failedSequences.shift()
    flow.failureTold(sequence, flow.failedStatuses.shift()!)
    if (flow.acknowledgementDue) lane.addNews(flow)
    told++
  }
  return told
}

function writeConnect(lane: Lane, offset: number, flow: Flow): void {
  connectExtension.write(lane.memory, lane.payloadOffset(offset), {
    cookie: flow.cookie,
    reason: 0,
    receiveLimit: flow.limit,
    flags: 0,
    service: flow.service,
  })
  // The limit is told here for the first time; later messages repeat it in their headers.
  tellLimit(flow)
}

export const isByService = (destinationNumber: number): boolean => destinationNumber === connectByService

/** News that no message carried: one row for each flow. Returns how many rows went. */
export function sendAcknowledgements(engine: Engine, lane: Lane): number {
  let rows = 0
  const most = Math.min(ROWS, Math.floor(lane.payloadCapacity / acknowledgementRow.byteLength))
  while (skipTold(engine, lane)) {
    const room = Math.floor(lane.openRoom / acknowledgementRow.byteLength)
    const wanted = Math.min(most, room >= 1 ? room : most, lane.newsFlows)
    const offset = lane.beginMessage(wanted * acknowledgementRow.byteLength, creditTier.acknowledgement)
    if (offset < 0) break
    const written = writeRows(engine, lane, lane.payloadOffset(offset), wanted)
    lane.finishAcknowledgements(offset, written * acknowledgementRow.byteLength)
    rows += written
  }
  if (rows > 0) engine.counters[counterIndex['acknowledgements-sent']]! += rows
  if (!lane.hasNews) lane.newsMessages = 0
  lane.newsAge = 0
  return rows
}

/** A data message may have told everything meanwhile. */
const isTold = (flow: Flow): boolean =>
  flow.dead || flow.suspended || (!flow.acknowledgementDue && flow.advertisedLimit === flow.limit)

/** Leaves out flows whose news are told already; true if one with news is left. */
function skipTold(engine: Engine, lane: Lane): boolean {
  for (let flow = lane.nextNews; flow; flow = lane.nextNews) {
    if (!isTold(flow)) return true
    lane.takeNews()
    engine.touchEnding(flow.queuePair)
  }
  return false
}

function writeRows(engine: Engine, lane: Lane, payload: number, wanted: number): number {
  const { i32 } = lane.memory
  let written = 0
  while (written < wanted) {
    const flow = lane.takeNews()
    if (!flow) break
    engine.touchEnding(flow.queuePair)
    if (isTold(flow)) continue
    const word = (payload + written * acknowledgementRow.byteLength) >>> 2
    i32[word + acknowledgementRow.word.destinationNumber] = flow.remoteNumber
    i32[word + acknowledgementRow.word.destinationGeneration] = flow.remoteGeneration
    i32[word + acknowledgementRow.word.sourceNumber] = flow.queuePair.number
    i32[word + acknowledgementRow.word.sourceGeneration] = flow.queuePair.generation
    i32[word + acknowledgementRow.word.delivered] = tellDelivered(flow)
    i32[word + acknowledgementRow.word.receiveLimit] = tellLimit(flow)
    written++
  }
  return written
}
