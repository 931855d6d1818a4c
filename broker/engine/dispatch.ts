/**
 * Frames from a peer: lane header, then each routed message to its handler. Receiving takes no resource that could run out: payload is
 * copied to the posted receive, the bounce buffer goes back at once, and any reply is a flag in existing state (verbs-semantics H5b).
 *
 * The peer is another broker of the same cluster, but its bytes are still checked: what cannot be parsed fails the lane, never the broker.
 */
import { limits } from '../../protocol/limits.js'
import { counterIndex } from '../../protocol/node-file.js'
import { opcode } from '../../protocol/opcodes.js'
import { queuePairState } from '../../protocol/queue-pair-segment.js'
import { type Status, status } from '../../protocol/statuses.js'
import {
  atomicExtension,
  atomicResultExtension,
  connectExtension,
  grantSegment,
  kindFlags,
  kindLength,
  kindType,
  laneHeader,
  messageFlag,
  messageType,
  resumeExtension,
  routeHeader,
} from '../../protocol/wire.js'
import { endAtomic, executeAtomic, settleAtomic } from './atomics.js'
import { beginGranted } from './bulk.js'
import { takeAccept, takeConnect, takeDisconnect, takeDisconnected, takeReject } from './connection.js'
import { bindReceive, placeSegment, repeated, settleReceive } from './deliver.js'
import type { Engine } from './engine.js'
import { finishReceive, finishSend, isTwoSided } from './finish.js'
import type { Flow } from './flow.js'
import { takeAcknowledgements, takeNews } from './heard-news.js'
import type { Lane } from './lane.js'
import { datagramFlow } from './paths.js'
import { flowKey } from './queue-pair.js'
import { answerResolve, takeResolved, takeRevoke, takeRevokeAcknowledged } from './remote-keys.js'
import { type Grant, requestStage, type SendRequest } from './request.js'
import { type ResumeWord, readResume, takeResume } from './resume.js'
import { takeRow } from './row.js'
import { postpone, refuseHead } from './waiting.js'

const HEADER_BYTES = laneHeader.byteLength
const ROUTE_BYTES = routeHeader.byteLength
const FRAMES_RECEIVED = counterIndex['frames-received']
const MESSAGES_RECEIVED = counterIndex['messages-received']
const BYTES_RECEIVED = counterIndex['bytes-received']
const STALE = counterIndex['stale-messages']

const WORD = routeHeader.word

/** Handles a frame of `byteLength` bytes at `offset` of the lane's memory; false: the lane must fail. */
export function takeFrame(engine: Engine, lane: Lane, offset: number, byteLength: number): boolean {
  const { i32 } = lane.memory
  const word = offset >>> 2
  const frame = i32[word + laneHeader.word.frame]!
  const length = frame & 0xffff
  const sequence = i32[word + laneHeader.word.laneSequence]!
  if (byteLength < HEADER_BYTES || length !== byteLength || sequence !== ((lane.lastReceived + 1) | 0)) return false
  lane.lastReceived = sequence
  lane.framesReceived++
  lane.bytesReceived += byteLength
  engine.counters[FRAMES_RECEIVED]!++
  const limit = i32[word + laneHeader.word.laneLimit]!
  if (((limit - lane.peerLimit) | 0) > 0) lane.peerLimit = limit
  lane.peerAcknowledged = i32[word + laneHeader.word.laneAcknowledged]!
  if ((frame & 0x10000) === 0) lane.consumedNews++
  let at = offset + HEADER_BYTES
  const end = offset + byteLength
  while (at < end) {
    if (end - at < ROUTE_BYTES) return false
    const messageLength = kindLength(i32[(at >>> 2) + WORD.kind]!)
    if (messageLength < ROUTE_BYTES || at + messageLength > end) return false
    if (!takeMessage(engine, lane, at, messageLength - ROUTE_BYTES)) return false
    at += (messageLength + 7) & ~7
  }
  return true
}

function takeMessage(engine: Engine, lane: Lane, at: number, payloadByteLength: number): boolean {
  const { memory } = lane
  const payload = at + ROUTE_BYTES
  const type = kindType(memory.i32[(at >>> 2) + WORD.kind]!)
  switch (type) {
    case messageType.eager:
    case messageType.request:
    case messageType.placed:
    case messageType.immediate:
    case messageType.atomic:
    case messageType.grant:
    case messageType.atomicResult:
    case messageType.queuePairError:
    case messageType.receiverNotReady:
    case messageType.ready:
    case messageType.disconnect:
    case messageType.disconnected:
    case messageType.accept:
      return takeFlowMessage(engine, lane, type, at, payloadByteLength)
    case messageType.row:
      return takeRow(engine, lane, at, payloadByteLength)
    case messageType.acknowledgements:
      return takeAcknowledgements(engine, lane, payload, payloadByteLength)
    case messageType.connect:
      if (payloadByteLength < connectExtension.byteLength) return false
      takeConnect(engine, lane, header(lane, at), connectExtension.read(memory, payload))
      return true
    case messageType.reject:
      if (payloadByteLength < connectExtension.byteLength) return false
      takeReject(engine, lane, header(lane, at), connectExtension.read(memory, payload))
      return true
    case messageType.resolve:
      if (payloadByteLength < 8) return false
      answerResolve(engine, lane, memory, payload)
      return true
    case messageType.resolved:
      if (payloadByteLength < 40) return false
      return takeResolved(engine, lane, memory, payload)
    case messageType.revoke:
      if (payloadByteLength < 8) return false
      takeRevoke(engine, lane, memory, payload)
      return true
    case messageType.revokeAcknowledged:
      if (payloadByteLength < 8) return false
      takeRevokeAcknowledged(engine, lane, memory, payload)
      return true
    case messageType.probe:
      lane.probeReplyDue = true
      return true
    case messageType.probeReply:
      engine.laneProbed(lane)
      return true
    case messageType.resume:
      if (payloadByteLength < resumeExtension.byteLength) return false
      takeResume(engine, lane, header(lane, at), resumeWord(lane, at))
      return true
    case messageType.marker:
    case messageType.laneClose:
      return true
    default:
      return false
  }
}

export interface RouteNumbers {
  readonly destinationNumber: number
  readonly destinationGeneration: number
  readonly sourceNumber: number
  readonly sourceGeneration: number
}

function header(lane: Lane, at: number): RouteNumbers {
  const { u32 } = lane.memory
  const word = at >>> 2
  return {
    destinationNumber: u32[word + WORD.destinationNumber]!,
    destinationGeneration: u32[word + WORD.destinationGeneration]!,
    sourceNumber: u32[word + WORD.sourceNumber]!,
    sourceGeneration: u32[word + WORD.sourceGeneration]!,
  }
}

function resumeWord(lane: Lane, at: number): ResumeWord {
  const { i32 } = lane.memory
  const word = at >>> 2
  return readResume(lane, at + ROUTE_BYTES, i32[word + WORD.delivered]!, i32[word + WORD.receiveLimit]!)
}

/** The flow a message speaks of; null for a queue pair that is gone, of another job, or connected elsewhere. */
export function findFlow(engine: Engine, lane: Lane, at: number, create: boolean): Flow | null {
  const { u32 } = lane.memory
  const word = at >>> 2
  const queuePair = engine.queuePairs[u32[word + WORD.destinationNumber]!]
  if (
    queuePair === undefined ||
    queuePair.generation !== u32[word + WORD.destinationGeneration]! ||
    queuePair.job !== lane.job
  )
    return null
  const number = u32[word + WORD.sourceNumber]!
  const generation = u32[word + WORD.sourceGeneration]!
  if (queuePair.connected) {
    const flow = queuePair.flow
    // While it connects, only an accept speaks of it; what else comes belongs to an attempt that was given up.
    if (!flow || flow.lane !== lane || queuePair.state === queuePairState.connecting) return null
    return flow.remoteNumber === number && flow.remoteGeneration === generation ? flow : null
  }
  if (number >= limits.queuePairs) return null
  const known = queuePair.flows.get(flowKey(lane.peer, number))
  if (known && known.remoteGeneration === generation) return known
  return create && !queuePair.ending ? datagramFlow(engine, queuePair, lane.peer, number, generation, lane) : null
}

function takeFlowMessage(engine: Engine, lane: Lane, type: number, at: number, payloadByteLength: number): boolean {
  const { i32 } = lane.memory
  const word = at >>> 2
  if (type === messageType.accept) {
    if (payloadByteLength < connectExtension.byteLength) return false
    takeAccept(engine, lane, header(lane, at), connectExtension.read(lane.memory, at + ROUTE_BYTES))
    return true
  }
  const carries = beginsAnew(type)
  const flow = findFlow(engine, lane, at, carries)
  const sequence = i32[word + WORD.sequence]!
  if (flow && !flow.suspended) takeNews(engine, flow, i32[word + WORD.delivered]!, i32[word + WORD.receiveLimit]!)
  // Nothing new begins at a datagram queue pair that goes down: its senders get their verdict as from one that is gone.
  const refused = carries && flow && !flow.connected && flow.queuePair.ending && !flow.assembling
  if (!flow || refused) {
    engine.counters[STALE]!++
    // Every message that waits for an outcome gets one; later segments of an eager message are answered by the first.
    const segment = type === messageType.eager && i32[word + WORD.segmentOffset]! !== 0
    if ((carries && !segment) || type === messageType.disconnect)
      engine.answerStale(lane, header(lane, at), sequence, type === messageType.disconnect)
    return true
  }
  const flags = kindFlags(i32[word + WORD.kind]!)
  const immediate = i32[word + WORD.immediate]!
  const payload = at + ROUTE_BYTES
  switch (type) {
    case messageType.eager:
      return takeEager(
        engine,
        lane,
        flow,
        sequence,
        flags,
        immediate,
        i32[word + WORD.segmentOffset]!,
        payload,
        payloadByteLength,
      )
    case messageType.request:
      return (
        payloadByteLength >= 8 && takeRequest(engine, flow, sequence, flags, immediate, lane.memory.f64[payload >>> 3]!)
      )
    case messageType.grant:
      return takeGrant(engine, lane, flow, sequence, payload, payloadByteLength)
    case messageType.placed:
      return takePlaced(engine, flow, sequence)
    case messageType.immediate:
      return (
        payloadByteLength >= 8 &&
        takeImmediate(engine, flow, sequence, flags, immediate, lane.memory.f64[payload >>> 3]!)
      )
    case messageType.atomic:
      return payloadByteLength >= atomicExtension.byteLength && takeAtomic(engine, lane, flow, sequence, payload)
    case messageType.atomicResult:
      return (
        payloadByteLength >= atomicResultExtension.byteLength && takeAtomicResult(engine, lane, flow, sequence, payload)
      )
    case messageType.queuePairError:
      takeRefusal(engine, flow, sequence, immediate)
      return true
    case messageType.receiverNotReady:
      takeNotReady(engine, flow, sequence)
      return true
    case messageType.ready:
      flow.retryAtMs = 0
      engine.wakeFlow(flow)
      return true
    case messageType.disconnect:
      takeDisconnect(engine, flow, immediate as Status)
      return true
    default:
      takeDisconnected(engine, flow)
      return true
  }
}

/** Messages that a datagram queue pair may get from somebody it did not know. */
function beginsAnew(type: number): boolean {
  return (
    type === messageType.eager ||
    type === messageType.request ||
    type === messageType.immediate ||
    type === messageType.atomic
  )
}

function takeEager(
  engine: Engine,
  lane: Lane,
  flow: Flow,
  sequence: number,
  flags: number,
  immediate: number,
  segmentOffset: number,
  payload: number,
  byteLength: number,
): boolean {
  let receive = flow.assembling
  if (receive) {
    if (receive.sequence !== sequence || segmentOffset !== flow.assembledByteLength) return false
  } else {
    flow.beginInbound(sequence)
    if (repeated(flow, sequence)) return acknowledgeAgain(flow)
    if (dropWhileParked(flow, flags)) return true
    // Later segments of a message whose first one found no receive.
    if (segmentOffset !== 0) return !flow.connected
    receive = bindReceive(engine, flow, sequence)
    if (!receive) return noReceive(engine, flow, sequence, status.flushed)
    describe(receive, flags, immediate)
  }
  const more = (flags & messageFlag.more) !== 0
  placeSegment(engine, flow, receive, lane.memory, payload, byteLength, more)
  if (!more) {
    engine.counters[MESSAGES_RECEIVED]!++
    engine.counters[BYTES_RECEIVED]! += receive.byteLength
  }
  return true
}

/** A whole message of a row, as if it had come alone: `flow` is null when the queue pair that the row is for is gone. */
export function takeWhole(
  engine: Engine,
  lane: Lane,
  flow: Flow | null,
  at: number,
  sequence: number,
  flags: number,
  payload: number,
  byteLength: number,
): boolean {
  if (flow !== null) return takeEager(engine, lane, flow, sequence, flags, 0, 0, payload, byteLength)
  engine.counters[STALE]!++
  engine.answerStale(lane, header(lane, at), sequence, false)
  return true
}

function describe(
  receive: { operation: number; immediate: number; solicited: boolean },
  flags: number,
  immediate: number,
): void {
  if ((flags & messageFlag.hasImmediate) !== 0) {
    receive.operation = opcode.receiveWithImmediate
    receive.immediate = immediate
  }
  receive.solicited = (flags & messageFlag.solicited) !== 0
}

function acknowledgeAgain(flow: Flow): true {
  flow.acknowledgementDue = true
  flow.lane?.addNews(flow)
  return true
}

/**
 * Datagram: after a message found no receive, what was on the way behind it is dropped; the sender sends it again in order. The mark, not
 * the sequence, says where that begins: the sender may have given up the message that was refused.
 */
function dropWhileParked(flow: Flow, flags: number): boolean {
  if (!flow.parked) return false
  if ((flags & messageFlag.replay) === 0) return true
  flow.parked = false
  flow.queuePair.parkedFlows.delete(flow)
  return false
}

/**
 * No receive is posted. A datagram peer is told to come again. A connected peer keeps to its credit, so either our receives were flushed
 * because the queue pair went down (`lost` is then the message's verdict), or the peer's broker is wrong.
 */
function noReceive(engine: Engine, flow: Flow, sequence: number, lost: Status): boolean {
  if (flow.connected) {
    if (!flow.queuePair.ending) return false
    flow.accepted = sequence
    engine.refuseMessage(flow, sequence, lost)
    return true
  }
  flow.parked = true
  flow.parkedSequence = sequence
  flow.notReadyDue = true
  flow.queuePair.parkedFlows.add(flow)
  engine.counters[counterIndex['receiver-not-ready-sent']]!++
  engine.addControl(flow)
  return true
}

function takeRequest(
  engine: Engine,
  flow: Flow,
  sequence: number,
  flags: number,
  immediate: number,
  byteLength: number,
): boolean {
  if (!isMessageLength(byteLength)) return false
  flow.beginInbound(sequence)
  if (repeated(flow, sequence)) return acknowledgeAgain(flow)
  if (dropWhileParked(flow, flags)) return true
  // A queue pair that goes down grants nothing more: the peer flushes what it only announced.
  if (flow.queuePair.closing && flow.disconnectSent) return true
  const receive = bindReceive(engine, flow, sequence)
  if (!receive) return noReceive(engine, flow, sequence, status.flushed)
  describe(receive, flags, immediate)
  receive.byteLength = byteLength
  if (receive.refused === 0 && byteLength > receive.local.byteLength) receive.refused = status.localLengthError
  if (receive.refused !== 0) {
    settleReceive(engine, flow, receive)
    return true
  }
  receive.granted = true
  flow.grantsDue.push(receive)
  engine.addControl(flow)
  return true
}

const isMessageLength = (byteLength: number): boolean =>
  Number.isSafeInteger(byteLength) && byteLength >= 0 && byteLength <= limits.messageByteLength

/** An announced or sent request in flight, by sequence. */
function inFlight(flow: Flow, sequence: number): SendRequest | null {
  for (let request = flow.inFlight.head; request; request = request.next)
    if (request.sequence === sequence) return request
  return null
}

function takeGrant(
  engine: Engine,
  lane: Lane,
  flow: Flow,
  sequence: number,
  payload: number,
  payloadByteLength: number,
): boolean {
  const request = inFlight(flow, sequence)
  if (!request || request.stage !== requestStage.announced) return true
  const count = payloadByteLength / grantSegment.byteLength
  if (!Number.isInteger(count) || count < 1 || count > 4) return false
  const grants: Grant[] = []
  let room = 0
  for (let index = 0; index < count; index++) {
    const row = grantSegment.read(lane.memory, payload + index * grantSegment.byteLength)
    if (!isMessageLength(row.byteLength) || row.byteLength === 0) return false
    if (!Number.isSafeInteger(row.address) || row.address < 0) return false
    grants.push(row)
    room += row.byteLength
  }
  if (room < request.byteLength) return false
  request.grants = grants
  beginGranted(engine, lane, request)
  return true
}

function takePlaced(engine: Engine, flow: Flow, sequence: number): boolean {
  for (let receive = flow.inbound.head; receive; receive = receive.next) {
    if (receive.sequence !== sequence || !receive.granted) continue
    receive.granted = false
    engine.counters[MESSAGES_RECEIVED]!++
    engine.counters[BYTES_RECEIVED]! += receive.byteLength
    finishReceive(engine, flow, receive, status.success)
    return true
  }
  return repeated(flow, sequence)
}

function takeImmediate(
  engine: Engine,
  flow: Flow,
  sequence: number,
  flags: number,
  immediate: number,
  byteLength: number,
): boolean {
  if (!isMessageLength(byteLength)) return false
  flow.beginInbound(sequence)
  if (repeated(flow, sequence)) return acknowledgeAgain(flow)
  if (dropWhileParked(flow, flags)) return true
  const receive = bindReceive(engine, flow, sequence)
  // Its data is written already: that it had no effect cannot be said.
  if (!receive) return noReceive(engine, flow, sequence, status.remoteAborted)
  describe(receive, flags, immediate)
  // The data went straight to its region; the receive's own buffer is not touched, so its state does not matter.
  receive.refused = 0
  receive.byteLength = byteLength
  engine.counters[MESSAGES_RECEIVED]!++
  engine.counters[BYTES_RECEIVED]! += byteLength
  settleReceive(engine, flow, receive)
  return true
}

function takeAtomic(engine: Engine, lane: Lane, flow: Flow, sequence: number, payload: number): boolean {
  if (flow.atomicResultsDue.length >= lane.parameters.atomicWindow) return false
  const outcome = executeAtomic(engine, flow, sequence, atomicExtension.read(lane.memory, payload))
  flow.atomicResultsDue.push({ sequence, outcome })
  engine.addControl(flow)
  return true
}

function takeAtomicResult(engine: Engine, lane: Lane, flow: Flow, sequence: number, payload: number): boolean {
  const request = inFlight(flow, sequence)
  if (!request || request.opcode < opcode.compareAndSwap) return true
  const row = atomicResultExtension.read(lane.memory, payload)
  settleAtomic(engine, flow, request, { status: row.status as Status, original: row.original })
  return true
}

/** The peer could not receive this message (or the queue pair is gone): that request's verdict. */
function takeRefusal(engine: Engine, flow: Flow, sequence: number, verdict: number): void {
  const leaving = flow.waiting.head
  if (leaving && leaving.moved > 0 && leaving.sequence === sequence) {
    // Its first segment was refused before the last one found a frame: the rest need not go.
    refuseHead(engine, flow, leaving, verdict as Status)
    engine.wakeFlow(flow)
    return
  }
  const request = inFlight(flow, sequence)
  if (!request || flow.suspended) {
    refuseLeft(flow, sequence, verdict as Status)
    return
  }
  if (request.stage !== requestStage.announced && request.stage !== requestStage.sent) return
  const atomic = request.opcode >= opcode.compareAndSwap
  // Plain reads and writes ask nobody but the device.
  if (!atomic && !isTwoSided(request.opcode)) return
  if (request.stage === requestStage.announced) flow.announced--
  if (atomic) endAtomic(flow, sequence)
  finishSend(engine, request, verdict as Status)
  engine.wakeFlow(flow)
}

/** Refused on an earlier lane: told again before the flow goes on, or while it waits to go again. It keeps its place. */
function refuseLeft(flow: Flow, sequence: number, verdict: Status): void {
  const request = inFlight(flow, sequence) ?? resent(flow, sequence)
  if (!request || request.finished || !isTwoSided(request.opcode)) return
  request.stage = requestStage.finished
  request.status = verdict
}

function resent(flow: Flow, sequence: number): SendRequest | null {
  for (let request = flow.waiting.head; request?.exposed; request = request.next) {
    if (request.sequence === sequence) return request
  }
  return null
}

/** Datagram: the peer had no receive for `sequence` and dropped what followed; all of it goes again. */
function takeNotReady(engine: Engine, flow: Flow, sequence: number): void {
  if (flow.connected) return
  engine.counters[counterIndex['receiver-not-ready-received']]!++
  for (let request = flow.inFlight.head; request; request = request.next) {
    if (((request.sequence - sequence) | 0) >= 0 && isTwoSided(request.opcode)) goAgain(flow, request)
  }
  // The first segments of a message that found no frame for the rest were dropped like the others.
  const leaving = flow.waiting.head
  if (leaving && leaving.moved > 0) leaving.rewind()
  flow.resumeDue = true
  flow.resending = true
  flow.notReadyCount++
  if (flow.queuePair.ending) engine.flushWaiting(flow)
  else postpone(engine, flow)
}

function goAgain(flow: Flow, request: SendRequest): void {
  const { announced, sent, again } = requestStage
  if (request.stage !== announced && request.stage !== sent && request.stage !== again) return
  if (request.stage === announced) flow.announced--
  request.stage = again
  // Only the notice of a write with immediate goes again; its data is there.
  if (request.opcode !== opcode.writeWithImmediate) request.rewind()
}
