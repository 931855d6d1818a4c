/**
 * Receives that no message was matched to yet, in the order in which messages take them.
 *
 * Only slots are kept. What a receive says is copied out of its slot and checked when a message comes for it: thousands may be posted
 * ahead, and whatever is written for each at once is out of the caches by the time it is read.
 */
import { ringCapacity } from '../../shm/reference-ring.js'

export class PostedReceives {
  readonly #slots: Int32Array
  readonly #generations: Int32Array
  readonly #positions: Int32Array
  /** Taken from the ring and without an outcome yet, posted here or matched to a message. */
  readonly #taken: Uint8Array
  readonly #mask: number
  #head = 0
  size = 0

  /** Each slot stands here at most once, so there is always room. */
  constructor(slots: number) {
    const capacity = ringCapacity(slots)
    this.#slots = new Int32Array(capacity)
    this.#generations = new Int32Array(slots)
    this.#positions = new Int32Array(slots)
    this.#taken = new Uint8Array(slots)
    this.#mask = capacity - 1
  }

  isTaken(slot: number): boolean {
    return this.#taken[slot] !== 0
  }

  generationOf(slot: number): number {
    return this.#generations[slot]!
  }

  push(slot: number, generation: number, position: number): void {
    this.#taken[slot] = 1
    this.#generations[slot] = generation
    this.#positions[slot] = position
    this.#slots[(this.#head + this.size++) & this.#mask] = slot
  }

  /** The slot of the oldest one; -1: none is posted. */
  get first(): number {
    return this.size === 0 ? -1 : this.#slots[this.#head & this.#mask]!
  }

  /** The slot of the oldest one, which is matched to a message; -1: none is posted. */
  shift(): number {
    if (this.size === 0) return -1
    const slot = this.#slots[this.#head & this.#mask]!
    this.#head = (this.#head + 1) | 0
    this.size--
    return slot
  }

  /** The oldest one, which is this, has its outcome. */
  drop(slot: number): void {
    this.#head = (this.#head + 1) | 0
    this.size--
    this.#taken[slot] = 0
  }

  /** It has its outcome. */
  end(slot: number): void {
    this.#taken[slot] = 0
  }

  /** Ahead of all others: the next message is its. */
  unshift(slot: number): void {
    this.#head = (this.#head - 1) | 0
    this.#slots[this.#head & this.#mask] = slot
    this.size++
  }

  /** Matched to messages that will come again: back to their places in the posting order. A cold path. */
  giveBack(slots: readonly number[]): void {
    if (slots.length === 0) return
    const all = [...slots]
    for (let slot = this.shift(); slot >= 0; slot = this.shift()) all.push(slot)
    all.sort((one, other) => (this.#positions[one]! - this.#positions[other]!) | 0)
    for (const slot of all) this.#slots[(this.#head + this.size++) & this.#mask] = slot
  }
}
