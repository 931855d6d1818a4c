/**
 * Bulk: writes, reads and granted sends, cut into chunks and posted in round robin over the requests of a lane, as long as the bytes
 * posted and not completed stay inside the window. That window, not the chunk, is the promise to small messages behind it, and smaller
 * while there are any (bulk-pace.ts).
 */
import { counterIndex } from '../../protocol/node-file.js'
import { opcode } from '../../protocol/opcodes.js'
import { status } from '../../protocol/statuses.js'
import { sendOpcode } from '../provider/provider.js'
import { chunkLimit, windowLimit } from './bulk-pace.js'
import type { Engine } from './engine.js'
import { finishSend, markWhole, settleFlow } from './finish.js'
import { gather } from './gather.js'
import type { Lane } from './lane.js'
import { SIGNALED_CHUNK_BYTES } from './lane-sizes.js'
import { releaseRemoteRegion } from './remote-keys.js'
import { requestStage, type SendRequest } from './request.js'
import { chunkOpcode, sendFlows, sendNotice } from './transmit.js'

/** Small writes that one flow may post in a turn. */
const ROUNDS = 64

/** Posts chunks and notices; returns how much was done. */
export function postBulk(engine: Engine, lane: Lane): number {
  let work = postRound(engine, lane)
  // What stands behind a write waits until it is posted. Now it goes on in the same turn, so that many small writes share a call.
  let posted = work
  for (let round = 0; round < ROUNDS && posted > 0 && lane.hasScheduled; round++) {
    work += sendFlows(engine, lane)
    posted = postRound(engine, lane)
    work += posted
  }
  return work
}

/** As much of what is there as window and depth allow. */
function postRound(engine: Engine, lane: Lane): number {
  let posted = 0
  let idle = 0
  lane.noticeStarved = false
  while (lane.bulk.length > 0 && idle < lane.bulk.length) {
    if (lane.bulkCursor >= lane.bulk.length) lane.bulkCursor = 0
    const request = lane.bulk[lane.bulkCursor]!
    if (step(engine, lane, request)) {
      posted++
      idle = 0
    } else {
      idle++
      lane.bulkCursor++
    }
  }
  return posted
}

/** One chunk or the notice of a request; false when it cannot go now. Moves the cursor on. */
function step(engine: Engine, lane: Lane, request: SendRequest): boolean {
  if (!request.noticeDue) {
    if (!postChunk(engine, lane, request)) return false
    lane.bulkCursor++
    if (request.moved < request.byteLength) return true
    lane.bulkCursor--
    request.noticeDue = request.opcode !== opcode.write && request.opcode !== opcode.read
  }
  if (request.noticeDue && !noticeSent(engine, lane, request)) return false
  leave(engine, lane, request)
  return true
}

function noticeSent(engine: Engine, lane: Lane, request: SendRequest): boolean {
  // Datagram: messages before it go again first, or the peer would take this one in their place.
  if (request.opcode === opcode.writeWithImmediate && request.flow!.resending) return false
  if (sendNotice(engine, lane, request)) return true
  lane.noticeStarved = true
  engine.flushLane(lane)
  return false
}

/** Everything of it is posted: what stands behind it in its flow may go. */
function leave(engine: Engine, lane: Lane, request: SendRequest): void {
  removeCurrent(lane)
  const flow = request.flow!
  request.noticeDue = false
  request.stage = requestStage.sent
  if (request.opcode === opcode.write) markWhole(request, lane.shared, lane.lastSequence)
  if (flow.moving === request) flow.moving = null
  else flow.unposted--
  engine.touchEnding(flow.queuePair)
  if (request.chunksOutstanding === 0) chunkSettled(engine, request)
  engine.wakeFlow(flow)
}

/** In place: a list that is cut anew would be garbage for each small write. */
function removeCurrent(lane: Lane): void {
  const { bulk } = lane
  for (let index = lane.bulkCursor + 1; index < bulk.length; index++) bulk[index - 1] = bulk[index]!
  bulk.pop()
}

function postChunk(engine: Engine, lane: Lane, request: SendRequest): boolean {
  if (!lane.chunkRoom && !(lane.batch.count > 0 && engine.flushLane(lane) && lane.chunkRoom)) return false
  const read = request.opcode === opcode.read
  if (read && lane.readsOutstanding >= Math.max(1, lane.parameters.readsInitiated - 1)) return false
  const left = request.byteLength - request.moved
  const pace = lane.pace.at(engine.nowMs)
  let byteLength = Math.min(left, chunkLimit(lane.parameters.chunkByteLength, pace))
  const window = windowLimit(engine.options.bulkWindowByteLength, pace)
  if (lane.bulkChunks > 0 && lane.bulkPostedByteLength + byteLength > window) {
    engine.counters[counterIndex['bulk-window-stalls']]!++
    return false
  }
  // A message of the same flow that precedes this chunk must be posted before it; others had better be, if it is long.
  if (request.flow!.frameStamp === lane.frameStamp || byteLength >= SIGNALED_CHUNK_BYTES) lane.closeFrame()
  if (request.inlineByteLength > 0) return postInline(lane, request)
  const { local, localEntry, localOffset } = request
  const region = local.region(localEntry)
  const offset = local.offset(localEntry) + localOffset
  byteLength = Math.min(byteLength, local.length(localEntry) - localOffset)
  byteLength = target(request, byteLength)
  lane.addChunk(
    request,
    chunkOpcode(request),
    chunkAddress,
    chunkKey,
    region.address + offset,
    byteLength,
    region.registered!.localKey,
    -1,
  )
  request.advanceLocal(byteLength)
  request.moved += byteLength
  return true
}

/** Inline payload of a write lies in the client's slot, which no device knows: it is copied into a stage of the lane's memory. */
function postInline(lane: Lane, request: SendRequest): boolean {
  const stage = lane.takeStage()
  if (stage < 0) return false
  const byteLength = request.inlineByteLength
  const offset = lane.stageOffset(stage)
  gather(request, byteLength, lane.memory, offset)
  target(request, byteLength)
  lane.addChunk(
    request,
    sendOpcode.write,
    chunkAddress,
    chunkKey,
    lane.memory.address + offset,
    byteLength,
    lane.registered.localKey,
    stage,
  )
  request.moved = byteLength
  return true
}

let chunkAddress = 0
let chunkKey = 0

/** Where the next chunk goes: into the remote region, or into the granted entries, whose ends cut it. Returns its length. */
function target(request: SendRequest, byteLength: number): number {
  const { remote } = request
  if (remote) {
    chunkAddress = remote.address + request.remoteOffset + request.moved
    chunkKey = remote.deviceKey
    return byteLength
  }
  const grant = request.grants![request.grantEntry]!
  chunkAddress = grant.address + request.grantOffset
  chunkKey = grant.deviceKey
  const part = Math.min(byteLength, grant.byteLength - request.grantOffset)
  request.advanceGrant(part)
  return part
}

/** A chunk's outcome is known to be success; the last one decides for writes and reads, a delivery for the rest. */
export function chunkSettled(engine: Engine, request: SendRequest): void {
  if (request.chunksOutstanding > 0 || request.stage === requestStage.moving) return
  if (request.remote) releaseRemoteRegion(engine, request)
  if (request.opcode === opcode.write || request.opcode === opcode.read) finishSend(engine, request, status.success)
  else if (request.flow) settleFlow(engine, request.flow)
}

/** The peer granted its receive's buffer: the announced message starts to move. */
export function beginGranted(engine: Engine, lane: Lane, request: SendRequest): void {
  const flow = request.flow!
  flow.announced--
  flow.unposted++
  request.stage = requestStage.moving
  lane.bulk.push(request)
  engine.markBusy(lane)
}
