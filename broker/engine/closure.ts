/**
 * Ends of queue pairs: failure and removal. Every posted request gets exactly one true verdict:
 *
 *   waiting                     flushed (nothing of it was sent)
 *   announced, never granted    flushed (nothing of it moved)
 *   under way                   its real outcome; the lane works, so it comes
 *   receives not matched        flushed
 *
 * Both ends of a connected queue pair go down together: `disconnect` after everything posted has its outcome; the peer flushes what
 * waits, lets what is under way leave, answers `disconnected`. After that no message of the old pair can arrive.
 */
import { queuePairState } from '../../protocol/queue-pair-segment.js'
import { type Status, status } from '../../protocol/statuses.js'
import { abandonConnect, rejectHeld } from './connection.js'
import { hasControl } from './control.js'
import { drainReceives, drainSends, flushReceives } from './drain.js'
import type { Engine } from './engine.js'
import { completeSend, publishInbound, settleFlow } from './finish.js'
import type { Flow } from './flow.js'
import { loseFlow } from './lane-loss.js'
import type { EngineQueuePair } from './queue-pair.js'
import { receiveStage, requestStage } from './request.js'
import { mayHaveEffect } from './verdicts.js'
import { wakeWaiting, withoutReceive } from './waiting.js'

/** What waits gets `flushed`, told after what is under way. A message whose first segments have left goes on. */
export function flushWaiting(engine: Engine, flow: Flow): void {
  const first = flow.waiting.head
  const leaving = first && first.moved > 0 ? flow.waiting.shift() : null
  for (let request = flow.waiting.shift(); request; request = flow.waiting.shift()) {
    if (!request.finished) request.status = mayHaveEffect(request) ? status.unknown : status.flushed
    request.stage = requestStage.finished
    if (leaving || flow.inFlight.size > 0) flow.flushed.push(request)
    else completeSend(engine, request)
  }
  if (leaving) flow.waiting.push(leaving)
  for (let request = flow.inFlight.head; request; request = request.next) {
    // Dropped by the peer for lack of a receive.
    if (request.stage !== requestStage.again) continue
    request.stage = requestStage.finished
    request.status = withoutReceive(request, status.flushed)
  }
  flow.resending = false
  settleFlow(engine, flow)
}

/** What is suspended cannot be asked about any more: the other end hears of the end when it asks. */
function endFlows(engine: Engine, queuePair: EngineQueuePair): void {
  for (const flow of [...queuePair.everyFlow()]) {
    if (flow.suspended) loseFlow(engine, flow, flow.lane?.peerNode ?? 'of the peer', 'the queue pair ends')
    else flushWaiting(engine, flow)
    // What could not be received and was not told in its turn is told now.
    engine.addControl(flow)
  }
}

/** The queue pair stops: error for its holders, its peer is told. Repeating it changes nothing. */
export function beginFailure(
  engine: Engine,
  queuePair: EngineQueuePair,
  verdict: Status,
  reason: string,
  byPeer: boolean,
): void {
  if (queuePair.state === queuePairState.error || engine.queuePairs[queuePair.number] !== queuePair) return
  abandonConnect(engine, queuePair, 'closed', `queue pair ${queuePair.number} failed while connecting: ${reason}`)
  queuePair.setState(queuePairState.error, verdict)
  endFlows(engine, queuePair)
  flushReceives(engine, queuePair)
  turnAway(engine, queuePair)
  const body = { number: queuePair.number, generation: queuePair.generation, job: queuePair.job, reason }
  if (byPeer) engine.ports.emit('queue-pair-disconnected', body)
  else engine.ports.emit('queue-pair-error', { ...body, status: verdict })
  engine.closures.add(queuePair)
}

/** Starts the removal; `done` when nothing in flight, here or at the peer, names it any more. */
export function beginRemoval(engine: Engine, queuePair: EngineQueuePair, discard: boolean, done: () => void): void {
  // Everything its clients committed is taken now, whatever the budget: no new reference can count as posted afterwards.
  for (let visit = 0; visit < 64 && drainSends(engine, queuePair, 4096); visit++);
  for (let visit = 0; visit < 64 && drainReceives(engine, queuePair, 4096); visit++);
  queuePair.closing = true
  queuePair.discard = discard
  queuePair.onClosed = done
  if (queuePair.state !== queuePairState.error) queuePair.setState(queuePairState.draining)
  endFlows(engine, queuePair)
  turnAway(engine, queuePair)
  engine.closures.add(queuePair)
}

/** Whoever waits for this queue pair learns that it goes down: a peer that wants to connect, same-node senders that want a receive. */
function turnAway(engine: Engine, queuePair: EngineQueuePair): void {
  rejectHeld(engine, queuePair)
  wakeWaiting(engine, queuePair)
}

/** Moves an ending queue pair on; returns 1 when something changed. */
export function advanceClosure(engine: Engine, queuePair: EngineQueuePair): number {
  if (engine.queuePairs[queuePair.number] !== queuePair) return 0
  if (!queuePair.ending) return 0
  let ended = true
  for (const flow of queuePair.everyFlow()) if (!advanceFlowEnd(engine, flow)) ended = false
  if (!ended || !queuePair.closing) return 0
  flushReceives(engine, queuePair)
  if (queuePair.discard) {
    queuePair.sendQueue.abandon(queuePair)
    queuePair.receiveQueue.abandon(queuePair)
  }
  if (queuePair.unpublished > 0) return 0
  const done = queuePair.onClosed
  queuePair.onClosed = null
  done?.()
  return 1
}

/** True when nothing of this flow is left, here or on the way. */
function advanceFlowEnd(engine: Engine, flow: Flow): boolean {
  const quiet = flow.waiting.size === 0 && flow.inFlight.size === 0 && !flow.moving
  if (!flow.lane || flow.dead) {
    // A copy into a receive of ours that is under way ends first.
    if (!quiet || flow.twin?.localReceive) return false
    if (flow.connected && flow.twin) disconnectTwin(engine, flow)
    failInbound(engine, flow)
    return true
  }
  // The peer went first: it waits for our answer, due when everything posted has left (its acknowledgements come meanwhile).
  if (flow.disconnectReceived && !flow.disconnectedSent && !flow.disconnectedDue && !busyPosting(flow)) {
    flow.disconnectedDue = true
    engine.addControl(flow)
  }
  if (!quiet) return false
  if (!flow.connected) return flow.inbound.size === 0 && !flow.inAcknowledgementList && !hasControl(flow)
  if (!flow.disconnectReceived && !flow.disconnectSent && !flow.disconnectDue) {
    flow.disconnectDue = true
    engine.addControl(flow)
  }
  const answered = flow.disconnectReceived ? flow.disconnectedSent : flow.disconnectSent && flow.disconnectedReceived
  if (!answered) return false
  failInbound(engine, flow)
  // The last acknowledgements must leave before the flow is forgotten.
  return !flow.inAcknowledgementList && flow.failedSequences.length === 0 && flow.atomicResultsDue.length === 0
}

function busyPosting(flow: Flow): boolean {
  return flow.waiting.size > 0 || flow.moving !== null || flow.unposted > 0
}

/** Nothing more will arrive: what was matched and not completed never will be. */
function failInbound(engine: Engine, flow: Flow): void {
  for (let receive = flow.inbound.head; receive; receive = receive.next) {
    if (receive.stage === receiveStage.finished) continue
    receive.stage = receiveStage.finished
    receive.status = status.flushed
    receive.granted = false
  }
  flow.assembling = null
  flow.grantsDue.length = 0
  if (flow.inbound.head) publishInbound(engine, flow)
}

/** Same node: the other end goes down in the same way. */
function disconnectTwin(engine: Engine, flow: Flow): void {
  const twin = flow.twin
  if (!twin || twin === flow) return
  flow.twin = null
  twin.twin = null
  const other = twin.queuePair
  const reason = flow.queuePair.errorStatus === 0 ? status.flushed : flow.queuePair.errorStatus
  engine.later(() => engine.failQueuePair(other, reason, 'the peer disconnected', true))
}
