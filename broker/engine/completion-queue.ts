/**
 * Publishing completions. A finished request is first committed in its slot (result, then done|generation), then a reference goes into
 * the completion ring. A full ring is back-pressure: the request waits here in order, its slot holds the result, nothing else stalls.
 *
 * One store of the tail for a whole turn's completions; then whoever is armed is rung.
 */
import {
  completionEntry,
  completionQueueGeometry,
  completionQueueHeader,
  packReference,
} from '../../protocol/completion-queue-segment.js'
import type { Mapping } from '../../shm/mapping.js'
import type { Words } from '../../shm/words.js'

const TAIL = completionQueueHeader.word.tail
const HEAD = completionQueueHeader.word.head
const ARMED_ROOT = completionQueueHeader.word.armedRoot
const SOLICITED_ROOT = completionQueueHeader.word.solicitedRoot
const ARMED_LEAF = completionQueueHeader.word.armedLeaf
const SOLICITED_LEAF = completionQueueHeader.word.solicitedLeaf
const ENTRY_WORDS = completionEntry.byteLength / 4
const ROOT_WORDS = 2
/** Requests that ended for one wake-up, from which on it pays to wait for more, and how many of them are enough. */
const STREAM = 8
const ENOUGH_MOST = 512
/** The longest such wait. */
const WAIT_MS = 0.4

/** Whose completion it is; `unpublished` counts those that found no room yet. */
export interface Completer {
  readonly number: number
  unpublished: number
}

/** One completion that found no room: kept until a poller moves the head. */
interface Waiting {
  readonly completer: Completer
  readonly reference: number
  readonly generation: number
  readonly urgent: boolean
}

export class EngineCompletionQueue {
  readonly number: number
  readonly generation: number
  readonly job: number
  readonly mapping: Mapping
  readonly capacity: number
  /** Queue pairs that complete here. */
  users = 0
  failed = false
  /** Requests that ended here, also those that asked for no completion. */
  ended = 0
  readonly #words: Words
  readonly #entries: number
  readonly #waiting: Waiting[] = []
  #tail: number
  #published: number
  /** Something must wake even those who armed for solicited completions only. */
  #urgent = false
  /** On the engine's list of rings to publish, and of those whose waiters are to be woken. */
  queued = false
  unrung = false
  /** When it came onto the latter. */
  unrungMs = 0
  /** How many had ended when waiters were last woken, and since the time before. */
  #rungAt = 0
  #lastBurst = 0
  readonly #enough: number

  constructor(of: { number: number; generation: number; job: number; capacity: number }, mapping: Mapping) {
    this.number = of.number
    this.generation = of.generation
    this.job = of.job
    this.mapping = mapping
    const geometry = completionQueueGeometry(of.capacity)
    this.capacity = geometry.capacity
    this.#enough = Math.min(geometry.capacity >>> 2, ENOUGH_MOST)
    this.#words = mapping.words
    this.#entries = geometry.entriesOffset / 4
    this.#tail = mapping.words.load(TAIL)
    this.#published = this.#tail
  }

  /** Completions that wait for room. */
  get backlog(): number {
    return this.#waiting.length
  }

  /**
   * Adds a reference. `urgent`: errors, send completions and solicited receives wake everybody. False: the ring is full; the reference
   * waits here and counts in the completer's `unpublished`.
   */
  push(completer: Completer, side: number, slot: number, generation: number, urgent: boolean): boolean {
    const reference = packReference(completer.number, side, slot)
    if (this.#waiting.length > 0 || !this.#hasRoom()) {
      this.#waiting.push({ completer, reference, generation, urgent })
      completer.unpublished++
      return false
    }
    this.#put(reference, generation, urgent)
    return true
  }

  #put(reference: number, generation: number, urgent: boolean): void {
    const at = this.#entries + (this.#tail & (this.capacity - 1)) * ENTRY_WORDS
    // Published by the tail.
    this.#words.put(at, reference)
    this.#words.put(at + 1, generation)
    this.#tail = (this.#tail + 1) | 0
    this.#urgent ||= urgent
    this.ended++
  }

  /** The head is a hint written by clients: a value that cannot be is taken as "no room", never as room; an old one is too little room. */
  #hasRoom(): boolean {
    const used = (this.#tail - this.#words.peek(HEAD)) | 0
    return used >= 0 && used < this.capacity
  }

  /** Moves waiting completions into the ring; true if any went. `published`: a completer has none waiting any more. */
  refill(published: (completer: Completer) => void): boolean {
    let moved = 0
    while (moved < this.#waiting.length && this.#hasRoom()) {
      const waiting = this.#waiting[moved++]!
      this.#put(waiting.reference, waiting.generation, waiting.urgent)
      waiting.completer.unpublished--
      if (waiting.completer.unpublished === 0) published(waiting.completer)
    }
    if (moved > 0) this.#waiting.splice(0, moved)
    return moved > 0
  }

  /** Nobody will read this completer's results any more. */
  abandon(completer: Completer): void {
    const kept = this.#waiting.filter((waiting) => waiting.completer !== completer)
    this.#waiting.splice(0, this.#waiting.length, ...kept)
    completer.unpublished = 0
  }

  /** Stores the tail; pairs with the pollers' load. `ringPublished` must follow before the engine sleeps. */
  publish(): void {
    this.#published = this.#tail
    this.#words.store(TAIL, this.#published)
  }

  /** The last wake-up was for many completions: the next ones had better come together as well, if they come soon. */
  awaitsMore(nowMs: number): boolean {
    const isStream = this.#lastBurst >= STREAM && this.ended - this.#rungAt < this.#enough
    return isStream && nowMs - this.unrungMs < WAIT_MS
  }

  /** Wakes whoever is armed. Returns how many were rung. */
  ringPublished(ring: (member: number) => void): number {
    let rung = this.#ringArmed(ARMED_ROOT, ARMED_LEAF, ring)
    if (this.#urgent) rung += this.#ringArmed(SOLICITED_ROOT, SOLICITED_LEAF, ring)
    this.#urgent = false
    if (rung > 0) {
      this.#lastBurst = this.ended - this.#rungAt
      this.#rungAt = this.ended
    }
    return rung
  }

  /** Rings every armed member, whatever is in the ring: after an error of the queue itself. */
  ringAll(ring: (member: number) => void): void {
    this.#ringArmed(ARMED_ROOT, ARMED_LEAF, ring)
    this.#ringArmed(SOLICITED_ROOT, SOLICITED_LEAF, ring)
  }

  #ringArmed(root: number, leaf: number, ring: (member: number) => void): number {
    let rung = 0
    for (let high = 0; high < ROOT_WORDS; high++) {
      // The load pairs with the waiter's OR: it armed, then looked at the tail once more.
      if (this.#words.load(root + high) === 0) continue
      let leaves = this.#words.exchange(root + high, 0)
      while (leaves !== 0) {
        const low = 31 - Math.clz32(leaves & -leaves)
        leaves &= leaves - 1
        let members = this.#words.exchange(leaf + high * 32 + low, 0)
        while (members !== 0) {
          const bit = 31 - Math.clz32(members & -members)
          members &= members - 1
          ring((high * 32 + low) * 32 + bit)
          rung++
        }
      }
    }
    return rung
  }
}
