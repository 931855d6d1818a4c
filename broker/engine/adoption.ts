/**
 * Queue pairs that an earlier broker left: put in order, given their flows back, served again. Runs once for each job, when every process
 * of it that lives has presented its segments; the order of steps is that of recovery.ts, for all queue pairs of the job together, because
 * same-node connections look at both ends.
 *
 *   1  each queue pair: visits finished, slots read, `last` recovered, completions referred to again, receives posted again
 *   2  connections: a flow for each, with what had left; those to other nodes wait for a lane, those on this node pair up
 *   3  activity cleared, every ring drained once
 *   4  same-node flows go on: what the other end delivered is known here
 */
import { side } from '../../protocol/completion-queue-segment.js'
import { nodeFileGeometry, peerRow } from '../../protocol/node-file.js'
import { outcomeStatus } from '../../protocol/opcodes.js'
import {
  flowRecord,
  queuePairHeader,
  queuePairState,
  receiveSlot,
  sendSlot,
} from '../../protocol/queue-pair-segment.js'
import { type Status, status } from '../../protocol/statuses.js'
import { clearAll } from '../../shm/activity.js'
import { type AdoptedQueuePair, thisNode } from './commands.js'
import { drainReceives, drainSends, flushReceives, recordSend } from './drain.js'
import type { Engine } from './engine.js'
import { completeSend } from './finish.js'
import { Flow } from './flow.js'
import { loseFlow } from './lane-loss.js'
import { pathKey } from './lane-path.js'
import { flowOf } from './paths.js'
import type { EngineQueuePair } from './queue-pair.js'
import {
  finishVisits,
  inSenderOrder,
  type LeftInSlots,
  type LeftSlot,
  leftInReceiveSlots,
  leftInSendSlots,
  recoverLast,
  republish,
  retakeReceives,
  retakeSends,
} from './recovery.js'
import { requestStage, type SendRequest } from './request.js'
import { goOn } from './resume.js'
import { beginSuspension } from './suspend.js'
import { noEvidence, verdictWithoutReplay } from './verdicts.js'

/** Visits of a ring until it is empty: more than its capacity only if somebody fills it meanwhile. */
const VISITS = 64
const VISIT_BUDGET = 4096

export function resumeJob(engine: Engine, job: number): number {
  const adopted = [...engine.adopted].filter(([queuePair]) => queuePair.job === job)
  for (const [queuePair, left] of adopted) {
    engine.adopted.delete(queuePair)
    if (!adopt(engine, queuePair, left)) engine.corrupt(queuePair, 'it is not what an earlier broker can have left')
  }
  const activity = engine.jobs.get(job)?.activity
  // Before the drain: a mark made while it runs must stay.
  if (activity && adopted.length > 0) clearAll(activity.words, 0)
  for (const [queuePair] of adopted) drainAll(engine, queuePair)
  for (const flow of engine.suspensions.towards(job, thisNode, null)) resumeLocal(engine, flow)
  return adopted.length
}

function drainAll(engine: Engine, queuePair: EngineQueuePair): void {
  for (let visit = 0; visit < VISITS && drainReceives(engine, queuePair, VISIT_BUDGET); visit++);
  for (let visit = 0; visit < VISITS && drainSends(engine, queuePair, VISIT_BUDGET); visit++);
}

/** False: a segment that no honest process and no broker left so. */
function adopt(engine: Engine, queuePair: EngineQueuePair, left: AdoptedQueuePair): boolean {
  if (!finishVisits(queuePair)) return false
  const sends = leftInSendSlots(queuePair)
  const receives = leftInReceiveSlots(queuePair)
  if (!sends || !receives) return false
  republish(engine, queuePair, side.send, sends.done)
  republish(engine, queuePair, side.receive, inSenderOrder(queuePair, receives.done))
  retakeReceives(queuePair, receives)
  if (!queuePair.connected) {
    queuePair.setState(queuePairState.connected)
    recoverFlowTable(queuePair, receives)
    expectPaths(engine, queuePair)
    retake(engine, queuePair, sends)
    return true
  }
  const { connection } = left
  if (left.state !== queuePairState.connected || !connection) {
    endUnconnected(engine, queuePair, left, sends)
    return true
  }
  queuePair.setState(queuePairState.connected)
  const flow = flowAgain(engine, queuePair, connection, recoverLast(queuePair, receives.done))
  rememberFailures(flow, receives)
  retake(engine, queuePair, sends)
  return true
}

function flowAgain(
  engine: Engine,
  queuePair: EngineQueuePair,
  to: NonNullable<AdoptedQueuePair['connection']>,
  last: number,
): Flow {
  const flow = new Flow(queuePair, to.peer, to.number, to.generation, null, true)
  const { job, trafficClass } = queuePair
  flow.path = { job, peer: to.peer, trafficClass: to.peer === thisNode ? 0 : trafficClass, index: to.lane }
  // 0: nothing was delivered yet.
  if (last !== 0) flow.continueInbound(last)
  queuePair.flow = flow
  beginSuspension(engine, flow)
  return flow
}

/** Messages that arrived and failed: the last one, and those whose completions nobody has taken. Their senders may not know. */
function rememberFailures(flow: Flow, { done }: LeftInSlots): void {
  const { memory } = flow.queuePair
  const { failedSequence, failedStatus } = queuePairHeader.read(memory, 0)
  const failures = new Map<number, number>(failedStatus === 0 ? [] : [[failedSequence | 0, failedStatus]])
  for (const { slot } of done) {
    const word = flow.queuePair.receiveSlotWord(slot)
    const sequence = memory.i32[word + receiveSlot.word.sequence]!
    const verdict = outcomeStatus(memory.i32[word + receiveSlot.word.operation]!)
    if (sequence === 0 || verdict === status.success) continue
    failures.set(
      sequence,
      verdict === status.localLengthError ? status.remoteInvalidRequest : status.remoteOperationError,
    )
  }
  const inOrder = [...failures].sort(([one], [other]) => (one - other) | 0)
  for (const [sequence, verdict] of inOrder) {
    // Whatever lies ahead of the last delivery will come again.
    if (((sequence - flow.lastDelivered) | 0) > 0) continue
    flow.failedSequences.push(sequence)
    flow.failedStatuses.push(verdict)
  }
}

/**
 * What had left, and what stood before the last that had: a request that is refused, or has nothing to move, gets its verdict in its turn
 * without ever leaving. The rest waits as if drained just now.
 */
function retake(engine: Engine, queuePair: EngineQueuePair, { posted, queued }: LeftInSlots): void {
  const lastPosted = posted.at(-1)?.position
  const isBefore = ({ position }: LeftSlot): boolean => lastPosted !== undefined && ((position - lastPosted) | 0) < 0
  const left = [
    ...posted.map((slot) => ({ slot, exposed: true })),
    ...queued.filter(isBefore).map((slot) => ({ slot, exposed: false })),
  ]
  left.sort((one, other) => (one.slot.position - other.slot.position) | 0)
  for (const { slot, exposed } of left) retakeLeft(engine, queuePair, slot, exposed)
  retakeSends(
    engine,
    queuePair,
    queued.filter((slot) => !isBefore(slot)),
  )
}

/** It keeps its slot, and its place in its flow, until its fate is known. */
function retakeLeft(
  engine: Engine,
  queuePair: EngineQueuePair,
  { slot, generation, position }: LeftSlot,
  exposed: boolean,
): void {
  const request = recordSend(engine, queuePair, slot, generation, position)
  request.exposed = exposed
  request.stage = requestStage.sent
  if (exposed) {
    request.retained = true
    request.local.retain()
    const word = queuePair.sendSlotWord(slot)
    request.incarnation = queuePair.memory.i32[word + sendSlot.word.incarnation]!
    request.wholePosted = request.incarnation !== 0
    request.frame = queuePair.memory.i32[word + sendSlot.word.laneSequence]!
  }
  const flow = flowOf(engine, queuePair, request)
  // Somebody scribbled over it since it left, so that nobody can be asked about it.
  if (!flow) {
    tell(engine, request, exposed ? status.unknown : status.flushed)
    return
  }
  // Datagrams to this node have no path to wait for; they wait all the same until both ends are in order.
  if (!flow.suspended) beginSuspension(engine, flow)
  request.flow = flow
  flow.beginOutbound(request.sequence)
  flow.highestSent = request.sequence
  flow.inFlight.push(request)
}

/** Idle, half connected or failed when its broker died: nothing of it can be asked of anybody. */
function endUnconnected(engine: Engine, queuePair: EngineQueuePair, left: AdoptedQueuePair, sends: LeftInSlots): void {
  const failed = left.state === queuePairState.error || left.connection !== null
  queuePair.setState(failed ? queuePairState.error : queuePairState.idle, failed ? (left.errorStatus as Status) : 0)
  const requests = [...sends.posted, ...sends.queued].sort((one, other) => (one.position - other.position) | 0)
  for (const { slot, generation, position } of requests) {
    const request = recordSend(engine, queuePair, slot, generation, position)
    request.exposed = sends.posted.some((posted) => posted.slot === slot)
    tell(engine, request, request.exposed ? verdictWithoutReplay(request, noEvidence) : status.flushed)
  }
  if (failed) flushReceives(engine, queuePair)
}

function tell(engine: Engine, request: SendRequest, verdict: Status): void {
  request.stage = requestStage.finished
  request.status = verdict
  completeSend(engine, request)
}

/** Receives that are done name their message; the table may lag behind them. */
function recoverFlowTable(queuePair: EngineQueuePair, { done }: LeftInSlots): void {
  const { memory, geometry } = queuePair
  for (const { slot } of done) {
    const word = queuePair.receiveSlotWord(slot)
    const sequence = memory.i32[word + receiveSlot.word.sequence]!
    if (sequence === 0) continue
    for (let index = 0; index < geometry.flowRecords; index++) {
      const record = (geometry.flowTableOffset + index * flowRecord.byteLength) >>> 2
      const same =
        memory.u32[record + flowRecord.word.sourceNode] === memory.u32[word + receiveSlot.word.sourceNode] &&
        memory.u32[record + flowRecord.word.sourceNumber] === memory.u32[word + receiveSlot.word.sourceNumber] &&
        memory.u32[record + flowRecord.word.sourceGeneration] === memory.u32[word + receiveSlot.word.sourceGeneration]
      if (!same) continue
      const last = queuePair.words.load(record + flowRecord.word.last)
      if (((sequence - last) | 0) > 0) queuePair.words.store(record + flowRecord.word.last, sequence)
    }
  }
  queuePair.remembersFlows = true
}

/** Its datagrams may have gone to any peer: they wait for the way there instead of failing. */
function expectPaths(engine: Engine, queuePair: EngineQueuePair): void {
  const { offset, rowByteLength, rows } = nodeFileGeometry.sections.peers
  for (let peer = 1; peer < rows; peer++) {
    const key = pathKey(queuePair.job, peer)
    const known = peerRow.read(engine.nodeFile.memory, offset + peer * rowByteLength).state !== 0
    if (known && !engine.datagramPaths.has(key)) engine.lostDatagramPaths.add(key)
  }
}

/**
 * Both ends are here: what the other one delivered needs no word of anybody. An end that was not presented is waited for; one that goes
 * down still says what it has.
 */
function resumeLocal(engine: Engine, flow: Flow): void {
  const { queuePair } = flow
  const other = engine.queuePairs[flow.remoteNumber]
  if (other?.generation !== flow.remoteGeneration || other.job !== queuePair.job || engine.adopted.has(other)) return
  if (!flow.connected) {
    const { last, failed, verdict } = heardFrom(other, queuePair)
    if (verdict !== 0) failLeft(flow, failed, verdict)
    goOnHere(engine, flow, last)
    return
  }
  const twin = other.flow
  if (twin?.remoteNumber !== queuePair.number || twin.remoteGeneration !== queuePair.generation) return
  for (const [index, sequence] of twin.failedSequences.entries()) failLeft(flow, sequence, twin.failedStatuses[index]!)
  twin.failedSequences.length = 0
  twin.failedStatuses.length = 0
  goOnHere(engine, flow, twin.inboundStarted ? twin.lastDelivered : null)
  if (other.ending) {
    engine.failQueuePair(queuePair, status.remoteAborted, 'the peer disconnected', true)
    return
  }
  flow.twin = twin
  twin.twin = flow
}

function failLeft(flow: Flow, sequence: number, verdict: number): void {
  for (let request = flow.inFlight.head; request; request = request.next) {
    if (request.sequence !== sequence) continue
    request.stage = requestStage.finished
    request.status = verdict as Status
  }
}

function goOnHere(engine: Engine, flow: Flow, delivered: number | null): void {
  goOn(engine, flow, { receiveLimit: 0, evidence: { delivered, predecessor: 0, lastReceived: 0 } })
}

/** What a datagram queue pair of this node knows of another one as a sender. */
function heardFrom(
  receiver: EngineQueuePair,
  sender: EngineQueuePair,
): { readonly last: number | null; readonly failed: number; readonly verdict: number } {
  const { memory, geometry } = receiver
  for (let index = 0; index < geometry.flowRecords; index++) {
    const row = flowRecord.read(memory, geometry.flowTableOffset + index * flowRecord.byteLength)
    const same = row.sourceNode === thisNode && row.sourceNumber === sender.number
    if (!same || row.sourceGeneration !== sender.generation) continue
    const isTold = row.failedStatus !== 0 && ((row.failedSequence - row.last) | 0) <= 0
    return { last: row.last | 0, failed: row.failedSequence | 0, verdict: isTold ? row.failedStatus : 0 }
  }
  return { last: null, failed: 0, verdict: 0 }
}

/** The way to a peer is given up; on this node: other ends that were not presented. Returns how many flows ended. */
export function abandonPath(
  engine: Engine,
  job: number,
  peer: number,
  trafficClass: number | null,
  reason: string,
): number {
  const flows = engine.suspensions.towards(job, peer, trafficClass)
  const node =
    peer === thisNode ? engine.options.node : (flows.find(({ lane }) => lane)?.lane?.peerNode ?? `peer ${peer}`)
  for (const flow of flows) loseFlow(engine, flow, node, reason)
  if (trafficClass === null || trafficClass === 0) engine.lostDatagramPaths.delete(pathKey(job, peer))
  if (trafficClass === null) engine.suspensions.forget(job, peer)
  return flows.length
}
