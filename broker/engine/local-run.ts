/**
 * Small sends and writes in a row between two queue pairs of this node: each is copied, told to both ends and done before the next one is
 * looked at, so nothing of it ever waits in a list. Whatever is not plainly possible is left to `local.ts`.
 */
import { keyGeneration } from '../../protocol/keys.js'
import { counterIndex } from '../../protocol/node-file.js'
import { opcode, workRequestFlag } from '../../protocol/opcodes.js'
import { type Status, status } from '../../protocol/statuses.js'
import { regionRight } from '../../protocol/wire.js'
import { copyInOrder } from '../../shm/copy.js'
import type { Engine } from './engine.js'
import { takeReceive } from './entries.js'
import { completeSend, deliver, markPosted } from './finish.js'
import type { Flow } from './flow.js'
import { scatter } from './gather.js'
import { within } from './region.js'
import { type ReceiveRequest, receiveStage, requestStage, type SendRequest } from './request.js'
import { isPlain, mayRun } from './run.js'

/** Longer ones are copied in pieces, with others having their turn in between. */
export const LONGEST = 64 * 1024
const LOCAL_MESSAGES = counterIndex['local-messages']
const LOCAL_BYTES = counterIndex['local-bytes']

/** Executes up to `most` from the head of the flow; how many. */
export function copyRun(engine: Engine, flow: Flow, most: number): number {
  const twin = flow.connected ? flow.twin : null
  if (!twin || twin.queuePair.ending || !isEmpty(flow, twin) || !mayRun(engine, flow)) return 0
  let count = 0
  let bytes = 0
  for (; count < most && bytes < LONGEST; count++) {
    const request = flow.waiting.head
    if (!request || !isPlain(request, LONGEST) || !execute(engine, flow, twin, request)) break
    bytes += request.byteLength
  }
  if (count === 0) return 0
  tallyLocal(engine, count, bytes)
  engine.touchEnding(flow.queuePair)
  engine.touchEnding(twin.queuePair)
  return count
}

/** So many messages went from one queue pair of this node to another. */
export function tallyLocal(engine: Engine, messages: number, bytes: number): void {
  engine.messagesStarted += messages
  engine.counters[LOCAL_MESSAGES]! += messages
  engine.counters[LOCAL_BYTES]! += bytes
}

/** Nothing is under way that must be told before. */
export function isEmpty(flow: Flow, twin: Flow): boolean {
  return flow.inFlight.size === 0 && flow.flushed.size === 0 && twin.inbound.size === 0 && !flow.suspended
}

function execute(engine: Engine, flow: Flow, twin: Flow, request: SendRequest): boolean {
  if (request.opcode === opcode.send) return send(engine, flow, twin, request)
  return request.opcode === opcode.write && write(engine, flow, request)
}

function send(engine: Engine, flow: Flow, twin: Flow, request: SendRequest): boolean {
  const receive = takeReceive(engine, twin.queuePair)
  if (!receive) return false
  if (receive.refused !== 0 || receive.local.byteLength < request.byteLength) {
    twin.queuePair.returnReceives([receive], false)
    return false
  }
  markPosted(engine, request, 0, 0)
  const { local } = request
  scatter(receive.local, 0, local.region(0).memory, local.offset(0), request.byteLength)
  twin.beginInbound(request.sequence)
  describe(receive, request)
  twin.accepted = request.sequence
  deliver(engine, twin, receive)
  flow.highestSent = request.sequence
  flow.delivered = request.sequence
  finish(engine, flow, request)
  return true
}

function describe(receive: ReceiveRequest, request: SendRequest): void {
  receive.stage = receiveStage.finished
  receive.status = status.success
  receive.operation = opcode.receive
  receive.solicited = (request.flags & workRequestFlag.solicited) !== 0
  receive.byteLength = request.byteLength
  receive.sequence = request.sequence
}

function write(engine: Engine, flow: Flow, request: SendRequest): boolean {
  if (checkRemote(engine, request) !== 0) return false
  const remote = engine.regions.find(request.remoteKey, request.queuePair.job)!
  markPosted(engine, request, 0, 0)
  const { local, byteLength } = request
  copyInOrder(remote.memory, request.remoteOffset, local.region(0).memory, local.offset(0), byteLength)
  finish(engine, flow, request)
  return true
}

/** Everything about the remote side of a one-sided request, which is this node's own table. */
export function checkRemote(engine: Engine, request: SendRequest): Status {
  if (request.byteLength === 0) return 0
  const region = engine.regions.find(request.remoteKey, request.queuePair.job)
  if (!region || keyGeneration(request.remoteKey) !== region.generation) return status.remoteAccessError
  const atomic = request.opcode === opcode.compareAndSwap || request.opcode === opcode.fetchAndAdd
  const right = atomic
    ? regionRight.remoteAtomic
    : request.opcode === opcode.read
      ? regionRight.remoteRead
      : regionRight.remoteWrite
  return (region.rights & right) !== 0 && within(region, request.remoteOffset, request.byteLength)
    ? 0
    : status.remoteAccessError
}

/** In the order of all engines: the receiver's completion first, then the sender's. */
function finish(engine: Engine, flow: Flow, request: SendRequest): void {
  flow.waiting.shift()
  request.stage = requestStage.finished
  request.status = status.success
  completeSend(engine, request)
}
