/**
 * Same-node traffic: both queue pairs are served by this engine, so a message is one copy from the sender's region to the receiver's, with
 * the same checks, order, credits and verdicts as over a lane. Large transfers are copied chunk by chunk so that others have their turn.
 */
import { counterIndex } from '../../protocol/node-file.js'
import { opcode, workRequestFlag } from '../../protocol/opcodes.js'
import { status } from '../../protocol/statuses.js'
import { copyInOrder } from '../../shm/copy.js'
import { executeAtomic, settleAtomic } from './atomics.js'
import { thisNode } from './commands.js'
import { bindReceive, settleReceive } from './deliver.js'
import type { Engine } from './engine.js'
import { finishSend, isTwoSided, markPosted, settleFlow } from './finish.js'
import type { Flow } from './flow.js'
import { scatter } from './gather.js'
import { checkRemote, copyRun } from './local-run.js'
import { datagramFlow } from './paths.js'
import type { Region } from './region.js'
import { type ReceiveRequest, requestStage, type SendRequest } from './request.js'
import { gate, park, refuseHead } from './waiting.js'

const CHUNK_BYTES = 1 << 20
const QUANTUM = 64
const LOCAL_MESSAGES = counterIndex['local-messages']
const LOCAL_BYTES = counterIndex['local-bytes']

/** Moves a flow on; true if it has more to do now. */
export function pumpLocal(engine: Engine, flow: Flow): boolean {
  flow.blocked = 'none'
  if (flow.moving) {
    if (!moveOn(engine, flow, flow.moving)) return true
  }
  let copied = 0
  for (let count = copyRun(engine, flow, QUANTUM); count < QUANTUM && copied < CHUNK_BYTES; count++) {
    const request = flow.waiting.head
    if (!request) return false
    copied += request.byteLength
    const refusal = gate(engine, flow, request)
    if (refusal === 'refused') continue
    if (refusal !== 'none') {
      flow.blocked = refusal
      return false
    }
    const twin = flow.connected ? flow.twin : datagramTwin(engine, flow)
    if (!twin) {
      // Connected: the other end has not established yet and will wake us. Datagram: nobody is there.
      if (flow.connected) {
        flow.blocked = 'order'
        return false
      }
      refuseHead(engine, flow, request, status.remoteInvalidRequest)
      continue
    }
    if (!begin(engine, flow, twin, request)) return false
    if (flow.moving) return true
  }
  return flow.waiting.size > 0
}

/** The receiving end of a datagram flow on this node; null for a queue pair that is not there. */
function datagramTwin(engine: Engine, flow: Flow): Flow | null {
  if (flow.twin && !flow.twin.queuePair.ending) return flow.twin
  const { queuePair } = flow
  const target = engine.queuePairs[flow.remoteNumber]
  if (!target || target.generation !== flow.remoteGeneration || target.job !== queuePair.job || target.connected)
    return null
  if (target.ending) return null
  const twin =
    target === queuePair && flow.remoteNumber === queuePair.number
      ? flow
      : datagramFlow(engine, target, thisNode, queuePair.number, queuePair.generation, null)
  if (!twin) return null
  flow.twin = twin
  twin.twin = flow
  return twin
}

/** Starts a request; false: it waits for a receive. */
function begin(engine: Engine, flow: Flow, twin: Flow, request: SendRequest): boolean {
  let receive: ReceiveRequest | null = null
  let remote: Region | null = null
  if (!isTwoSided(request.opcode) || request.opcode === opcode.writeWithImmediate) {
    const verdict = checkRemote(engine, request)
    if (verdict !== 0) {
      refuseHead(engine, flow, request, verdict)
      return true
    }
    remote = request.byteLength > 0 ? engine.regions.find(request.remoteKey, request.queuePair.job) : null
  }
  if (isTwoSided(request.opcode)) {
    twin.beginInbound(request.sequence)
    if (twin.queuePair.receives.size === 0) {
      flow.blocked = 'credit'
      twin.queuePair.waitingForReceive.add(flow)
      park(engine, flow, request)
      return false
    }
    receive = bindReceive(engine, twin, request.sequence)
    if (receive) describe(receive, request)
  }
  markPosted(engine, request, 0, 0)
  flow.waiting.shift()
  flow.inFlight.push(request)
  engine.counters[LOCAL_MESSAGES]!++
  engine.counters[LOCAL_BYTES]! += request.byteLength
  engine.messagesStarted++
  flow.localReceive = receive
  flow.localRegion = remote
  if (remote) remote.uses++
  request.stage = requestStage.moving
  flow.moving = request
  moveOn(engine, flow, request)
  return true
}

function describe(receive: ReceiveRequest, request: SendRequest): void {
  if (request.opcode !== opcode.send) {
    receive.operation = opcode.receiveWithImmediate
    receive.immediate = request.immediate
  }
  receive.solicited = (request.flags & workRequestFlag.solicited) !== 0
  receive.byteLength = request.byteLength
  if (request.opcode === opcode.writeWithImmediate) receive.refused = 0
  else if (receive.refused === 0 && request.byteLength > receive.local.byteLength)
    receive.refused = status.localLengthError
}

/** Copies one chunk, or all of a small request; true when the request has its outcome. */
function moveOn(engine: Engine, flow: Flow, request: SendRequest): boolean {
  const receive = flow.localReceive
  const atomic = request.opcode === opcode.compareAndSwap || request.opcode === opcode.fetchAndAdd
  if (atomic) {
    endMove(flow)
    request.stage = requestStage.sent
    flow.atomicsOutstanding++
    settleAtomic(
      engine,
      flow,
      request,
      executeAtomic(engine, flow.twin ?? flow, request.sequence, {
        operation: request.opcode,
        key: request.remoteKey,
        offset: request.remoteOffset,
        compare: request.compare,
        swap: request.swap,
      }),
    )
    return true
  }
  if (!receive || receive.refused === 0) {
    copyChunk(flow, request)
    if (request.moved < request.byteLength) return false
  }
  endMove(flow)
  request.stage = requestStage.sent
  if (!receive) {
    finishSend(engine, request, status.success)
    return true
  }
  flow.highestSent = request.sequence
  settleReceive(engine, flow.twin!, receive)
  settleFlow(engine, flow)
  return true
}

function endMove(flow: Flow): void {
  flow.moving = null
  flow.localReceive = null
  const region = flow.localRegion
  flow.localRegion = null
  region?.release()
}

/** At most one chunk, cut at the ends of the request's entries. */
function copyChunk(flow: Flow, request: SendRequest): void {
  let budget = CHUNK_BYTES
  const list = request.local
  while (request.moved < request.byteLength && budget > 0) {
    if (request.inlineByteLength > 0) {
      const { queuePair } = request
      place(flow, request, queuePair.memory, queuePair.inlineOffset(request.slot), request.byteLength)
      request.moved = request.byteLength
      return
    }
    const { localEntry, localOffset } = request
    const part = Math.min(budget, list.length(localEntry) - localOffset)
    place(flow, request, list.region(localEntry).memory, list.offset(localEntry) + localOffset, part)
    request.advanceLocal(part)
    request.moved += part
    budget -= part
  }
}

/** The request's next bytes lie at `offset` of `memory`; where they go (for a read: come from) depends on what it is. */
function place(flow: Flow, request: SendRequest, memory: Region['memory'], offset: number, byteLength: number): void {
  const region = flow.localRegion
  if (!region) {
    if (flow.localReceive) scatter(flow.localReceive.local, request.moved, memory, offset, byteLength)
    return
  }
  const at = request.remoteOffset + request.moved
  if (request.opcode === opcode.read) copyInOrder(memory, offset, region.memory, at, byteLength)
  else copyInOrder(region.memory, at, memory, offset, byteLength)
}
