/**
 * The order in which slots of one queue pair were posted: a ring of slot references.
 *
 *            head (consumer)            tail (commit, stored by the lock's holder)
 *              ▼                          ▼
 *   ┌────┬────┬────┬────┬────┬────┬────┬────┬────┐
 *   │old │old │ 7  │ 3  │ 1  │ 9  │ 4  │draft│   │      entry = slot index + 1
 *   └────┴────┴────┴────┴────┴────┴────┴────┴────┘
 *              └──── committed, in order ──┘  └ a killed producer's draft: overwritten by the next
 *
 * Invariants:
 * - Entries are written first, then one store of the tail commits the whole list. Pairs with the consumer's load of the
 *   tail.
 * - Only the holder of the queue pair's robust lock appends, so there is one producer at a time. Repair after a dead
 *   holder is empty: what it did not commit does not exist.
 * - Positions run freely through 32 bits and are masked when used; they compare by signed difference.
 * - Capacity is a power of two and at least the number of slots; a slot is in the ring at most once, so a ring that
 *   seems full has been scribbled over.
 * - The consumer trusts nothing it reads: tail beyond capacity, tail behind head or an entry that is no slot is
 *   CORRUPT. It keeps head and capacity privately; the shared head is for producers, for inspection and for its
 *   successor.
 * - The consumer stores the head before it executes or frees any of the slots it took. Then a successor finds at the
 *   head only entries whose slot is still claimed (not yet taken) or already past claimed (taken: skip them first), and
 *   no slot can have been claimed anew under an old entry.
 */
import { cacheLine, layout, word } from './layout.js'
import type { Words } from './words.js'

/** Two lines: producers write one, the consumer the other. Entries follow, `capacity` words. */
export const referenceRingLayout = layout('reference ring', {
  tail: word(),
  tailLine: cacheLine(),
  head: word(),
  headLine: cacheLine(),
})

const TAIL = referenceRingLayout.word.tail
const HEAD = referenceRingLayout.word.head
const ENTRIES = referenceRingLayout.byteLength / 4

/** Nothing is committed beyond the head. */
export const EMPTY = -1
/** The ring cannot be what honest producers left: fail the queue pair. */
export const CORRUPT = -2

/** Smallest capacity for a number of slots. */
export function ringCapacity(slotCount: number): number {
  // An integer: what a power gives is kept as a floating-point number, and so would be all that is computed with it.
  return (2 ** Math.ceil(Math.log2(Math.max(slotCount, 1)))) | 0
}

export function ringByteLength(capacity: number): number {
  return referenceRingLayout.byteLength + capacity * 4
}

/**
 * Commits `count` slots in order. The caller holds the robust lock; the slots are claimed and their bodies written.
 * False, with nothing committed: the ring is corrupt, undo the claims. `base` counts 32-bit words.
 */
export function append(words: Words, base: number, capacity: number, slots: Int32Array, count: number): boolean {
  const tail = words.load(base + TAIL)
  const used = (tail - words.load(base + HEAD)) | 0
  if (used < 0 || used + count > capacity) return false
  const entries = base + ENTRIES
  for (let index = 0; index < count; index++) {
    words.put(entries + ((tail + index) & (capacity - 1)), slots[index]! + 1)
  }
  words.store(base + TAIL, (tail + count) | 0)
  return true
}

/** The single consumer of one ring. */
export class ReferenceRingConsumer {
  readonly #words: Words
  readonly #base: number
  readonly #entries: number
  readonly #capacity: number
  readonly #slotCount: number
  #head: number

  /**
   * Goes on where the shared head says: 0 in a new ring, the predecessor's in an adopted one. `base` counts 32-bit
   * words.
   */
  constructor(words: Words, base: number, capacity: number, slotCount: number) {
    this.#words = words
    this.#base = base
    this.#entries = base + ENTRIES
    this.#capacity = capacity
    this.#slotCount = slotCount
    this.#head = words.load(base + HEAD)
  }

  /** Position of the entry at the head; the slot's sequence number. */
  get position(): number {
    return this.#head
  }

  /** How many entries are committed, or CORRUPT. One load for a whole visit; bounded by the capacity. */
  pending(): number {
    const count = (this.#words.load(this.#base + TAIL) - this.#head) | 0
    return count < 0 || count > this.#capacity ? CORRUPT : count
  }

  /**
   * Slot index of the committed entry `offset` after the head, or CORRUPT. Read once: the entry may change under us.
   */
  slotAt(offset: number): number {
    const entry = this.#words.peek(this.#entries + ((this.#head + offset) & (this.#capacity - 1)))
    return entry > 0 && entry <= this.#slotCount ? entry - 1 : CORRUPT
  }

  /** Slot index at the head, EMPTY or CORRUPT. */
  peek(): number {
    const count = this.pending()
    if (count <= 0) return count === 0 ? EMPTY : CORRUPT
    return this.slotAt(0)
  }

  /** Gives `count` taken entries back to producers. Before any of their slots is executed or freed. */
  advance(count = 1): void {
    this.#head = (this.#head + count) | 0
    this.#words.store(this.#base + HEAD, this.#head)
  }
}
