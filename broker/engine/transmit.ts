/**
 * Sending on a lane: control first, then small messages packed into frames in round robin over flows, then bulk chunks as far as the
 * window allows. Whatever finds no room stays where it is and goes in a later turn; nothing here waits.
 *
 * Order inside a flow: requests start in posting order. Large sends are announced and go on when their grant arrives; sends may pass them
 * (receives are matched in order at the peer), one-sided requests may not. While a write is being posted, everything behind it waits.
 */

import { limits } from '../../protocol/limits.js'
import { counterIndex } from '../../protocol/node-file.js'
import { opcode, workRequestFlag } from '../../protocol/opcodes.js'
import { status } from '../../protocol/statuses.js'
import { atomicExtension, lengthExtension, messageFlag, messageType, regionRight } from '../../protocol/wire.js'
import { sendOpcode } from '../provider/provider.js'
import type { Engine } from './engine.js'
import { finishSend, isTwoSided, markPosted } from './finish.js'
import type { Flow } from './flow.js'
import { gather } from './gather.js'
import { creditTier, type Lane } from './lane.js'
import { askForRegion, useRemoteRegion } from './remote-keys.js'
import { requestStage, type SendRequest } from './request.js'
import { writeRoute } from './route.js'
import { startRun } from './run.js'
import { gate, park, refuseHead } from './waiting.js'

/** Messages one flow may send before the next has its turn, and all flows of a lane together in one turn. */
const FLOW_QUANTUM = 32
const TURN_BUDGET = 512
/** A send of up to this many frames is sent eagerly, segment by segment. */
const EAGER_FRAMES = 4

const outcome = { idle: 0, more: 1, blocked: 2, noFrame: 3 } as const
type Outcome = (typeof outcome)[keyof typeof outcome]

const COUNTER = {
  sends: counterIndex['sends-posted'],
  writes: counterIndex['writes-posted'],
  reads: counterIndex['reads-posted'],
  atomics: counterIndex['atomics-posted'],
  segments: counterIndex['eager-segments'],
  messages: counterIndex['messages-sent'],
  bytes: counterIndex['bytes-sent'],
  creditStalls: counterIndex['lane-credit-stalls'],
  queuePairStalls: counterIndex['queue-pair-credit-stalls'],
} as const

/** Sends what flows of this lane have; returns how many messages went. */
export function sendFlows(engine: Engine, lane: Lane): number {
  let sent = 0
  while (sent < TURN_BUDGET) {
    const flow = lane.takeScheduled()
    if (!flow) break
    const before = engine.messagesStarted
    const result = advanceFlow(engine, lane, flow)
    sent += engine.messagesStarted - before
    if (result === outcome.more) lane.schedule(flow)
    if (result !== outcome.noFrame) continue
    lane.schedule(flow)
    if (!engine.flushLane(lane)) {
      engine.counters[COUNTER.creditStalls]!++
      break
    }
  }
  return sent
}

function advanceFlow(engine: Engine, lane: Lane, flow: Flow): Outcome {
  flow.blocked = 'none'
  if (flow.resending) {
    const result = sendAgain(engine, lane, flow)
    if (result !== outcome.idle) return result
  }
  for (let count = startRun(engine, lane, flow, FLOW_QUANTUM); count < FLOW_QUANTUM; count++) {
    const request = flow.waiting.head
    if (!request) return outcome.idle
    const refusal = gate(engine, flow, request)
    if (refusal === 'refused') continue
    if (refusal !== 'none') {
      flow.blocked = refusal
      return outcome.blocked
    }
    const result = start(engine, lane, flow, request)
    if (result !== outcome.more) return result
    engine.messagesStarted++
  }
  return outcome.more
}

function start(engine: Engine, lane: Lane, flow: Flow, request: SendRequest): Outcome {
  switch (request.opcode) {
    case opcode.send:
    case opcode.sendWithImmediate:
      return startSend(engine, lane, flow, request)
    case opcode.write:
    case opcode.writeWithImmediate:
      return startWrite(engine, lane, flow, request)
    case opcode.read:
      return startRead(engine, lane, flow, request)
    default:
      return startAtomic(engine, lane, flow, request)
  }
}

/** True if the peer has a receive for one more message; else the flow waits, and the request's patience is measured. */
function receiverReady(engine: Engine, flow: Flow, request: SendRequest): boolean {
  if (!flow.connected || ((flow.receiveLimit - flow.messagesSent) | 0) > 0) return true
  flow.blocked = 'credit'
  engine.counters[COUNTER.queuePairStalls]!++
  park(engine, flow, request)
  return false
}

function startSend(engine: Engine, lane: Lane, flow: Flow, request: SendRequest): Outcome {
  if (request.moved === 0 && !receiverReady(engine, flow, request)) return outcome.blocked
  if (isLarge(lane, request)) return announce(engine, lane, flow, request)
  if (!sendSegments(engine, lane, flow, request)) return outcome.noFrame
  launch(flow, request, requestStage.sent)
  engine.counters[COUNTER.sends]!++
  return outcome.more
}

/** Inline payload lies in a slot that no device knows, so it always goes in frames. */
function isLarge(lane: Lane, request: SendRequest): boolean {
  return request.inlineByteLength === 0 && request.byteLength > EAGER_FRAMES * lane.payloadCapacity
}

/** Leaves the waiting line: from here on the request is in flight. */
function launch(flow: Flow, request: SendRequest, stage: number): void {
  if (request.stage === requestStage.waiting) {
    flow.waiting.shift()
    flow.inFlight.push(request)
    if (isTwoSided(request.opcode)) {
      flow.messagesSent = (flow.messagesSent + 1) | 0
      flow.highestSent = request.sequence
    }
  }
  request.stage = stage
}

/** Puts the payload into frames; false when frames ran out (what went is remembered in `moved`). */
function sendSegments(engine: Engine, lane: Lane, flow: Flow, request: SendRequest): boolean {
  const capacity = lane.payloadCapacity
  do {
    const left = request.byteLength - request.moved
    const part = Math.min(left, capacity)
    const offset = lane.beginMessage(part, creditTier.data)
    if (offset < 0) return false
    markPosted(engine, request, lane.shared, lane.lastSequence)
    const first = request.moved === 0 ? resumeFlag(flow) : 0
    const flags = sendFlags(request) | first | (part < left ? messageFlag.more : 0)
    writeRoute(lane, offset, messageType.eager, flags, part, flow, request.sequence, request.immediate, request.moved)
    if (part > 0) gather(request, part, lane.memory, lane.payloadOffset(offset))
    request.moved += part
    engine.counters[COUNTER.segments]!++
  } while (request.moved < request.byteLength)
  engine.counters[COUNTER.messages]!++
  engine.counters[COUNTER.bytes]! += request.byteLength
  return true
}

/** Marks the first message after the peer said "no receive": until it comes, the peer drops what was on the way. Call when it goes. */
function resumeFlag(flow: Flow): number {
  if (!flow.resumeDue) return 0
  flow.resumeDue = false
  return messageFlag.replay
}

function sendFlags(request: SendRequest): number {
  const carries = request.opcode === opcode.sendWithImmediate || request.opcode === opcode.writeWithImmediate
  const immediate = carries ? messageFlag.hasImmediate : 0
  return immediate | ((request.flags & workRequestFlag.solicited) !== 0 ? messageFlag.solicited : 0)
}

/** Large message: asks the peer for the receive's buffer; the grant starts the transfer (bulk.ts). */
function announce(engine: Engine, lane: Lane, flow: Flow, request: SendRequest): Outcome {
  if (!sendLength(engine, lane, request, messageType.request)) return outcome.noFrame
  launch(flow, request, requestStage.announced)
  flow.announced++
  engine.counters[COUNTER.sends]!++
  engine.counters[COUNTER.messages]!++
  engine.counters[COUNTER.bytes]! += request.byteLength
  return outcome.more
}

/** A message that tells only the request's length; false: no frame. */
function sendLength(engine: Engine, lane: Lane, request: SendRequest, type: number): boolean {
  const offset = lane.beginMessage(lengthExtension.byteLength, creditTier.data)
  if (offset < 0) return false
  markPosted(engine, request, lane.shared, lane.lastSequence)
  const flow = request.flow!
  const { byteLength } = lengthExtension
  const flags = sendFlags(request) | (type === messageType.placed ? 0 : resumeFlag(flow))
  writeRoute(lane, offset, type, flags, byteLength, flow, request.sequence, request.immediate, 0)
  lane.memory.f64[lane.payloadOffset(offset) >>> 3] = request.byteLength
  return true
}

function startWrite(engine: Engine, lane: Lane, flow: Flow, request: SendRequest): Outcome {
  const withImmediate = request.opcode === opcode.writeWithImmediate
  if (withImmediate && !receiverReady(engine, flow, request)) return outcome.blocked
  if (!resolved(engine, lane, flow, request, regionRight.remoteWrite))
    return request.stage === requestStage.finished ? outcome.more : outcome.blocked
  engine.counters[COUNTER.writes]!++
  engine.counters[COUNTER.messages]!++
  engine.counters[COUNTER.bytes]! += request.byteLength
  if (request.byteLength === 0 && !withImmediate) {
    launch(flow, request, requestStage.sent)
    finishSend(engine, request, status.success)
    return outcome.more
  }
  beginBulk(engine, lane, flow, request)
  return outcome.more
}

function startRead(engine: Engine, lane: Lane, flow: Flow, request: SendRequest): Outcome {
  if (!resolved(engine, lane, flow, request, regionRight.remoteRead))
    return request.stage === requestStage.finished ? outcome.more : outcome.blocked
  engine.counters[COUNTER.reads]!++
  if (request.byteLength === 0) {
    launch(flow, request, requestStage.sent)
    finishSend(engine, request, status.success)
    return outcome.more
  }
  beginBulk(engine, lane, flow, request)
  return outcome.more
}

function beginBulk(engine: Engine, lane: Lane, flow: Flow, request: SendRequest): void {
  markPosted(engine, request, lane.shared, lane.lastSequence)
  launch(flow, request, requestStage.moving)
  if (request.remote) request.remote.uses++
  if (request.byteLength === 0) request.noticeDue = true
  flow.moving = request
  lane.bulk.push(request)
}

/** Looks the remote key up; false when the answer is still out (blocked) or the request was refused (finished). */
function resolved(engine: Engine, lane: Lane, flow: Flow, request: SendRequest, right: number): boolean {
  if (request.byteLength === 0) return true
  const answer = useRemoteRegion(lane.group, request, right)
  if (answer === 'ready') return true
  if (answer === 'refused') {
    engine.counters[counterIndex['containment-refusals']]!++
    refuseHead(engine, flow, request, status.remoteAccessError)
    return false
  }
  askForRegion(engine, lane, request.remoteKey)
  flow.blocked = 'key'
  lane.group.keyWaiters.add(flow)
  return false
}

function startAtomic(engine: Engine, lane: Lane, flow: Flow, request: SendRequest): Outcome {
  const oldest = flow.atomicSequences[0] ?? request.sequence
  const forgotten = ((request.sequence - oldest) | 0) >= limits.atomicWindow
  // The peer remembers outcomes by sequence: this one must not take the place of one that may be asked for again.
  if (flow.atomicsOutstanding >= lane.parameters.atomicWindow || forgotten) {
    flow.blocked = 'atomic'
    return outcome.blocked
  }
  const offset = lane.beginMessage(atomicExtension.byteLength, creditTier.data)
  if (offset < 0) return outcome.noFrame
  markPosted(engine, request, lane.shared, lane.lastSequence)
  writeRoute(lane, offset, messageType.atomic, 0, atomicExtension.byteLength, flow, request.sequence, 0, 0)
  atomicExtension.write(lane.memory, lane.payloadOffset(offset), {
    operation: request.opcode,
    key: request.remoteKey,
    offset: request.remoteOffset,
    compare: request.compare,
    swap: request.swap,
  })
  launch(flow, request, requestStage.sent)
  flow.atomicsOutstanding++
  flow.atomicSequences.push(request.sequence)
  engine.counters[COUNTER.atomics]!++
  engine.counters[COUNTER.messages]!++
  return outcome.more
}

/** Datagram: what the peer had no receive for goes again, in its old place and order. */
function sendAgain(engine: Engine, lane: Lane, flow: Flow): Outcome {
  if (engine.nowMs < flow.retryAtMs) {
    flow.blocked = 'ready'
    return outcome.blocked
  }
  for (let request = flow.inFlight.head; request; request = request.next) {
    if (request.stage !== requestStage.again) continue
    if (request.opcode === opcode.writeWithImmediate) {
      if (!sendNotice(engine, lane, request)) return outcome.noFrame
      request.stage = requestStage.sent
    } else if (isLarge(lane, request)) {
      if (!sendLength(engine, lane, request, messageType.request)) return outcome.noFrame
      request.stage = requestStage.announced
      flow.announced++
    } else {
      if (!sendSegments(engine, lane, flow, request)) return outcome.noFrame
      request.stage = requestStage.sent
    }
    engine.messagesStarted++
  }
  flow.resending = false
  return outcome.idle
}

/** The notice behind the last chunk of a granted write or a write with immediate; false: no room yet. */
export function sendNotice(engine: Engine, lane: Lane, request: SendRequest): boolean {
  if (request.opcode === opcode.writeWithImmediate) {
    return sendLength(engine, lane, request, messageType.immediate)
  }
  if (!sendLength(engine, lane, request, messageType.placed)) return false
  engine.counters[counterIndex['granted-writes']]!++
  return true
}

/** Provider opcode of a bulk request's chunks. */
export const chunkOpcode = (request: SendRequest): number =>
  request.opcode === opcode.read ? sendOpcode.read : sendOpcode.write
