/** Numbers that a seed decides, so that a schedule of faults can be had again. */
export interface Random {
  /** 0 to `bound` - 1. */
  below(bound: number): number
  /** 0 to 1. */
  part(): number
}

/** mulberry32 */
export function randomOf(seed: number): Random {
  let state = seed >>> 0
  const part = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  return { part, below: (bound) => Math.floor(part() * bound) }
}
