/** States met before, as 64-bit hashes in an open-addressed table: 8 bytes a state, no objects. */

/** Small: a replay sees few, and there are many replays when a schedule is shortened. */
const FIRST_CAPACITY = 1 << 8

export class Seen {
  /** Two words a state; 0, 0 is an empty place. */
  #table = new Int32Array(FIRST_CAPACITY * 2)
  #mask = FIRST_CAPACITY - 1
  size = 0

  /** True if the state is new. */
  add(low: number, high: number): boolean {
    const first = low === 0 && high === 0 ? 1 : low
    if (!insert(this.#table, this.#mask, first, high)) return false
    this.size++
    if (this.size * 2 > this.#mask) this.#grow()
    return true
  }

  #grow(): void {
    const before = this.#table
    const mask = this.#mask * 2 + 1
    const table = new Int32Array((mask + 1) * 2)
    for (let at = 0; at < before.length; at += 2) {
      const low = before[at]!
      const high = before[at + 1]!
      if (low !== 0 || high !== 0) insert(table, mask, low, high)
    }
    this.#table = table
    this.#mask = mask
  }
}

function insert(table: Int32Array, mask: number, low: number, high: number): boolean {
  let at = (low ^ Math.imul(high, 0x9e3779b1)) & mask
  for (;;) {
    const foundLow = table[at * 2]!
    const foundHigh = table[at * 2 + 1]!
    if (foundLow === low && foundHigh === high) return false
    if (foundLow === 0 && foundHigh === 0) {
      table[at * 2] = low
      table[at * 2 + 1] = high
      return true
    }
    at = (at + 1) & mask
  }
}

/** Mixes two words into one; the finaliser of a well-known 32-bit hash. */
export function mix(seed: number, value: number): number {
  let hash = Math.imul(seed ^ Math.imul(value, 0x9e3779b1), 0x85ebca6b)
  hash ^= hash >>> 13
  hash = Math.imul(hash, 0xc2b2ae35)
  return hash ^ (hash >>> 16)
}
