/**
 * Sends of a connected flow that left straight from the ring (`straight.ts`) and have no verdict yet, as columns: nearly all of them are
 * delivered in order, and what was never written as a record needs not be read as one. They stand behind the flow's records; whoever wants to
 * look at a single one, or to put a record behind them, turns them into records first (`Flow.inFlight`).
 */
import { ringCapacity } from '../../shm/reference-ring.js'
import type { Region } from './region.js'

export class StraightSends {
  size = 0
  /** The lane that all of them left on. */
  shared = 0
  /** Place of the oldest one in the columns. */
  head = 0
  readonly slot: Int32Array
  readonly generation: Int32Array
  readonly flags: Int32Array
  readonly sequence: Int32Array
  readonly byteLength: Int32Array
  readonly offset: Uint32Array
  /** The lane's frame in which it stands. */
  readonly frame: Uint32Array
  readonly region: (Region | null)[]
  readonly #mask: number

  /** Each slot stands here at most once, so there is always room. */
  constructor(slots: number) {
    const capacity = ringCapacity(slots)
    this.#mask = capacity - 1
    this.slot = new Int32Array(capacity)
    this.generation = new Int32Array(capacity)
    this.flags = new Int32Array(capacity)
    this.sequence = new Int32Array(capacity)
    this.byteLength = new Int32Array(capacity)
    this.offset = new Uint32Array(capacity)
    this.frame = new Uint32Array(capacity)
    this.region = Array.from({ length: capacity }, () => null)
  }

  /** Where the next one is to be written; it counts from here on. */
  add(): number {
    return (this.head + this.size++) & this.#mask
  }

  /** The oldest one is done with. Its region is not forgotten: that it was used says nothing. */
  drop(): void {
    this.head = (this.head + 1) & this.#mask
    this.size--
  }

  /** Sequence of the one that came last. */
  get lastSequence(): number {
    return this.sequence[(this.head + this.size - 1) & this.#mask]!
  }
}
