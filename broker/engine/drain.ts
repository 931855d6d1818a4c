/**
 * Taking work from clients' rings. For each committed reference: read the entry once, store the position in the slot, claimed → queued,
 * copy the body, check the copy. The shared head moves at the end of a visit, before any of the slots taken can be freed.
 *
 * Everything here reads memory that a hostile client may change under us: indices are clamped, a visit is bounded by the ring, and a ring
 * that cannot be what honest clients left fails its queue pair for its holders, nobody else.
 */

import { isKey } from '../../protocol/keys.js'
import { limits } from '../../protocol/limits.js'
import { counterIndex } from '../../protocol/node-file.js'
import { opcode, operationFlags, operationOpcode, operationSgeCount, workRequestFlag } from '../../protocol/opcodes.js'
import { receiveSlot, sendSlot } from '../../protocol/queue-pair-segment.js'
import { type Status, status } from '../../protocol/statuses.js'
import { CORRUPT } from '../../shm/reference-ring.js'
import { claimedToPosted, claimedToQueued } from '../../shm/slot-state.js'
import type { Engine } from './engine.js'
import { copyEntries, takeReceive } from './entries.js'
import { completeReceive, completeUnsent, isTwoSided } from './finish.js'
import type { Flow } from './flow.js'
import { copyStraight } from './local-straight.js'
import { flowOf, knownFlow } from './paths.js'
import type { EngineQueuePair } from './queue-pair.js'
import { receiveStage, requestStage, type SendRequest } from './request.js'
import { sendStraight } from './straight.js'
import { peerHasReceive, receivesPosted } from './waiting.js'

const KNOWN_FLAGS =
  workRequestFlag.signaled |
  workRequestFlag.solicited |
  workRequestFlag.fence |
  workRequestFlag.inline |
  workRequestFlag.replayable

/** Takes up to `budget` sends; true if committed ones are left. */
export function drainSends(engine: Engine, queuePair: EngineQueuePair, budget: number): boolean {
  const committed = queuePair.sendRing.pending()
  if (committed === 0) return false
  if (committed === CORRUPT) return corrupted(engine, queuePair, 'the send ring')
  const most = Math.min(budget, committed)
  const straight = goStraight(engine, queuePair, most)
  if (straight < most && !takeSends(engine, queuePair, most - straight, false))
    return corrupted(engine, queuePair, 'an entry of the send ring')
  return committed > most
}

/**
 * The same in the course of a turn: what could only wait behind other requests of its flow stays in the ring, until the last of those has
 * left and has the ring looked at again.
 */
export function visitSends(engine: Engine, queuePair: EngineQueuePair, budget: number): boolean {
  const { flow, sendRing: ring } = queuePair
  if (flow === null || !queuePair.connected || queuePair.ending) return drainSends(engine, queuePair, budget)
  const committed = ring.pending()
  if (committed === 0) return false
  if (committed === CORRUPT) return corrupted(engine, queuePair, 'the send ring')
  const first = ring.position
  const most = Math.min(budget, committed)
  if (flow.waiting.size === 0) {
    const straight = goStraight(engine, queuePair, most)
    // A copy stops after some bytes as well.
    const isSlice = straight > 0 && flow.lane === null
    if (straight < most && !isSlice && !takeSends(engine, queuePair, most - straight, true))
      return corrupted(engine, queuePair, 'an entry of the send ring')
  }
  if (ring.position === ((first + committed) | 0)) return false
  if (flow.waiting.size === 0) return true
  engine.hold(queuePair, flow)
  return false
}

/** What needs no waiting and no record in between; how many. */
function goStraight(engine: Engine, queuePair: EngineQueuePair, most: number): number {
  const { flow } = queuePair
  if (flow === null) return 0
  return flow.lane === null ? copyStraight(engine, flow, most) : sendStraight(engine, flow, flow.lane, most)
}

/** Takes `most` of the ring's entries into their flows, or fewer if one needs a receive that is not there; false: an entry cannot be. */
function takeSends(engine: Engine, queuePair: EngineQueuePair, most: number, onlyWhatGoes: boolean): boolean {
  const { words, memory, sendsTaken, sendRing: ring } = queuePair
  const first = ring.position
  const { pending } = engine
  let broken = false
  let count = 0
  let taken = 0
  for (; count < most; count++) {
    const slot = ring.slotAt(count)
    // A slot whose request is still under way stands in the ring again: no honest client leaves that.
    broken = slot === CORRUPT || sendsTaken[slot] !== 0
    if (broken) break
    const word = queuePair.sendSlotWord(slot)
    const generation = memory.i32[word + sendSlot.word.generation]! & 0xfffffff
    memory.i32[word + sendSlot.word.position] = (first + count) | 0
    // Not claimed any more: an entry that a predecessor had taken already, or a duplicate. Its slot is accounted for elsewhere.
    if (!claimedToQueued(words, word, generation)) continue
    const request = recordSend(engine, queuePair, slot, generation, (first + count) | 0)
    pending[taken++] = request
    if (!onlyWhatGoes || !isTwoSided(request.opcode) || peerHasReceive(queuePair.flow!)) continue
    count++
    break
  }
  ring.advance(count)
  // Only now, after the head was stored, may any of these be executed or freed.
  if (queuePair.connected && queuePair.flow && !queuePair.ending) admitAll(engine, queuePair.flow, pending, taken)
  else for (let index = 0; index < taken; index++) admit(engine, queuePair, pending[index]!)
  return !broken
}

function corrupted(engine: Engine, queuePair: EngineQueuePair, what: string): false {
  engine.corrupt(queuePair, `${what} is not what a client can have left`)
  return false
}

/** The engine's record of a send slot that was taken, by it or by a predecessor. */
export function recordSend(
  engine: Engine,
  queuePair: EngineQueuePair,
  slot: number,
  generation: number,
  position: number,
): SendRequest {
  const request = queuePair.sendRequest(slot)
  request.generation = generation
  request.sequence = (position + 1) | 0
  copySend(engine, queuePair, request, request.word)
  return request
}

/** Copies the client's words once; the checks below look only at the copy. */
function copySend(engine: Engine, queuePair: EngineQueuePair, request: SendRequest, word: number): void {
  const { i32, u32, f64, i64 } = queuePair.memory
  const operation = i32[word + sendSlot.word.operation]!
  request.opcode = operationOpcode(operation)
  request.flags = operationFlags(operation)
  const entries = operationSgeCount(operation)
  if ((request.flags & workRequestFlag.inline) !== 0)
    request.inlineByteLength = u32[word + sendSlot.word.inlineByteLength]!
  request.refused = checkOperation(queuePair, request, entries)
  if (request.refused === 0 && entries > 0) {
    const written = request.opcode >= opcode.read
    const first = word + sendSlot.word.firstEntry
    const further = word + sendSlot.word.furtherEntries
    request.refused = copyEntries(engine, queuePair, request.local, first, further, entries, written)
  }
  request.byteLength = request.inlineByteLength + request.local.byteLength
  if (request.opcode !== opcode.send) {
    request.immediate = i32[word + sendSlot.word.immediate]!
    request.remoteKey = f64[(word + sendSlot.word.remoteKey) >>> 1]!
    request.remoteOffset = f64[(word + sendSlot.word.remoteOffset) >>> 1]!
    if (request.opcode === opcode.compareAndSwap || request.opcode === opcode.fetchAndAdd) {
      request.compare = i64[(word + sendSlot.word.compare) >>> 1]!
      request.swap = i64[(word + sendSlot.word.swap) >>> 1]!
    }
  }
  if (!queuePair.connected) {
    request.destinationNode = u32[word + sendSlot.word.destinationNode]!
    request.destinationNumber = u32[word + sendSlot.word.destinationNumber]!
    request.destinationGeneration = u32[word + sendSlot.word.destinationGeneration]!
  }
  if (request.refused === 0) request.refused = checkRemote(request)
}

function checkOperation(queuePair: EngineQueuePair, request: SendRequest, entries: number): Status {
  const { opcode: operation, flags } = request
  if (operation < opcode.send || operation > opcode.fetchAndAdd) return status.localQueuePairError
  if ((flags & ~KNOWN_FLAGS) !== 0 || entries > limits.scatterGatherEntries) return status.localQueuePairError
  if ((flags & workRequestFlag.inline) === 0) return 0
  if (entries !== 0 || operation >= opcode.read) return status.localQueuePairError
  return request.inlineByteLength <= queuePair.geometry.inlineByteLength ? 0 : status.localLengthError
}

/** Everything about the remote side that needs no answer from the peer. */
function checkRemote(request: SendRequest): Status {
  const operation = request.opcode
  if (request.byteLength > limits.messageByteLength) return status.localLengthError
  if (operation <= opcode.sendWithImmediate) return 0
  const atomic = operation === opcode.compareAndSwap || operation === opcode.fetchAndAdd
  if (atomic && (request.local.count !== 1 || request.byteLength !== 8)) return status.localLengthError
  // Zero-length reads and writes touch nothing, so the key is not looked at (verbs-semantics §2.4).
  if (request.byteLength === 0) return 0
  if (!isKey(request.remoteKey)) return status.remoteAccessError
  if (!Number.isSafeInteger(request.remoteOffset) || request.remoteOffset < 0) return status.remoteAccessError
  return atomic && request.remoteOffset % 8 !== 0 ? status.remoteInvalidRequest : 0
}

/** As `admit`, for all of a visit to a queue pair that has one flow: it is looked up and woken once. */
function admitAll(engine: Engine, flow: Flow, requests: readonly SendRequest[], count: number): void {
  for (let index = 0; index < count; index++) join(engine, flow, requests[index]!)
  if (count > 0) engine.wakeFlow(flow)
}

function join(engine: Engine, flow: Flow, request: SendRequest): void {
  if (request.refused !== 0) engine.counters[counterIndex['containment-refusals']]!++
  request.flow = flow
  flow.beginOutbound(request.sequence)
  flow.waiting.push(request)
}

/** Puts a checked request into its flow, or tells at once why not. */
export function admit(engine: Engine, queuePair: EngineQueuePair, request: SendRequest): void {
  if (queuePair.ending) {
    const ending = knownFlow(queuePair, request)
    request.stage = requestStage.finished
    request.status = status.flushed
    // Told after what is still under way, in posting order.
    if (ending && ending.inFlight.size + ending.waiting.size + ending.flushed.size > 0) ending.flushed.push(request)
    else completeUnsent(engine, request, status.flushed)
    return
  }
  const flow = flowOf(engine, queuePair, request)
  if (!flow) {
    completeUnsent(engine, request, status.localQueuePairError)
    return
  }
  join(engine, flow, request)
  engine.wakeFlow(flow)
}

/** Takes up to `budget` receives; true if committed ones are left. */
export function drainReceives(engine: Engine, queuePair: EngineQueuePair, budget: number): boolean {
  const ring = queuePair.receiveRing
  const pending = ring.pending()
  if (pending === 0) return false
  if (pending === CORRUPT) return corrupted(engine, queuePair, 'the receive ring')
  const { words, memory, receives } = queuePair
  const first = ring.position
  let broken = false
  let taken = 0
  let count = 0
  for (; count < budget && count < pending; count++) {
    const slot = ring.slotAt(count)
    broken = slot === CORRUPT || receives.isTaken(slot)
    if (broken) break
    const word = queuePair.receiveSlotWord(slot)
    const generation = memory.i32[word + receiveSlot.word.generation]! & 0xfffffff
    memory.i32[word + receiveSlot.word.position] = (first + count) | 0
    if (!claimedToPosted(words, word, generation)) continue
    receives.push(slot, generation, (first + count) | 0)
    taken++
  }
  ring.advance(count)
  queuePair.receivesTaken = (queuePair.receivesTaken + taken) | 0
  if (queuePair.ending) flushReceives(engine, queuePair)
  else if (taken > 0) receivesPosted(engine, queuePair)
  return broken ? corrupted(engine, queuePair, 'an entry of the receive ring') : pending > count
}

/** Every receive that no message was matched to gets `flushed`. */
export function flushReceives(engine: Engine, queuePair: EngineQueuePair): void {
  for (let receive = takeReceive(engine, queuePair); receive; receive = takeReceive(engine, queuePair)) {
    receive.status = status.flushed
    receive.stage = receiveStage.finished
    completeReceive(engine, receive, null)
  }
}
