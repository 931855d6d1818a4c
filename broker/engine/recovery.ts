/**
 * What a broker that died left in a queue pair's segment, put in order again by its successor (crash-consistency §2.6). Every step may
 * be repeated: the successor may die as well, anywhere.
 *
 *   1  sweepLock(…, member 0, …)   locks that name the predecessor: its token is the successor's now, so nobody else takes them over
 *   2  finishVisits                heads past the entries that were taken already
 *   3  leftInSlots                 what lies in the slots, in posting order
 *        done    → republish       a reference that is in the ring as well is harmless, its generation tells
 *        posted  → their verdicts, once both ends have fenced the old incarnation
 *        queued  → retakeSends     as if drained just now; receives: retakeReceives, queued and posted alike
 *        last    → recoverLast     from the receives that are done, before anybody is told what was delivered
 *   4  clearAll (shm/activity), then drain every ring once: a mark made meanwhile must stay, and the old marks may be lost
 *   5  only then sweep the members that died meanwhile: what they committed must be taken before their claims are freed
 *
 * Why step 2 comes first: a visit moves claimed slots to queued one by one and stores the head at its end. A slot behind the head that is
 * not claimed was taken; if it were executed and freed before the head has passed its entry, a client could claim it again, and the old
 * entry would publish a request that is only half written. No slot is executed or freed before the head was stored (drain.ts).
 */
import { side } from '../../protocol/completion-queue-segment.js'
import { queuePairHeader, receiveSlot, sendSlot } from '../../protocol/queue-pair-segment.js'
import { CORRUPT, type ReferenceRingConsumer } from '../../shm/reference-ring.js'
import {
  generationOf,
  queuedToPosted,
  SLOT_CLAIMED,
  SLOT_DONE,
  SLOT_POSTED,
  SLOT_QUEUED,
  stateOf,
} from '../../shm/slot-state.js'
import { admit, recordSend } from './drain.js'
import type { Engine } from './engine.js'
import type { EngineQueuePair } from './queue-pair.js'

/** A slot that the predecessor had taken. */
export interface LeftSlot {
  readonly slot: number
  readonly generation: number
  /** Where it stood in its ring. */
  readonly position: number
}

/** Each list in posting order. */
export interface LeftInSlots {
  readonly queued: readonly LeftSlot[]
  readonly posted: readonly LeftSlot[]
  readonly done: readonly LeftSlot[]
}

/** Moves both heads past the entries whose slots were taken. False: a ring cannot be what honest processes left. */
export function finishVisits(queuePair: EngineQueuePair): boolean {
  return (
    finishVisit(queuePair, queuePair.sendRing, (slot) => queuePair.sendSlotWord(slot)) &&
    finishVisit(queuePair, queuePair.receiveRing, (slot) => queuePair.receiveSlotWord(slot))
  )
}

function finishVisit(
  queuePair: EngineQueuePair,
  ring: ReferenceRingConsumer,
  wordOf: (slot: number) => number,
): boolean {
  const pending = ring.pending()
  if (pending === CORRUPT) return false
  let taken = 0
  while (taken < pending) {
    const slot = ring.slotAt(taken)
    if (slot === CORRUPT) return false
    if (stateOf(queuePair.words.load(wordOf(slot))) === SLOT_CLAIMED) break
    taken++
  }
  if (taken > 0) ring.advance(taken)
  return true
}

/** After `finishVisits`. Undefined: a slot names a position that was not reached, so somebody scribbled over it. */
export function leftInSendSlots(queuePair: EngineQueuePair): LeftInSlots | undefined {
  const { geometry, sendRing } = queuePair
  const wordOf = (slot: number): number => queuePair.sendSlotWord(slot)
  return leftInSlots(queuePair, geometry.sendSlots, wordOf, sendSlot.word.position, sendRing.position)
}

/** As `leftInSendSlots`. */
export function leftInReceiveSlots(queuePair: EngineQueuePair): LeftInSlots | undefined {
  const { geometry, receiveRing } = queuePair
  const wordOf = (slot: number): number => queuePair.receiveSlotWord(slot)
  return leftInSlots(queuePair, geometry.receiveSlots, wordOf, receiveSlot.word.position, receiveRing.position)
}

function leftInSlots(
  queuePair: EngineQueuePair,
  slots: number,
  wordOf: (slot: number) => number,
  positionWord: number,
  head: number,
): LeftInSlots | undefined {
  const { words, memory } = queuePair
  const left: Record<number, LeftSlot[]> = { [SLOT_QUEUED]: [], [SLOT_POSTED]: [], [SLOT_DONE]: [] }
  for (let slot = 0; slot < slots; slot++) {
    const word = wordOf(slot)
    const state = words.load(word)
    const list = left[stateOf(state)]
    if (list === undefined) continue
    const position = memory.i32[word + positionWord]!
    if (((position - head) | 0) >= 0) return undefined
    list.push({ slot, generation: generationOf(state), position })
  }
  // Positions run through 32 bits: what counts is how far each lies behind the head.
  const inOrder = (list: LeftSlot[]): LeftSlot[] =>
    list.sort((one, other) => ((one.position - head) | 0) - ((other.position - head) | 0))
  return {
    queued: inOrder(left[SLOT_QUEUED]!),
    posted: inOrder(left[SLOT_POSTED]!),
    done: inOrder(left[SLOT_DONE]!),
  }
}

/**
 * The last sequence delivered to a connected queue pair. A receive may be done and `last` not stored yet: the slot is the record. A
 * receive that was consumed had its sequence stored before.
 */
export function recoverLast(queuePair: EngineQueuePair, done: readonly LeftSlot[]): number {
  const { words, memory } = queuePair
  let last = words.load(queuePairHeader.word.last)
  for (const { slot } of done) {
    const sequence = memory.i32[queuePair.receiveSlotWord(slot) + receiveSlot.word.sequence]!
    // 0: flushed, no message was matched to it.
    if (sequence !== 0 && ((sequence - last) | 0) > 0) last = sequence
  }
  words.store(queuePairHeader.word.last, last)
  return last
}

/**
 * Receives that are done, as their completions are told: those of one sender in the order of its messages. Receives that were matched to
 * messages of a lost lane, and then posted again, may have been filled out of their posting order since.
 */
export function inSenderOrder(queuePair: EngineQueuePair, done: readonly LeftSlot[]): LeftSlot[] {
  const { i32 } = queuePair.memory
  const bySender = new Map<string, number[]>()
  const sequenceOf = ({ slot }: LeftSlot): number => i32[queuePair.receiveSlotWord(slot) + receiveSlot.word.sequence]!
  for (const [index, left] of done.entries()) {
    if (sequenceOf(left) === 0) continue
    const word = queuePair.receiveSlotWord(left.slot)
    const { sourceNode, sourceNumber, sourceGeneration } = receiveSlot.word
    const sender = `${i32[word + sourceNode]} ${i32[word + sourceNumber]} ${i32[word + sourceGeneration]}`
    const indices = bySender.get(sender)
    if (indices) indices.push(index)
    else bySender.set(sender, [index])
  }
  const ordered = [...done]
  for (const indices of bySender.values()) {
    const own = indices.map((index) => done[index]!)
    own.sort((one, other) => (sequenceOf(one) - sequenceOf(other)) | 0)
    for (const [at, index] of indices.entries()) ordered[index] = own[at]!
  }
  return ordered
}

/** Refers to completions that lie in their slots; those that a full ring has no room for wait as always. */
export function republish(engine: Engine, queuePair: EngineQueuePair, onSide: number, done: readonly LeftSlot[]): void {
  const queue = onSide === side.send ? queuePair.sendQueue : queuePair.receiveQueue
  // Urgent: nobody knows any more who was waiting for what.
  for (const { slot, generation } of done) queue.push(queuePair, onSide, slot, generation, true)
  if (done.length > 0) engine.touchQueue(queue)
}

/** Sends that were taken and never went: they wait in their flow as if drained just now. After the verdicts of the posted ones. */
export function retakeSends(engine: Engine, queuePair: EngineQueuePair, queued: readonly LeftSlot[]): void {
  for (const { slot, generation, position } of queued) {
    admit(engine, queuePair, recordSend(engine, queuePair, slot, generation, position))
  }
}

/** Receives that no message has completed are posted again, in their order. */
export function retakeReceives(queuePair: EngineQueuePair, { posted, queued }: LeftInSlots): void {
  for (const { slot, generation } of queued) {
    queuedToPosted(queuePair.words, queuePair.receiveSlotWord(slot), generation)
  }
  for (const { slot, generation, position } of [...posted, ...queued]) {
    queuePair.receives.push(slot, generation, position)
  }
  queuePair.receivesTaken = queuePair.receiveRing.position
}
