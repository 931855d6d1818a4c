/**
 * The shared memory of an exploration: one buffer for every segment, and behind them the words in which a scenario keeps what it
 * knows (who holds, what was published). Every write is remembered, so that the search can take it back, and changes the hash of the
 * whole memory in place, so that a state is recognised without looking at all of it.
 */
import { mix } from './explorer-seen.js'

/** Members of a scenario, the broker included. */
export const MEMBERS = 8
const even = (count: number): number => (count + 1) & ~1

export class World {
  readonly i32: Int32Array
  readonly f64: Float64Array
  /** Words from here on are the scenario's own knowledge: nobody's code sees them, and changing them wakes nobody. */
  readonly knowledge: number
  low = 0
  high = 0
  /** Index and old value of each write. */
  #undo: number[] = []
  /** Called after a write of a watched word has changed it. */
  readonly watches = new Map<number, (found: number, value: number) => void>()
  /** Called after any word of the segments has changed; set by the explorer. */
  changed: (index: number) => void = () => {}

  #reserved: number
  readonly #wide = new Float64Array(1)
  readonly #halves = new Int32Array(this.#wide.buffer)

  constructor(segmentWords: number, knowledgeWords: number) {
    this.knowledge = even(segmentWords)
    this.#reserved = this.knowledge + MEMBERS
    const buffer = new ArrayBuffer(even(this.#reserved + knowledgeWords) * 4)
    this.i32 = new Int32Array(buffer)
    this.f64 = new Float64Array(buffer)
  }

  /** Word that is 1 when the kernel says that this member is dead. */
  dead(member: number): number {
    return this.knowledge + member
  }

  /** Words of knowledge for a scenario; the index of the first. */
  reserve(count: number): number {
    const first = this.#reserved
    this.#reserved += count
    if (this.#reserved > this.i32.length) throw new Error('a scenario knows more than it said')
    return first
  }

  read(index: number): number {
    return this.i32[index]!
  }

  write(index: number, value: number): void {
    const found = this.i32[index]!
    const stored = value | 0
    if (found === stored) return
    this.#undo.push(index, found)
    this.#set(index, found, stored)
    if (index >= this.knowledge) return
    this.changed(index)
    this.watches.get(index)?.(found, stored)
  }

  /** A 64-bit number; `index` counts pairs of words. */
  writeWide(index: number, value: number): void {
    this.#wide[0] = value
    this.write(index * 2, this.#halves[0]!)
    this.write(index * 2 + 1, this.#halves[1]!)
  }

  /** Position to return to. */
  get past(): number {
    return this.#undo.length
  }

  rewind(past: number): void {
    while (this.#undo.length > past) {
      const found = this.#undo.pop()!
      const index = this.#undo.pop()!
      this.#set(index, this.i32[index]!, found)
    }
  }

  #set(index: number, found: number, value: number): void {
    this.low ^= mix(index + 1, found) ^ mix(index + 1, value)
    this.high ^= mix(~index, found) ^ mix(~index, value)
    this.i32[index] = value
  }
}
