/**
 * Connecting and disconnecting queue pairs. Symmetric, as exchanging numbers is with verbs: both may connect at once, one may wait for the
 * other's connect, or a listener accepts by name. All of it rides on the lane, so data never precedes its accept and a disconnect never
 * overtakes data.
 *
 *   idle ──connect──► connecting ──accept, or the peer's own connect──► connected ──disconnect──► error/closed
 *
 * On this node the same handlers run with lane null; messages become calls from the engine's own queue.
 */
import { counterIndex } from '../../protocol/node-file.js'
import { queuePairHeader, queuePairState } from '../../protocol/queue-pair-segment.js'
import { type Status, status } from '../../protocol/statuses.js'
import {
  connectByService,
  connectExtension,
  messageType,
  rejectReason,
  rejectReasonNames,
} from '../../protocol/wire.js'
import type { RecordOf } from '../../shm/layout.js'
import { thisNode } from './commands.js'
import type { RouteNumbers } from './dispatch.js'
import type { Engine } from './engine.js'
import { settleFlow } from './finish.js'
import { Flow } from './flow.js'
import type { Lane } from './lane.js'
import { loseFlow } from './lane-loss.js'
import type { EngineQueuePair } from './queue-pair.js'
import { requestStage } from './request.js'

export type ConnectFields = Pick<
  ReturnType<typeof connectExtension.read>,
  'cookie' | 'reason' | 'receiveLimit' | 'service'
>
export type ConnectRecord = RecordOf<Record<string, never>> & ConnectFields

/** Reserved for service connects, whose peer number is not known yet. */
const UNKNOWN = connectByService

export interface PendingConnect {
  readonly queuePair: EngineQueuePair
  readonly cookie: number
  settle(failure: { code: string; message: string } | null, remote: { number: number; generation: number } | null): void
}

/** A connection request that waits for the listening application. */
export interface PendingAccept {
  readonly lane: Lane | null
  readonly peer: number
  readonly job: number
  readonly number: number
  readonly generation: number
  readonly cookie: number
  readonly receiveLimit: number
}

/** Starts connecting; `pending.settle` is called once, later. */
export function beginConnect(
  engine: Engine,
  queuePair: EngineQueuePair,
  lane: Lane | null,
  peer: number,
  remote: { number: number; generation: number } | { service: string },
  pending: PendingConnect,
): void {
  engine.counters[counterIndex.connects]!++
  const held = queuePair.held
  const reachable = held && (!held.from || held.from.state === 'up')
  if (
    reachable &&
    'number' in remote &&
    held.peer === peer &&
    held.number === remote.number &&
    held.generation === remote.generation
  ) {
    queuePair.held = null
    const flow = establish(engine, queuePair, held.from, peer, held.number, held.generation, held.receiveLimit)
    flow.cookie = held.cookie
    pending.settle(null, remote)
    tellAccept(engine, flow)
    return
  }
  const byService = 'service' in remote
  const flow = new Flow(
    queuePair,
    peer,
    byService ? UNKNOWN : remote.number,
    byService ? 0 : remote.generation,
    lane,
    true,
  )
  flow.cookie = pending.cookie
  flow.service = byService ? remote.service : ''
  queuePair.flow = flow
  queuePair.setState(queuePairState.connecting)
  engine.connects.set(queuePair, pending)
  if (lane) {
    lane.flows.add(flow)
    flow.connectDue = true
    engine.addControl(flow)
    return
  }
  const numbers = {
    destinationNumber: flow.remoteNumber,
    destinationGeneration: flow.remoteGeneration,
    sourceNumber: queuePair.number,
    sourceGeneration: queuePair.generation,
  }
  const fields = { cookie: flow.cookie, reason: 0, receiveLimit: flow.limit, service: flow.service }
  engine.later(() => takeConnect(engine, null, numbers, fields, queuePair.job))
}

/** Gives up: the queue pair is idle again, a late accept will be answered by a disconnect. */
export function abandonConnect(engine: Engine, queuePair: EngineQueuePair, code: string, message: string): void {
  const pending = engine.connects.get(queuePair)
  if (!pending) return
  engine.connects.delete(queuePair)
  const flow = queuePair.flow
  if (flow) {
    engine.flushWaiting(flow)
    if (code !== 'connection-rejected') cancelConnect(engine, flow)
    engine.dropFlow(flow)
  }
  queuePair.flow = null
  if (queuePair.state === queuePairState.connecting) queuePair.setState(queuePairState.idle)
  pending.settle({ code, message }, null)
}

/** The peer may hold our connect until its application connects back: it forgets it. Offers to a listener are refused when they accept. */
function cancelConnect(engine: Engine, flow: Flow): void {
  if (flow.remoteNumber === UNKNOWN || flow.connectDue) return
  const numbers = {
    sourceNumber: flow.remoteNumber,
    sourceGeneration: flow.remoteGeneration,
    destinationNumber: flow.queuePair.number,
    destinationGeneration: flow.queuePair.generation,
  }
  sendReject(engine, flow.lane, numbers, flow.cookie, rejectReason.timeout)
}

/** The peer whose connect waits here need not wait any longer. */
export function rejectHeld(engine: Engine, queuePair: EngineQueuePair): void {
  const { held } = queuePair
  if (!held) return
  queuePair.held = null
  const numbers = {
    sourceNumber: held.number,
    sourceGeneration: held.generation,
    destinationNumber: queuePair.number,
    destinationGeneration: queuePair.generation,
  }
  sendReject(engine, held.from, numbers, held.cookie, rejectReason.refused)
}

/** Both ends agree: the flow carries data from here on. */
function establish(
  engine: Engine,
  queuePair: EngineQueuePair,
  lane: Lane | null,
  peer: number,
  number: number,
  generation: number,
  receiveLimit: number,
): Flow {
  const old = queuePair.flow
  const flow = new Flow(queuePair, peer, number, generation, lane, true)
  flow.receiveLimit = receiveLimit | 0
  if (old?.waiting.head) flow.beginOutbound(old.waiting.head.sequence)
  if (old) {
    // What was posted while connecting goes on, in order.
    for (let request = old.waiting.shift(); request; request = old.waiting.shift()) {
      request.flow = flow
      flow.waiting.push(request)
    }
    engine.dropFlow(old)
  }
  queuePair.flow = flow
  lane?.flows.add(flow)
  if (!lane) pairTwins(engine, flow)
  queuePair.setState(queuePairState.connected)
  queuePairHeader.write(queuePair.memory, 0, { peerNode: peer, peerNumber: number, peerGeneration: generation })
  queuePair.describe?.(flow)
  // Receives posted before this moment are news to the peer.
  if (lane && flow.limit !== flow.advertisedLimit) lane.addNews(flow)
  engine.wakeFlow(flow)
  return flow
}

/** Same node: each end finds the other when both are established. */
function pairTwins(engine: Engine, flow: Flow): void {
  const other = engine.queuePairs[flow.remoteNumber]
  if (!other || other.generation !== flow.remoteGeneration) return
  const twin = other === flow.queuePair ? flow : other.flow
  if (!twin || twin.remoteNumber !== flow.queuePair.number) return
  flow.twin = twin
  twin.twin = flow
  engine.wakeFlow(twin)
}

/** The peer's resume names our connect: it had accepted. */
export function acceptByResume(engine: Engine, lane: Lane, queuePair: EngineQueuePair, receiveLimit: number): Flow {
  const { peer, remoteNumber: number, remoteGeneration: generation } = queuePair.flow!
  const flow = establish(engine, queuePair, lane, peer, number, generation, receiveLimit)
  settled(engine, queuePair, number, generation)
  return flow
}

function settled(engine: Engine, queuePair: EngineQueuePair, number: number, generation: number): void {
  const pending = engine.connects.get(queuePair)
  engine.connects.delete(queuePair)
  pending?.settle(null, { number, generation })
}

function tellAccept(engine: Engine, flow: Flow): void {
  engine.counters[counterIndex.accepts]!++
  if (flow.lane) {
    flow.acceptDue = true
    engine.addControl(flow)
    return
  }
  const { queuePair } = flow
  const numbers = {
    destinationNumber: flow.remoteNumber,
    destinationGeneration: flow.remoteGeneration,
    sourceNumber: queuePair.number,
    sourceGeneration: queuePair.generation,
  }
  const fields = { cookie: flow.cookie, reason: 0, receiveLimit: flow.limit, service: '' }
  engine.later(() => takeAccept(engine, null, numbers, fields))
}

export function takeConnect(
  engine: Engine,
  lane: Lane | null,
  from: RouteNumbers,
  fields: ConnectFields,
  job = lane?.job ?? -1,
): void {
  const peer = lane?.peer ?? thisNode
  if (from.destinationNumber === UNKNOWN) {
    engine.offer(
      {
        lane,
        peer,
        job,
        number: from.sourceNumber,
        generation: from.sourceGeneration,
        cookie: fields.cookie,
        receiveLimit: fields.receiveLimit,
      },
      fields.service,
    )
    return
  }
  const queuePair = engine.queuePairs[from.destinationNumber]
  const reason = refuseConnect(queuePair, from, peer, job)
  if (reason !== rejectReason.none || !queuePair) {
    sendReject(engine, lane, from, fields.cookie, reason)
    return
  }
  const { sourceNumber: number, sourceGeneration: generation } = from
  if (queuePair.state === queuePairState.connecting) {
    // Both connect at once. Both compute the same lane: that of the node whose name sorts first.
    const mine = queuePair.flow!.lane
    const winner = lane && mine && engine.options.node < lane.peerNode ? mine : lane
    const flow = establish(engine, queuePair, winner, peer, number, generation, fields.receiveLimit)
    flow.cookie = fields.cookie
    settled(engine, queuePair, number, generation)
    tellAccept(engine, flow)
    return
  }
  if (queuePair.state === queuePairState.connected) return
  queuePair.held = { from: lane, peer, number, generation, cookie: fields.cookie, receiveLimit: fields.receiveLimit }
}

/** Whether this queue pair cannot take that connect; connected to the very same peer already is fine. */
function refuseConnect(queuePair: EngineQueuePair | undefined, from: RouteNumbers, peer: number, job: number): number {
  if (!queuePair || queuePair.job !== job) return rejectReason.noSuchQueuePair
  if (queuePair.generation !== from.destinationGeneration) return rejectReason.stale
  if (!queuePair.connected) return rejectReason.wrongType
  if (queuePair.ending) return rejectReason.refused
  const flow = queuePair.flow
  const same =
    flow &&
    flow.peer === peer &&
    flow.remoteNumber === from.sourceNumber &&
    flow.remoteGeneration === from.sourceGeneration
  if (flow && !same) return rejectReason.busy
  const held = queuePair.held
  return held && (held.peer !== peer || held.number !== from.sourceNumber || held.generation !== from.sourceGeneration)
    ? rejectReason.busy
    : rejectReason.none
}

export function sendReject(engine: Engine, lane: Lane | null, to: RouteNumbers, cookie: number, reason: number): void {
  engine.counters[counterIndex.rejects]!++
  const job = engine.queuePairs[to.sourceNumber]?.job
  const numbers = {
    destinationNumber: to.sourceNumber,
    destinationGeneration: to.sourceGeneration,
    sourceNumber: to.destinationNumber,
    sourceGeneration: to.destinationGeneration,
  }
  const fields = { cookie, reason, receiveLimit: 0, service: '' }
  if (!lane) {
    engine.later(() => takeReject(engine, null, numbers, fields, job))
    return
  }
  if (lane.state !== 'up') return
  engine.addLoose(lane, {
    type: messageType.reject,
    payloadByteLength: connectExtension.byteLength,
    sequence: 0,
    immediate: 0,
    ...numbers,
    write: (memory, offset) => connectExtension.write(memory, offset, { ...fields, flags: 0 }),
  })
}

/** The peer takes no connect of ours, or takes back one of its own that waits here. */
export function takeReject(
  engine: Engine,
  lane: Lane | null,
  from: RouteNumbers,
  fields: ConnectFields,
  job = lane?.job ?? -1,
): void {
  const peer = lane?.peer ?? thisNode
  const queuePair = engine.queuePairs[from.destinationNumber]
  if (!queuePair || queuePair.generation !== from.destinationGeneration) return
  if (queuePair.job !== job) return
  const { held } = queuePair
  if (held?.peer === peer && held.number === from.sourceNumber && held.cookie === fields.cookie) queuePair.held = null
  const pending = engine.connects.get(queuePair)
  if (!pending || pending.cookie !== fields.cookie || queuePair.flow?.peer !== peer) return
  const reason = rejectReasonNames[fields.reason] ?? 'refused'
  abandonConnect(engine, queuePair, 'connection-rejected', `the peer rejected the connection: ${reason}`)
}

export function takeAccept(engine: Engine, lane: Lane | null, from: RouteNumbers, fields: ConnectFields): void {
  const queuePair = engine.queuePairs[from.destinationNumber]
  // A lane speaks only of queue pairs of its job, and of connects to its peer.
  const known = queuePair?.generation === from.destinationGeneration && (!lane || queuePair.job === lane.job)
  const alive = known && (!queuePair.flow || queuePair.flow.peer === (lane?.peer ?? thisNode)) ? queuePair : null
  const flow = alive?.flow ?? null
  if (!alive || !flow || (alive.state !== queuePairState.connecting && alive.state !== queuePairState.connected)) {
    tooLate(engine, lane, from)
    return
  }
  const same = flow.remoteNumber === from.sourceNumber && flow.remoteGeneration === from.sourceGeneration
  if (alive.state === queuePairState.connected) {
    if (same && flow.lane === lane) {
      const limit = fields.receiveLimit | 0
      if (((limit - flow.receiveLimit) | 0) > 0) flow.receiveLimit = limit
      engine.wakeFlow(flow)
    } else if (!same) tooLate(engine, lane, from)
    return
  }
  // By number it does not matter which attempt was accepted; by name another service may have been asked for meanwhile.
  if (!same && (flow.remoteNumber !== UNKNOWN || flow.cookie !== fields.cookie)) {
    tooLate(engine, lane, from)
    return
  }
  establish(engine, alive, lane, flow.peer, from.sourceNumber, from.sourceGeneration, fields.receiveLimit)
  settled(engine, alive, from.sourceNumber, from.sourceGeneration)
}

/** Nobody connects any more: the acceptor must learn it. */
function tooLate(engine: Engine, lane: Lane | null, from: RouteNumbers): void {
  if (lane) {
    engine.answerStale(lane, from, 0, true)
    return
  }
  const acceptor = engine.queuePairs[from.sourceNumber]
  if (acceptor?.generation !== from.sourceGeneration) return
  engine.failQueuePair(acceptor, status.remoteAborted, 'the peer gave up connecting', true)
}

/** The listening application accepted with this queue pair. */
export function acceptPending(engine: Engine, queuePair: EngineQueuePair, accept: PendingAccept): void {
  const flow = establish(
    engine,
    queuePair,
    accept.lane,
    accept.peer,
    accept.number,
    accept.generation,
    accept.receiveLimit,
  )
  flow.cookie = accept.cookie
  tellAccept(engine, flow)
}

/** The peer goes down (orderly or dead): nothing new is sent to it; it is told when everything already posted has left. */
export function takeDisconnect(engine: Engine, flow: Flow, reason: Status): void {
  if (flow.disconnectReceived) return
  flow.disconnectReceived = true
  const { queuePair } = flow
  // Announced sends without a grant never moved and never will.
  for (let request = flow.inFlight.head; request; request = request.next) {
    if (request.stage !== requestStage.announced) continue
    flow.announced--
    request.stage = requestStage.finished
    request.status = status.flushed
  }
  settleFlow(engine, flow)
  engine.failQueuePair(queuePair, reason === 0 ? status.flushed : reason, 'the peer disconnected', true)
  engine.closures.add(queuePair)
}

export function takeDisconnected(engine: Engine, flow: Flow): void {
  flow.disconnectedReceived = true
  if (flow.suspended) {
    loseFlow(engine, flow, flow.lane?.peerNode ?? '', 'its end of the connection is gone')
    return
  }
  if (!flow.disconnectSent) {
    // Not an answer to a disconnect: the peer gave up connecting before our accept came, and knows nothing of this connection.
    flow.disconnectReceived = true
    flow.disconnectedSent = true
    engine.failQueuePair(flow.queuePair, status.remoteAborted, 'the peer gave up connecting', true)
  }
  engine.closures.add(flow.queuePair)
}
