/**
 * Sends of a connected flow that left straight from the ring (`straight.ts`) and have no verdict yet: nearly all of them are delivered in
 * order, and what was never written as a record needs not be read as one. They stand behind the flow's records; whoever wants to look at a
 * single one, or to put a record behind them, turns them into records first (`Flow.inFlight`).
 *
 *   head ─► slot, generation, flags, sequence, byteLength, offset, frame │ the next …      one array: a message touches one cache line of it
 */
import { ringCapacity } from '../../shm/reference-ring.js'
import type { Region } from './region.js'

/** Words of one of them. */
const WORDS = 8

export const straightSend = {
  slot: 0,
  generation: 1,
  flags: 2,
  sequence: 3,
  byteLength: 4,
  /** Of its bytes in the region; unsigned. */
  offset: 5,
  /** The lane's frame in which it stands. */
  frame: 6,
} as const

export class StraightSends {
  size = 0
  /** The lane that all of them left on. */
  shared = 0
  readonly words: Int32Array
  readonly #regions: (Region | null)[]
  readonly #mask: number
  #head = 0

  /** Each slot stands here at most once, so there is always room. */
  constructor(slots: number) {
    const capacity = ringCapacity(slots)
    this.#mask = capacity - 1
    this.words = new Int32Array(capacity * WORDS)
    this.#regions = Array.from({ length: capacity }, () => null)
  }

  /** First word of the oldest one. */
  get first(): number {
    return this.#head * WORDS
  }

  /** First word of the next one, which is written now. */
  add(region: Region): number {
    const place = (this.#head + this.size++) & this.#mask
    this.#regions[place] = region
    return place * WORDS
  }

  /** What the oldest one names; it counts as used until that is done with. */
  get region(): Region {
    return this.#regions[this.#head]!
  }

  /** The oldest one is done with. */
  drop(): void {
    this.#head = (this.#head + 1) & this.#mask
    this.size--
  }

  /** Sequence of the one that came last. */
  get lastSequence(): number {
    return this.words[((this.#head + this.size - 1) & this.#mask) * WORDS + straightSend.sequence]!
  }
}
