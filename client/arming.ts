/**
 * How a waiter tells the broker that it sleeps: one bit for each member in a bitmap of the completion queue.
 *
 *   waiter:  OR leaf bit ─► OR root bit ─► look at the ring again ─► sleep on the session's doorbell
 *   broker:  publish ─► load root; not 0: exchange root, then leaves, with 0 ─► ring the doorbell of each member found
 *
 * Leaf before root: a broker that took the root bit finds the leaf bit. A bit left behind costs one ring too many.
 */
import { completionQueueHeader } from '../protocol/completion-queue-segment.js'
import type { Words } from '../shm/words.js'

export class ArmedBit {
  readonly #words: Words
  readonly #leaf: number
  readonly #leafBit: number
  readonly #root: number
  readonly #rootBit: number

  constructor(words: Words, member: number, solicitedOnly: boolean) {
    const leaf = member >>> 5
    const { armedLeaf, armedRoot, solicitedLeaf, solicitedRoot } = completionQueueHeader.word
    this.#words = words
    this.#leaf = (solicitedOnly ? solicitedLeaf : armedLeaf) + leaf
    this.#leafBit = 1 << (member & 31)
    this.#root = (solicitedOnly ? solicitedRoot : armedRoot) + (leaf >>> 5)
    this.#rootBit = 1 << (leaf & 31)
  }

  set(): void {
    this.#words.or(this.#leaf, this.#leafBit)
    this.#words.or(this.#root, this.#rootBit)
  }

  /** False once the broker has taken it, to ring. */
  get isSet(): boolean {
    return (this.#words.load(this.#leaf) & this.#leafBit) !== 0
  }
}
