/**
 * Small sends and writes in a row, as most traffic is: what holds for the whole row is looked at once. Whatever is not plainly possible is
 * left to `transmit.ts` and `bulk.ts`, which also know why; nothing here decides anything else than they would.
 */
import { counterIndex } from '../../protocol/node-file.js'
import { opcode, workRequestFlag } from '../../protocol/opcodes.js'
import { queuePairState } from '../../protocol/queue-pair-segment.js'
import { messageFlag, messageType, regionRight } from '../../protocol/wire.js'
import { copyBytes } from '../../shm/copy.js'
import { sendOpcode } from '../provider/provider.js'
import { windowLimit } from './bulk-pace.js'
import type { Engine } from './engine.js'
import { markPosted, markWhole } from './finish.js'
import type { Flow } from './flow.js'
import { creditTier, type Lane } from './lane.js'
import { SIGNALED_CHUNK_BYTES } from './lane-sizes.js'
import { useRemoteRegion } from './remote-keys.js'
import { requestStage, type SendRequest } from './request.js'
import { writeRoute } from './route.js'

const SENDS = counterIndex['sends-posted']
const WRITES = counterIndex['writes-posted']
const SEGMENTS = counterIndex['eager-segments']
const MESSAGES = counterIndex['messages-sent']
const BYTES = counterIndex['bytes-sent']
const NOT_PLAIN = workRequestFlag.fence | workRequestFlag.inline

/** Starts up to `most` from the head of the flow; how many went. */
export function startRun(engine: Engine, lane: Lane, flow: Flow, most: number): number {
  if (!mayRun(engine, flow)) return 0
  const first = flow.waiting.head?.opcode
  if (first === opcode.send) return sendRun(engine, lane, flow, most)
  return first === opcode.write ? writeRun(engine, lane, flow, most) : 0
}

/** Nothing about the flow itself keeps its requests back. */
export function mayRun(engine: Engine, flow: Flow): boolean {
  if (flow.moving || flow.telling !== 'none' || flow.resumeDue || engine.handingOver) return false
  return !flow.connected || flow.queuePair.state !== queuePairState.connecting
}

function sendRun(engine: Engine, lane: Lane, flow: Flow, most: number): number {
  const credit = flow.connected ? (flow.receiveLimit - flow.messagesSent) | 0 : most
  const budget = Math.min(most, credit)
  const capacity = lane.payloadCapacity
  let count = 0
  let bytes = 0
  for (; count < budget; count++) {
    const request = flow.waiting.head
    if (!request || request.opcode !== opcode.send || !isPlain(request, capacity)) break
    if (!putSend(engine, lane, flow, request)) break
    bytes += request.byteLength
  }
  tallySends(engine, flow, count, bytes)
  return count
}

/** So many sends of a flow have left, each in one piece. */
export function tallySends(engine: Engine, flow: Flow, count: number, bytes: number): void {
  flow.messagesSent = (flow.messagesSent + count) | 0
  engine.counters[SENDS]! += count
  engine.counters[SEGMENTS]! += count
  tally(engine, count, bytes)
}

/** A write that is one short chunk is posted at once, if no longer transfer of the lane waits for its turn. */
function writeRun(engine: Engine, lane: Lane, flow: Flow, most: number): number {
  if (flow.announced + flow.unposted > 0) return 0
  const window = windowLimit(engine.options.bulkWindowByteLength, lane.pace.at(engine.nowMs))
  let count = 0
  let bytes = 0
  for (; count < most && lane.bulk.length === 0; count++) {
    const request = flow.waiting.head
    if (!request || request.opcode !== opcode.write || !isPlain(request, SIGNALED_CHUNK_BYTES - 1)) break
    if (request.byteLength > lane.parameters.chunkByteLength || !hasRoom(engine, lane, request, window)) break
    if (useRemoteRegion(lane.group, request, regionRight.remoteWrite) !== 'ready') break
    putWrite(engine, lane, flow, request)
    bytes += request.byteLength
  }
  engine.counters[WRITES]! += count
  tally(engine, count, bytes)
  return count
}

function hasRoom(engine: Engine, lane: Lane, request: SendRequest, window: number): boolean {
  if (lane.bulkChunks > 0 && lane.bulkPostedByteLength + request.byteLength > window) return false
  return lane.chunkRoom || (lane.batch.count > 0 && engine.flushLane(lane) && lane.chunkRoom)
}

/** One entry of an open region, short, never posted before, and nothing to wait for. */
export function isPlain(request: SendRequest, most: number): boolean {
  if (request.stage !== requestStage.waiting || request.exposed || request.refused !== 0) return false
  if ((request.flags & NOT_PLAIN) !== 0 || request.moved !== 0) return false
  const { local } = request
  return local.count === 1 && local.byteLength <= most && local.region(0).open
}

function putSend(engine: Engine, lane: Lane, flow: Flow, request: SendRequest): boolean {
  const { local, byteLength } = request
  const offset = lane.beginMessage(byteLength, creditTier.data)
  if (offset < 0) return false
  markPosted(engine, request, lane.shared, lane.lastSequence)
  const flags = (request.flags & workRequestFlag.solicited) !== 0 ? messageFlag.solicited : 0
  writeRoute(lane, offset, messageType.eager, flags, byteLength, flow, request.sequence, request.immediate, 0)
  copyBytes(lane.memory, lane.payloadOffset(offset), local.region(0).memory, local.offset(0), byteLength)
  leave(flow, request)
  flow.highestSent = request.sequence
  return true
}

function putWrite(engine: Engine, lane: Lane, flow: Flow, request: SendRequest): void {
  // A message of the same flow that precedes it must be posted before it.
  if (flow.frameStamp === lane.frameStamp) lane.closeFrame()
  markPosted(engine, request, lane.shared, lane.lastSequence)
  const { local, byteLength } = request
  const remote = request.remote!
  const region = local.region(0)
  remote.uses++
  const from = region.address + local.offset(0)
  const to = remote.address + request.remoteOffset
  lane.addChunk(request, sendOpcode.write, to, remote.deviceKey, from, byteLength, region.registered!.localKey, -1)
  leave(flow, request)
  markWhole(request, lane.shared, lane.lastSequence)
}

function leave(flow: Flow, request: SendRequest): void {
  request.moved = request.byteLength
  request.stage = requestStage.sent
  flow.waiting.shift()
  flow.inFlight.push(request)
}

function tally(engine: Engine, count: number, bytes: number): void {
  engine.messagesStarted += count
  engine.counters[MESSAGES]! += count
  engine.counters[BYTES]! += bytes
}
