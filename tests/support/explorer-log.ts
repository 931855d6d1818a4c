/**
 * What the accesses of an operation returned, as a tree: one node for each different past, shared by all states that have it. Code is
 * deterministic, so a node also knows what comes next, once the code was there: the search then does the access without the code.
 */
import type { Pending } from './explorer-actor.js'
import { mix } from './explorer-seen.js'

export class Log {
  readonly parent: Log | null
  readonly length: number
  /** The last access and what it returned. */
  readonly signature: number
  readonly result: number
  readonly low: number
  readonly high: number
  /** The next access joins a run of plain ones. */
  readonly inPlainRun: boolean
  /** Time that passed in sleeps. */
  readonly clockMs: number
  /** The access that the code does next, once that is known. */
  next: Pending | null = null
  /** Or the note. */
  act: (() => number) | null = null
  /** The operation ends here, with this. */
  ends = false
  returns: number | undefined
  #first: Log | null = null
  #others: Map<number, Log> | null = null

  constructor(
    parent: Log | null,
    signature: number,
    result: number,
    low: number,
    high: number,
    plain: boolean,
    ms: number,
  ) {
    this.parent = parent
    this.length = parent === null ? 0 : parent.length + 1
    this.signature = signature
    this.result = result
    this.low = low
    this.high = high
    this.inPlainRun = plain
    this.clockMs = ms
  }

  static root(): Log {
    return new Log(null, -1, 0, 1, 2, false, 0)
  }

  /** What follows when the next access returns this, if the search was there. */
  after(result: number): Log | undefined {
    const first = this.#first
    return first !== null && first.result === result ? first : this.#others?.get(result)
  }

  /** `told` stands for the result in the hash. */
  append(signature: number, result: number, told: number, plain: boolean, ms: number): Log {
    const made = new Log(this, signature, result, mixResult(this.low, told), mixResult(this.high, told), plain, ms)
    if (this.#first === null) this.#first = made
    else {
      this.#others ??= new Map()
      this.#others.set(result, made)
    }
    return made
  }

  /** The past of this length. */
  cut(length: number): Log {
    let log: Log = this
    while (log.length > length) log = log.parent!
    return log
  }
}

const bits = new Float64Array(1)
const halves = new Int32Array(bits.buffer)

function mixResult(seed: number, result: number): number {
  const whole = result | 0
  if (whole === result) return mix(seed, whole)
  bits[0] = result
  return mix(mix(seed, halves[0]!), halves[1]! + 1)
}
