/**
 * Polling a completion ring that several processes may poll at once, without a lock.
 *
 *   head (pollers)                tail (broker)
 *     ▼                             ▼
 *   ┌────┬────┬────┬────┬────┬────┬────┐
 *   │ h  │    │ p  │    │    │    │    │     entry = reference (queue pair, side, slot) and the slot's generation
 *   └────┴────┴────┴────┴────┴────┴────┘
 *     read entry p ─► load head again: p must not lie behind it (else the entry may be of the next lap)
 *     ─► copy the result out of the slot ─► compare-and-swap slot done|g → free|g+1: whoever wins delivers it
 *     ─► …; at the end compare-and-swap head h → p
 *
 * - The slot is the truth: an entry published twice, or whose slot somebody else took, fails the compare-and-swap and
 *   is skipped.
 * - Killed before the compare-and-swap: nothing happened. After it: the completion counts as delivered.
 * - The head is a hint that any poller may have moved or scribbled over; positions outside the ring end the poll.
 * - A queue pair this session has not opened (somebody else's, on a shared completion queue) stops the poll there until
 *   the broker has sent its segment; waits are woken then.
 */
import {
  type CompletionQueueGeometry,
  completionEntry,
  completionQueueHeader,
  packReference,
  referenceQueuePair,
  referenceSide,
  referenceSlot,
  side,
} from '../protocol/completion-queue-segment.js'
import { SharedVerbsError } from '../protocol/errors.js'
import { opcode, operationOpcode, outcomeStatus } from '../protocol/opcodes.js'
import { receiveSlot, sendSlot } from '../protocol/queue-pair-segment.js'
import type { Mapping } from '../shm/mapping.js'
import { doneToFree, generationOf, SLOT_DONE, stateOf } from '../shm/slot-state.js'
import type { Words } from '../shm/words.js'
import type { Attachment } from './attachment.js'
import type { CompletionBatch } from './completion.js'
import type { QueuePairSegment, SlotQueue } from './queue-pair-segment.js'

const HEAD = completionQueueHeader.word.head
const TAIL = completionQueueHeader.word.tail
const ENTRY_WORDS = completionEntry.byteLength / 4
const ENTRY_REFERENCE = completionEntry.word.reference
const ENTRY_GENERATION = completionEntry.word.generation

const SEND_ID = sendSlot.offset.id / 8
const SEND_BYTE_LENGTH = sendSlot.offset.byteLength / 8
const SEND_STATUS = sendSlot.word.status
const SEND_OPERATION = sendSlot.word.operation
const RECEIVE_ID = receiveSlot.offset.id / 8
const RECEIVE_BYTE_LENGTH = receiveSlot.offset.byteLength / 8
const RECEIVE_OPERATION = receiveSlot.word.operation
const RECEIVE_IMMEDIATE = receiveSlot.word.immediate
const SOURCE_NODE = receiveSlot.word.sourceNode
const SOURCE_NUMBER = receiveSlot.word.sourceNumber
const SOURCE_GENERATION = receiveSlot.word.sourceGeneration

/** A poller that is overtaken by others this often in one call gives the rest to them. */
const OVERTAKEN_LIMIT = 64

/** Entries read by one look at the head. */
const READ_AHEAD = 64
/** Their copies; one for the thread, because polling never awaits. */
const readReferences = new Int32Array(READ_AHEAD)
const readGenerations = new Int32Array(READ_AHEAD)

/** What to do with an entry that is not simply taken. */
const TAKE = 0
const SKIP = 1
const STOP = 2

export class Poller {
  readonly #words: Words
  readonly #entries: number
  readonly #capacity: number
  readonly #attachment: Attachment
  /** References to these queue pairs before this position lead nowhere: closed, their completions taken or gone. */
  readonly #departed = new Map<number, number>()
  /** Number of the queue pair whose segment is on its way; -1: none. */
  #adopting = -1
  #lastNumber = -1
  #lastSegment: QueuePairSegment | undefined

  constructor(attachment: Attachment, mapping: Mapping, geometry: CompletionQueueGeometry) {
    this.#attachment = attachment
    this.#words = mapping.words
    this.#entries = geometry.entriesOffset / 4
    this.#capacity = geometry.capacity
  }

  /** Appends claimed completions to the batch, at most `most` rows in all. */
  poll(batch: CompletionBatch, most: number): void {
    for (let attempt = 0; attempt < OVERTAKEN_LIMIT; attempt++) {
      if (this.#pollFrom(this.#words.load(HEAD), batch, most)) return
    }
  }

  /** False: other pollers have moved the head past what was being read; begin again there. */
  #pollFrom(head: number, batch: CompletionBatch, most: number): boolean {
    const words = this.#words
    const pending = (words.load(TAIL) - head) | 0
    if (pending > this.#capacity) return false
    const end = (head + pending) | 0
    let position = head
    for (let left = pending; left > 0 && batch.count < most; left = (end - position) | 0) {
      const count = Math.min(left, most - batch.count, READ_AHEAD)
      this.#read(position, count)
      if (((words.load(HEAD) - position) | 0) > 0) return false
      const taken = this.#takeRead(batch, position, count)
      position = (position + taken) | 0
      if (taken < count) break
    }
    if (position !== head) this.#advance(head, position)
    return true
  }

  /**
   * Copies entries that the tail has published. The exchange keeps these plain reads before the look at the head that follows, on any
   * processor: what was read belongs to this lap if the head has not come past it even then.
   */
  #read(position: number, count: number): void {
    const words = this.#words
    for (let index = 0; index < count; index++) {
      const entry = this.#entries + ((position + index) & (this.#capacity - 1)) * ENTRY_WORDS
      readReferences[index] = words.peek(entry + ENTRY_REFERENCE)
      readGenerations[index] = words.peek(entry + ENTRY_GENERATION)
    }
    words.or(HEAD, 0)
  }

  /** How many of the entries read are dealt with; fewer than `count`: the next one's segment is not there. */
  #takeRead(batch: CompletionBatch, position: number, count: number): number {
    for (let index = 0; index < count; index++) {
      if (!this.#take(batch, readReferences[index]!, readGenerations[index]!, (position + index) | 0)) return index
    }
    return count
  }

  /** True if a poll would return something now. Moves the head over what leads nowhere. */
  available(): boolean {
    const words = this.#words
    const head = words.load(HEAD)
    const pending = Math.min((words.load(TAIL) - head) | 0, this.#capacity)
    if (pending <= 0 && this.#departed.size > 0) this.#departed.clear()
    let position = head
    let outcome = SKIP
    for (let looked = 0; looked < pending; looked++) {
      const entry = this.#entries + (position & (this.#capacity - 1)) * ENTRY_WORDS
      const generation = words.load(entry + ENTRY_GENERATION)
      outcome = this.#look(words.load(entry + ENTRY_REFERENCE), generation, position)
      if (outcome !== SKIP) break
      position = (position + 1) | 0
    }
    if (position !== head) this.#advance(head, position)
    return outcome === TAKE
  }

  /** Failure means that somebody else has moved it, which is as good. */
  #advance(head: number, position: number): void {
    if (this.#words.compareExchange(HEAD, head, position) !== head) return
    if (((this.#words.load(TAIL) - head) | 0) >= this.#capacity) this.#attachment.wakeEngine()
  }

  /** True if the broker has no room to publish more. */
  get full(): boolean {
    return ((this.#words.load(TAIL) - this.#words.load(HEAD)) | 0) >= this.#capacity
  }

  /**
   * Takes all completions of one queue pair that the ring refers to, wherever they stand, and leaves the entries to be
   * skipped. For a queue pair that is closed: nothing is published for it any more.
   */
  takeAllOf(segment: QueuePairSegment, batch: CompletionBatch): void {
    const words = this.#words
    const head = words.load(HEAD)
    const tail = words.load(TAIL)
    const pending = Math.min((tail - head) | 0, this.#capacity)
    for (let index = 0; index < pending && batch.count < batch.capacity; index++) {
      const entry = this.#entries + ((head + index) & (this.#capacity - 1)) * ENTRY_WORDS
      const reference = words.load(entry + ENTRY_REFERENCE)
      const generation = words.load(entry + ENTRY_GENERATION)
      if (referenceQueuePair(reference) === segment.number) takeFrom(segment, reference, generation, batch)
    }
  }

  /** What the ring refers to of this queue pair up to now leads nowhere. */
  depart(number: number): void {
    this.#departed.set(number, this.#words.load(TAIL))
    this.forget(number)
  }

  /** Looks the segment up again when it is needed next. */
  forget(number: number): void {
    if (this.#lastNumber !== number) return
    this.#lastNumber = -1
    this.#lastSegment = undefined
  }

  /** False: stop here, the segment is not there. */
  #take(batch: CompletionBatch, reference: number, generation: number, position: number): boolean {
    const number = referenceQueuePair(reference)
    const segment = number === this.#lastNumber ? this.#lastSegment! : this.#segmentOf(number)
    if (segment === undefined) return this.#absent(number, position)
    if (takeFrom(segment, reference, generation, batch)) return true
    return this.#stale(segment, position)
  }

  #look(reference: number, generation: number, position: number): number {
    const number = referenceQueuePair(reference)
    const segment = this.#segmentOf(number)
    if (segment === undefined) return this.#absent(number, position) ? SKIP : STOP
    const queue = referenceSide(reference) === side.send ? segment.send : segment.receive
    const slot = referenceSlot(reference)
    if (slot < queue.slotCount) {
      const state = segment.words.load(queue.slotBase + slot * queue.slotWords)
      if (stateOf(state) === SLOT_DONE && generationOf(state) === generation) return TAKE
    }
    return this.#stale(segment, position) ? SKIP : STOP
  }

  #segmentOf(number: number): QueuePairSegment | undefined {
    const segment = this.#attachment.segments.get(number)
    this.#lastNumber = segment === undefined ? -1 : number
    this.#lastSegment = segment
    return segment
  }

  #hasDeparted(number: number, position: number): boolean {
    const until = this.#departed.get(number)
    return until !== undefined && ((until - position) | 0) > 0
  }

  /** A reference to a queue pair that is not mapped here. True: skip it. */
  #absent(number: number, position: number): boolean {
    if (this.#hasDeparted(number, position)) return true
    if (this.#adopting < 0 && !this.#attachment.ended) void this.#adopt(number)
    return false
  }

  async #adopt(number: number): Promise<void> {
    this.#adopting = number
    try {
      await this.#attachment.adopt(number)
    } catch (error) {
      // A slow broker is asked again by the next poll. Anything else is an answer: its completions went with it.
      if (!(error instanceof SharedVerbsError) || error.code !== 'timeout') this.depart(number)
    } finally {
      this.#adopting = -1
      this.#attachment.doorbell.ring()
    }
  }

  /**
   * An entry whose slot says something else: taken before, skip it. Unless the mapping is of a queue pair that is
   * closed: then the number may have been issued again, and the entry be the new one's.
   */
  #stale(segment: QueuePairSegment, position: number): boolean {
    if (!segment.brokerClosed || this.#hasDeparted(segment.number, position) || segment.hasDone()) return true
    this.#attachment.dismiss(segment)
    return this.#absent(segment.number, position)
  }
}

/** Claims one completion and appends it to the batch. False: it is not there any more. */
export function takeFrom(
  segment: QueuePairSegment,
  reference: number,
  generation: number,
  batch: CompletionBatch,
): boolean {
  const isSend = referenceSide(reference) === side.send
  const queue = isSend ? segment.send : segment.receive
  const slot = referenceSlot(reference)
  if (slot >= queue.slotCount) return false
  const base = queue.slotBase + slot * queue.slotWords
  // The broker wrote the result before the entry that was loaded; it is ours if the slot still has this generation
  // afterwards.
  if (isSend) copySend(segment, base, batch)
  else copyReceive(segment, base, batch)
  if (!doneToFree(segment.words, base, generation)) return false
  batch.count++
  return true
}

/** Takes what lies done in slots without being referred to, in posting order. For a queue pair that is closed. */
export function takeUnreferred(segment: QueuePairSegment, onSide: number, batch: CompletionBatch): void {
  const queue = onSide === side.send ? segment.send : segment.receive
  for (const { slot, generation } of doneSlots(segment, queue)) {
    if (batch.count < batch.capacity) takeFrom(segment, packReference(segment.number, onSide, slot), generation, batch)
  }
}

function doneSlots(segment: QueuePairSegment, queue: SlotQueue): { slot: number; generation: number }[] {
  const found: { slot: number; generation: number; position: number }[] = []
  for (let slot = 0; slot < queue.slotCount; slot++) {
    const base = queue.slotBase + slot * queue.slotWords
    const word = segment.words.load(base)
    if (stateOf(word) !== SLOT_DONE) continue
    found.push({ slot, generation: generationOf(word), position: segment.words.load(base + queue.position) })
  }
  return found.sort((one, other) => (one.position - other.position) | 0)
}

function copySend(segment: QueuePairSegment, base: number, batch: CompletionBatch): void {
  const { u32, f64 } = segment.memory
  const wide = base >>> 1
  const row = batch.count
  batch.id[row] = f64[wide + SEND_ID]!
  batch.opcode[row] = operationOpcode(u32[base + SEND_OPERATION]!)
  batch.status[row] = u32[base + SEND_STATUS]!
  batch.byteLength[row] = f64[wide + SEND_BYTE_LENGTH]!
  batch.immediate[row] = 0
  batch.queuePair[row] = segment.number
}

function copyReceive(segment: QueuePairSegment, base: number, batch: CompletionBatch): void {
  const { u32, f64 } = segment.memory
  const wide = base >>> 1
  const row = batch.count
  const operation = u32[base + RECEIVE_OPERATION]!
  const withImmediate = operationOpcode(operation) === opcode.receiveWithImmediate
  batch.id[row] = f64[wide + RECEIVE_ID]!
  // A receive that no message was matched to says nothing about its kind.
  batch.opcode[row] = withImmediate ? opcode.receiveWithImmediate : opcode.receive
  batch.status[row] = outcomeStatus(operation)
  batch.byteLength[row] = f64[wide + RECEIVE_BYTE_LENGTH]!
  batch.immediate[row] = withImmediate ? u32[base + RECEIVE_IMMEDIATE]! : 0
  batch.queuePair[row] = segment.number
  batch.sourceNode[row] = u32[base + SOURCE_NODE]!
  batch.sourceNumber[row] = u32[base + SOURCE_NUMBER]!
  batch.sourceGeneration[row] = u32[base + SOURCE_GENERATION]!
}
