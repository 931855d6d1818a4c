/**
 * Why a request may not go now, and what ends the wait: order inside its flow, a fence, an atomic before a read, a receive at the peer.
 * Whoever removes the reason wakes the flow; only a peer's missing receive is also measured by time.
 */
import { opcode, workRequestFlag } from '../../protocol/opcodes.js'
import { queuePairState } from '../../protocol/queue-pair-segment.js'
import { type Status, status } from '../../protocol/statuses.js'
import type { Engine } from './engine.js'
import { finishSend, settleFlow } from './finish.js'
import type { Flow } from './flow.js'
import type { EngineQueuePair } from './queue-pair.js'
import { requestStage, type SendRequest } from './request.js'
import { mayHaveEffect } from './verdicts.js'

/** Endless retries wait for the peer's `ready`; this only covers a peer that forgot us. */
const FORGOTTEN_MS = 100

/** Whether the request at the head of a flow may start: `none`, why it must wait, or `refused` (it got its verdict). */
export function gate(engine: Engine, flow: Flow, request: SendRequest): Flow['blocked'] | 'refused' {
  if (flow.moving || flow.telling !== 'none' || (engine.handingOver && !request.exposed)) return 'order'
  // Its verdict came while it waited to go again.
  if (request.finished) {
    refuseHead(engine, flow, request, request.status)
    if (flow.connected && endsQueuePair(request)) endWithUnknown(engine, flow)
    return 'refused'
  }
  if (flow.connected && flow.queuePair.state === queuePairState.connecting) return 'order'
  if (request.refused === 0 && !request.exposed && !request.local.usable) request.refused = status.localProtectionError
  if (request.refused !== 0) {
    refuseHead(engine, flow, request, request.refused)
    return 'refused'
  }
  if ((request.flags & workRequestFlag.fence) !== 0 && !request.exposed && !fencePassed(flow, request)) return 'fence'
  const oneSided = request.opcode >= opcode.write
  if (oneSided && flow.announced + flow.unposted > 0) return 'order'
  if (request.opcode === opcode.read && flow.atomicsOutstanding > 0) return 'atomic'
  return 'none'
}

/** Nothing of a connected queue pair goes on behind a request of which nobody knows whether it was executed. */
export const endsQueuePair = (request: SendRequest): boolean => request.finished && request.status === status.unknown

export function endWithUnknown(engine: Engine, flow: Flow): void {
  const reason = 'the path was lost, and whether a write or an atomic was executed cannot be known'
  engine.failQueuePair(flow.queuePair, status.unknown, reason, false)
}

/** The request at the head of the waiting line gets its verdict without having gone. */
export function refuseHead(engine: Engine, flow: Flow, request: SendRequest, verdict: Status): void {
  flow.waiting.shift()
  flow.inFlight.push(request)
  if (request.finished) settleFlow(engine, flow)
  else finishSend(engine, request, mayHaveEffect(request) ? status.unknown : verdict)
}

/** All earlier requests of the queue pair, on all its flows, have their outcome; else the next completion looks again. */
function fencePassed(flow: Flow, request: SendRequest): boolean {
  if (flow.connected) return flow.inFlight.size === 0
  for (const other of flow.queuePair.flows.values()) {
    const first = other.inFlight.head ?? other.waiting.head
    if (!first || ((first.sequence - request.sequence) | 0) >= 0) continue
    flow.queuePair.fenced.add(flow)
    return false
  }
  return true
}

/** Something of the queue pair completed: fences on its other flows may have become passable. */
export function wakeFenced(engine: Engine, queuePair: EngineQueuePair): void {
  for (const flow of queuePair.fenced) engine.wakeFlow(flow)
  queuePair.fenced.clear()
}

/** A request waits for a receive at the peer; with a finite retry count its patience ends. */
export function park(engine: Engine, flow: Flow, request: SendRequest): void {
  const { queuePair } = flow
  if (queuePair.rnrRetry >= 7 || request.parkedSinceMs !== 0) return
  request.parkedSinceMs = engine.nowMs
  const { sequence } = request
  const patienceMs = Math.max(queuePair.rnrTimerMs, queuePair.rnrRetry * queuePair.rnrTimerMs)
  engine.timers.after(engine.nowMs, patienceMs, () => {
    if (request.sequence !== sequence || request.flow !== flow || flow.waiting.head !== request) return
    request.parkedSinceMs = 0
    // The receive came meanwhile; what is missing now is something of ours, such as room on the lane.
    if (peerHasReceive(flow)) return
    refuseHead(engine, flow, request, status.rnrRetryExceeded)
    if (flow.connected) {
      engine.failQueuePair(queuePair, status.rnrRetryExceeded, 'the peer posted no receive in time', false)
    } else engine.wakeFlow(flow)
  })
}

/** False: a message of the flow would have to wait for one. */
export function peerHasReceive(flow: Flow): boolean {
  if (flow.suspended) return true
  if (!flow.lane) return (flow.twin?.queuePair.receives.size ?? 0) > 0
  return !flow.connected || ((flow.receiveLimit - flow.messagesSent) | 0) > 0
}

/** Datagram: waits before what found no receive goes again; `ready` from the peer ends the wait early. */
export function postpone(engine: Engine, flow: Flow): void {
  const { queuePair } = flow
  if (queuePair.rnrRetry < 7 && flow.notReadyCount > queuePair.rnrRetry) {
    flow.notReadyCount = 0
    giveUpFirst(engine, flow)
  }
  const delayMs = queuePair.rnrRetry < 7 ? queuePair.rnrTimerMs : Math.max(FORGOTTEN_MS, queuePair.rnrTimerMs)
  flow.retryAtMs = engine.nowMs + delayMs
  retryLater(engine, flow, delayMs)
}

/** One timer a flow at a time; one that finds the wait prolonged goes on waiting. */
function retryLater(engine: Engine, flow: Flow, delayMs: number): void {
  if (flow.retryTimed) return
  flow.retryTimed = true
  engine.timers.after(engine.nowMs, delayMs, () => {
    flow.retryTimed = false
    if (flow.retryAtMs > engine.nowMs && !flow.dead) retryLater(engine, flow, flow.retryAtMs - engine.nowMs)
    else engine.wakeFlow(flow)
  })
}

/** The first request that found no receive has had its retries; those behind it go on. */
function giveUpFirst(engine: Engine, flow: Flow): void {
  for (let request = flow.inFlight.head; request; request = request.next) {
    if (request.stage !== requestStage.again) continue
    finishSend(engine, request, withoutReceive(request, status.rnrRetryExceeded))
    return
  }
  const leaving = flow.waiting.head
  if (leaving?.exposed) refuseHead(engine, flow, leaving, status.rnrRetryExceeded)
}

/** `verdict` promises that nothing happened; the data of a write with immediate is there although its notice is not. */
export function withoutReceive(request: SendRequest, verdict: Status): Status {
  return request.opcode === opcode.writeWithImmediate && request.exposed ? status.unknown : verdict
}

/** New receives: credit is news to the connected peer; flows that waited for one go on. */
export function receivesPosted(engine: Engine, queuePair: EngineQueuePair): void {
  wakeWaiting(engine, queuePair)
  const flow = queuePair.flow
  if (flow?.lane && queuePair.state === queuePairState.connected) {
    flow.lane.addNews(flow)
    engine.markBusy(flow.lane)
  }
  callParked(engine, queuePair)
}

/** Same-node flows that wait for a receive here look again: at a receive, or at the end of this queue pair. */
export function wakeWaiting(engine: Engine, queuePair: EngineQueuePair): void {
  for (const flow of queuePair.waitingForReceive) engine.wakeFlow(flow)
  queuePair.waitingForReceive.clear()
}

/** One `ready` for each receive that is free, in the order in which the senders were told to wait. */
function callParked(engine: Engine, queuePair: EngineQueuePair): void {
  let grants = queuePair.receives.size
  for (const flow of queuePair.parkedFlows) {
    if (grants === 0) return
    queuePair.parkedFlows.delete(flow)
    if (flow.dead || !flow.parked) continue
    flow.readyDue = true
    engine.addControl(flow)
    grants--
  }
}
