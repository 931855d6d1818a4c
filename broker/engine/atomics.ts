/**
 * Atomics, executed by the broker that owns the memory with 64-bit locked CPU operations: remote requests, same-node requests and the
 * owner's own `Atomics` on the region agree, on every provider.
 *
 * For connected queue pairs the outcome is remembered in the segment (sequence → original value) until the window has passed over it, so
 * that a repeated request gets the first answer instead of a second execution.
 */

import { limits } from '../../protocol/limits.js'
import { counterIndex } from '../../protocol/node-file.js'
import { opcode } from '../../protocol/opcodes.js'
import { atomicRecord } from '../../protocol/queue-pair-segment.js'
import { type Status, status } from '../../protocol/statuses.js'
import { regionRight } from '../../protocol/wire.js'
import { atomic64 } from '../../shm/words.js'
import type { Engine } from './engine.js'
import { finishSend } from './finish.js'
import type { Flow } from './flow.js'
import { within } from './region.js'
import { requestStage, type SendRequest } from './request.js'

export interface AtomicRequest {
  readonly operation: number
  readonly key: number
  readonly offset: number
  readonly compare: bigint
  readonly swap: bigint
}
export interface AtomicOutcome {
  readonly status: Status
  readonly original: bigint
}

const RECORD_STATE = { intent: 1, executed: 2 } as const

/** Executes once; a sequence seen before gets its first answer. */
export function executeAtomic(engine: Engine, flow: Flow, sequence: number, request: AtomicRequest): AtomicOutcome {
  const { queuePair } = flow
  const at = queuePair.geometry.atomicRecordsOffset + ((sequence >>> 0) % limits.atomicWindow) * atomicRecord.byteLength
  const first = queuePair.connected ? atomicRecord.read(queuePair.memory, at) : null
  if (first?.sequence === sequence >>> 0) {
    if (first.state === RECORD_STATE.executed) return { status: status.success, original: first.original }
    // A predecessor died between its intent and its execution.
    if (first.state === RECORD_STATE.intent) return { status: status.unknown, original: 0n }
  }
  const region = engine.regions.find(request.key, queuePair.job)
  const refusal = refuse(request, region)
  if (refusal !== 0 || !region) return { status: refusal, original: 0n }
  const words = region.memory.i64
  const index = request.offset / 8
  if (queuePair.connected) {
    // The intent comes first: a successor that finds it without `executed` cannot know and says unknown.
    atomicRecord.write(queuePair.memory, at, {
      sequence,
      key: request.key,
      offset: request.offset,
      replacement: request.swap,
      status: 0,
    })
    queuePair.words.store(at / 4 + atomicRecord.word.state, RECORD_STATE.intent)
  }
  const original =
    request.operation === opcode.fetchAndAdd
      ? atomic64.add(words, index, request.swap)
      : atomic64.compareExchange(words, index, request.compare, request.swap)
  if (queuePair.connected) {
    queuePair.memory.i64[(at + atomicRecord.offset.original) / 8] = original
    queuePair.words.store(at / 4 + atomicRecord.word.state, RECORD_STATE.executed)
  }
  engine.counters[counterIndex['atomics-executed']]!++
  return { status: status.success, original }
}

function refuse(request: AtomicRequest, region: { rights: number; byteLength: number } | null): Status {
  if (!region || (region.rights & regionRight.remoteAtomic) === 0) return status.remoteAccessError
  if (request.offset % 8 !== 0) return status.remoteInvalidRequest
  if (!within(region, request.offset, 8)) return status.remoteAccessError
  const known = request.operation === opcode.fetchAndAdd || request.operation === opcode.compareAndSwap
  return known ? 0 : status.remoteInvalidRequest
}

/** An atomic has its answer; answers come in order, but refusals may overtake them. */
export function endAtomic(flow: Flow, sequence: number): void {
  flow.atomicsOutstanding--
  const at = flow.atomicSequences.indexOf(sequence)
  if (at >= 0) flow.atomicSequences.splice(at, 1)
}

/** The requester's end: the original value goes into its local entry, little-endian; then the verdict. */
export function settleAtomic(engine: Engine, flow: Flow, request: SendRequest, outcome: AtomicOutcome): void {
  if (request.stage === requestStage.finished) return
  endAtomic(flow, request.sequence)
  if (outcome.status === status.success) {
    const { local } = request
    if (local.count > 0) local.region(0).memory.view.setBigInt64(local.offset(0), outcome.original, true)
  }
  finishSend(engine, request, outcome.status)
  engine.wakeFlow(flow)
}
