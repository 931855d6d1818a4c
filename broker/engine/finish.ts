/**
 * Verdicts and completions. Exactly one verdict for each posted request: `finishSend` records it, `settleFlow` tells it in the flow's
 * order, `completeSend` commits it in the slot and refers to it in the completion ring.
 *
 * Store order of a received message (crash-consistency W5): body → slot done(sequence) → last → completion ring → acknowledgement.
 */
import { side } from '../../protocol/completion-queue-segment.js'
import { counterIndex, queuePairRow } from '../../protocol/node-file.js'
import { opcode, packOutcome, workRequestFlag } from '../../protocol/opcodes.js'
import { flowRecord, queuePairHeader, receiveSlot, sendSlot } from '../../protocol/queue-pair-segment.js'
import { type Status, status } from '../../protocol/statuses.js'
import { postedToDone, postedToFree, queuedToDone, queuedToFree, queuedToPosted } from '../../shm/slot-state.js'
import type { Engine } from './engine.js'
import type { Flow } from './flow.js'
import type { EngineQueuePair } from './queue-pair.js'
import { type ReceiveRequest, receiveStage, requestStage, type SendRequest } from './request.js'
import { straightSend } from './straight-sends.js'
import { wakeFenced } from './waiting.js'

const COMPLETIONS = counterIndex.completions
const COMPLETIONS_ERROR = counterIndex['completions-error']
const MESSAGES_RECEIVED = queuePairRow.offset.messagesReceived / 8
const BYTES_RECEIVED = queuePairRow.offset.bytesReceived / 8
const MESSAGES_SENT = queuePairRow.offset.messagesSent / 8
const BYTES_SENT = queuePairRow.offset.bytesSent / 8

const CHANGED_SEND = 'a send slot changed before its completion'

export function isTwoSided(operation: number): boolean {
  return operation === opcode.send || operation === opcode.sendWithImmediate || operation === opcode.writeWithImmediate
}

/**
 * Write-ahead: the slot says "posted" before anything of the request can reach the peer, and on which lane (`shared`; 0 on this node). A
 * write names its lane only when all of it is posted: what was not can be proven by no later frame.
 */
export function markPosted(engine: Engine, request: SendRequest, shared: number, frame: number): void {
  if (request.incarnation === shared) return
  request.incarnation = shared
  request.frame = frame
  const queuePair = request.queuePair
  const { word } = request
  const i32 = queuePair.memory.i32
  // Plain stores: only a successor broker reads them, after this process died; the state transfer below orders them.
  i32[word + sendSlot.word.incarnation] = request.opcode === opcode.write ? 0 : shared
  i32[word + sendSlot.word.laneSequence] = frame
  if (request.exposed) return
  request.exposed = true
  if (!queuedToPosted(queuePair.words, word, request.generation))
    engine.corrupt(queuePair, 'a queued send slot changed')
  if (!request.retained) {
    request.retained = true
    request.local.retain()
  }
}

/** All of a write was handed to the device; a frame begun later proves its execution. */
export function markWhole(request: SendRequest, shared: number, frame: number): void {
  request.wholePosted = true
  request.frame = frame
  const { word } = request
  const i32 = request.queuePair.memory.i32
  i32[word + sendSlot.word.laneSequence] = frame
  i32[word + sendSlot.word.incarnation] = shared
}

/** The outcome of a request that is in flight, or refused at the head of its flow. */
export function finishSend(engine: Engine, request: SendRequest, verdict: Status): void {
  if (request.stage === requestStage.finished) return
  request.stage = requestStage.finished
  request.status = verdict
  if (request.flow) settleFlow(engine, request.flow)
}

/** Whether a two-sided request's delivery is known. */
function delivered(flow: Flow, request: SendRequest): boolean {
  return (
    request.stage === requestStage.sent &&
    request.chunksOutstanding === 0 &&
    isTwoSided(request.opcode) &&
    ((request.sequence - flow.delivered) | 0) <= 0
  )
}

/** Messages that were delivered, from the head of the flow: nearly all there is to settle. */
function settleDelivered(engine: Engine, flow: Flow): void {
  let messages = 0
  let bytes = 0
  const { recorded } = flow
  for (let request = recorded.head; request && delivered(flow, request); request = recorded.head) {
    recorded.shift()
    request.stage = requestStage.finished
    request.status = status.success
    bytes += request.byteLength
    messages++
    commitSend(engine, request)
  }
  if (messages > 0) tallySent(engine, flow.queuePair, messages, bytes)
}

/** The same for those without records: nothing but their delivery is waited for. */
function settleStraight(engine: Engine, flow: Flow): void {
  const { straight, queuePair } = flow
  const { sendQueue, sendsTaken, words, memory } = queuePair
  const { words: sends } = straight
  let messages = 0
  let bytes = 0
  for (; straight.size > 0; straight.drop()) {
    const at = straight.first
    if (((sends[at + straightSend.sequence]! - flow.delivered) | 0) > 0) break
    const slot = sends[at + straightSend.slot]!
    const generation = sends[at + straightSend.generation]!
    const byteLength = sends[at + straightSend.byteLength]!
    const word = queuePair.sendSlotWord(slot)
    sendsTaken[slot] = 0
    straight.region.release()
    bytes += byteLength
    messages++
    if ((sends[at + straightSend.flags]! & workRequestFlag.signaled) === 0) {
      sendQueue.ended++
      if (!postedToFree(words, word, generation)) engine.corrupt(queuePair, CHANGED_SEND)
      continue
    }
    memory.i32[word + sendSlot.word.status] = status.success
    memory.f64[(word + sendSlot.word.byteLength) >>> 1] = byteLength
    if (postedToDone(words, word, generation)) sendQueue.push(queuePair, side.send, slot, generation, false)
    else engine.corrupt(queuePair, CHANGED_SEND)
    engine.touchQueue(sendQueue)
  }
  if (messages > 0) tallySent(engine, queuePair, messages, bytes)
}

/** Tells verdicts from the head of the flow, in posting order. */
export function settleFlow(engine: Engine, flow: Flow): void {
  if (flow.recorded.size > 0) settleRecorded(engine, flow)
  if (flow.straightSize > 0 && flow.recorded.size === 0) settleStraight(engine, flow)
  if (flow.recorded.size + flow.straightSize + flow.waiting.size === 0) {
    for (let left = flow.flushed.shift(); left; left = flow.flushed.shift()) completeSend(engine, left)
  }
  if (flow.blocked !== 'none' && flow.waiting.size > 0) engine.wakeFlow(flow)
  engine.touchEnding(flow.queuePair)
}

function settleRecorded(engine: Engine, flow: Flow): void {
  settleDelivered(engine, flow)
  const { recorded } = flow
  let request = recorded.head
  while (request) {
    if (delivered(flow, request)) {
      request.stage = requestStage.finished
      request.status = status.success
    }
    // A peer may refuse a message before our device said that it read the last chunk: its memory is not free yet.
    if (request.stage !== requestStage.finished || request.chunksOutstanding > 0) break
    recorded.shift()
    completeSend(engine, request)
    request = recorded.head
  }
}

/** Its verdict is told. */
export function completeSend(engine: Engine, request: SendRequest): void {
  if (request.status === status.success) tallySent(engine, request.queuePair, 1, request.byteLength)
  else tallyFailures(engine, 1)
  commitSend(engine, request)
}

/** Commits the verdict in the slot and refers to it. The request's regions are free again. */
function commitSend(engine: Engine, request: SendRequest): void {
  const queuePair = request.queuePair
  const { word } = request
  if (request.retained) {
    request.retained = false
    request.local.release()
  }
  const { memory, words } = queuePair
  const silent = request.status === status.success && (request.flags & workRequestFlag.signaled) === 0
  let committed: boolean
  if (silent) {
    committed = request.exposed
      ? postedToFree(words, word, request.generation)
      : queuedToFree(words, word, request.generation)
  } else {
    memory.i32[word + sendSlot.word.status] = request.status
    memory.f64[(word + sendSlot.word.byteLength) >>> 1] = request.status === status.success ? request.byteLength : 0
    committed = request.exposed
      ? postedToDone(words, word, request.generation)
      : queuedToDone(words, word, request.generation)
  }
  request.flow = null
  queuePair.endSend(request)
  if (queuePair.fenced.size > 0) wakeFenced(engine, queuePair)
  if (!committed) {
    engine.corrupt(queuePair, CHANGED_SEND)
    return
  }
  if (silent) {
    queuePair.sendQueue.ended++
    return
  }
  queuePair.sendQueue.push(queuePair, side.send, request.slot, request.generation, request.status !== status.success)
  engine.touchQueue(queuePair.sendQueue)
}

/** A request that never left its ring's order: refused or flushed with nothing of the flow before it. */
export function completeUnsent(engine: Engine, request: SendRequest, verdict: Status): void {
  request.status = verdict
  request.stage = requestStage.finished
  completeSend(engine, request)
}

/** A receive got its outcome; tells it when all earlier ones of the flow were told. */
export function finishReceive(engine: Engine, flow: Flow, receive: ReceiveRequest, verdict: Status): void {
  receive.status = verdict
  receive.stage = receiveStage.finished
  publishInbound(engine, flow)
}

/** Publishes finished receives from the head of the flow's arrivals. */
export function publishInbound(engine: Engine, flow: Flow): void {
  let receive = flow.inbound.head
  let published = false
  while (receive && receive.stage === receiveStage.finished) {
    flow.inbound.shift()
    deliver(engine, flow, receive)
    published = true
    receive = flow.inbound.head
  }
  if (!published) return
  engine.touchEnding(flow.queuePair)
  if (flow.lane) {
    if (flow.dead) return
    flow.acknowledgementDue = true
    flow.lane.addNews(flow)
    if (flow.failedSequences.length > 0) engine.addControl(flow)
    engine.markBusy(flow.lane)
  } else if (flow.twin && !flow.suspended) {
    flow.twin.delivered = flow.lastDelivered
    settleFlow(engine, flow.twin)
  }
}

/** The outcome of the flow's next message is told. */
export function deliver(engine: Engine, flow: Flow, receive: ReceiveRequest): void {
  completeReceive(engine, receive, flow)
  flow.lastDelivered = receive.sequence
  storeLast(flow)
}

/** After the slot: a broker that dies in between finds the sequence in the slot and repairs `last`. Only a successor reads it. */
export function storeLast(flow: Flow): void {
  const { queuePair } = flow
  if (flow.connected) {
    queuePair.words.put(queuePairHeader.word.last, flow.lastDelivered)
    return
  }
  if (flow.recordIndex < 0) return
  const word = (queuePair.geometry.flowTableOffset + flow.recordIndex * flowRecord.byteLength) >>> 2
  queuePair.words.put(word + flowRecord.word.last, flow.lastDelivered)
}

/** For a successor: the receive may have been taken by then, and nothing else says that its message failed. */
export function rememberFailure(flow: Flow, sequence: number, verdict: Status): void {
  const { queuePair, recordIndex } = flow
  const failure = { failedSequence: sequence >>> 0, failedStatus: verdict }
  if (flow.connected) queuePairHeader.write(queuePair.memory, 0, failure)
  else if (recordIndex >= 0) {
    const at = queuePair.geometry.flowTableOffset + recordIndex * flowRecord.byteLength
    flowRecord.write(queuePair.memory, at, failure)
  }
}

/** Commits a receive's outcome. `flow` is null for receives that no message was matched to (flushed). */
export function completeReceive(engine: Engine, receive: ReceiveRequest, flow: Flow | null): void {
  const queuePair = receive.queuePair
  const { word } = receive
  const { i32, f64 } = queuePair.memory
  if (receive.retained) {
    receive.retained = false
    receive.local.release()
  }
  queuePair.endReceive(receive)
  f64[(word + receiveSlot.word.byteLength) >>> 1] = receive.status === status.success ? receive.byteLength : 0
  // What was posted must stay whole until the state says done: a successor may post it again.
  i32[word + receiveSlot.word.operation] = packOutcome(receive.operation, receive.entries, receive.status)
  i32[word + receiveSlot.word.immediate] = receive.immediate
  i32[word + receiveSlot.word.sourceNode] = flow ? flow.peer : 0
  i32[word + receiveSlot.word.sourceNumber] = flow ? flow.remoteNumber : 0
  i32[word + receiveSlot.word.sourceGeneration] = flow ? flow.remoteGeneration : 0
  i32[word + receiveSlot.word.sequence] = flow ? receive.sequence : 0
  if (receive.status === status.success) tallyReceived(engine, queuePair, 1, receive.byteLength)
  else tallyFailures(engine, 1)
  if (!postedToDone(queuePair.words, word, receive.generation)) {
    engine.corrupt(queuePair, 'a receive slot changed before its completion')
    return
  }
  queuePair.receiveQueue.push(
    queuePair,
    side.receive,
    receive.slot,
    receive.generation,
    receive.solicited || receive.status !== status.success,
  )
  engine.touchQueue(queuePair.receiveQueue)
}

/** So many receives got a message. */
export function tallyReceived(engine: Engine, queuePair: EngineQueuePair, messages: number, bytes: number): void {
  engine.counters[COMPLETIONS]! += messages
  if (queuePair.counterBase < 0) return
  engine.rows[queuePair.counterBase + MESSAGES_RECEIVED]! += messages
  engine.rows[queuePair.counterBase + BYTES_RECEIVED]! += bytes
}

/** So many sends were delivered. */
export function tallySent(engine: Engine, queuePair: EngineQueuePair, messages: number, bytes: number): void {
  engine.counters[COMPLETIONS]! += messages
  if (queuePair.counterBase < 0) return
  engine.rows[queuePair.counterBase + MESSAGES_SENT]! += messages
  engine.rows[queuePair.counterBase + BYTES_SENT]! += bytes
}

function tallyFailures(engine: Engine, count: number): void {
  engine.counters[COMPLETIONS]! += count
  engine.counters[COMPLETIONS_ERROR]! += count
}
