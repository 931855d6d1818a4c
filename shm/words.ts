/**
 * Shared 32-bit words: the only module that calls `Atomics`.
 *
 * Every word that two processes look at is read and written here and nowhere else (the tidy test enforces it), so that
 * the flag protocols of this project (publish, then look who is armed; arm, then look again) are sequentially consistent.
 * Values are signed 32-bit integers; fields are cut out with `>>>`, positions compare by `(a - b) | 0`.
 *
 * Algorithms take the `Words` interface, not the class: the explorer in tests/model replaces it and steps real code
 * access by access.
 */
export interface Words {
  load(index: number): number
  store(index: number, value: number): void
  /**
   * Plain reading and writing, for words that another word guards; a tenth of the cost. `peek`: behind the `load` that published the word, or
   * a guess that a compare-and-swap verifies. `put`: before the `store` that publishes it, or for nobody but a successor.
   */
  peek(index: number): number
  put(index: number, value: number): void
  /** Returns the value found; the exchange happened if it equals `expected`. */
  compareExchange(index: number, expected: number, replacement: number): number
  exchange(index: number, value: number): number
  add(index: number, value: number): number
  or(index: number, mask: number): number
  and(index: number, mask: number): number
  /** Sleeps while the word holds `expected`, at most `timeoutMs`. Returns why it ended; every return must be followed by a new look at the word. */
  wait(index: number, expected: number, timeoutMs: number): 'woken' | 'changed' | 'timeout'
  /** Wakes at most `count` sleepers; returns how many. */
  wake(index: number, count: number): number
}

/** The futex calls, given from outside so that this file knows no system library. Addresses are plain numbers. */
export interface Futex {
  wait(address: number, expected: number, timeoutMs: number): 'woken' | 'changed' | 'timeout'
  wake(address: number, count: number): number
}

export class SharedWords implements Words {
  readonly #array: Int32Array
  readonly #address: number
  readonly #futex: Futex

  /** `array` covers mapped memory that starts at `address`. */
  constructor(array: Int32Array, address: number, futex: Futex) {
    this.#array = array
    this.#address = address
    this.#futex = futex
  }

  load(index: number): number {
    return Atomics.load(this.#array, index)
  }

  store(index: number, value: number): void {
    Atomics.store(this.#array, index, value)
  }

  peek(index: number): number {
    return this.#array[index]!
  }

  put(index: number, value: number): void {
    this.#array[index] = value
  }

  compareExchange(index: number, expected: number, replacement: number): number {
    return Atomics.compareExchange(this.#array, index, expected, replacement)
  }

  exchange(index: number, value: number): number {
    return Atomics.exchange(this.#array, index, value)
  }

  add(index: number, value: number): number {
    return Atomics.add(this.#array, index, value)
  }

  or(index: number, mask: number): number {
    return Atomics.or(this.#array, index, mask)
  }

  and(index: number, mask: number): number {
    return Atomics.and(this.#array, index, mask)
  }

  wait(index: number, expected: number, timeoutMs: number): 'woken' | 'changed' | 'timeout' {
    return this.#futex.wait(this.#address + index * 4, expected, timeoutMs)
  }

  wake(index: number, count: number): number {
    return this.#futex.wake(this.#address + index * 4, count)
  }
}

/** 64-bit read-modify-write on mapped memory, for atomics that brokers execute. `index` counts 8-byte words. */
export const atomic64 = {
  add(array: BigInt64Array, index: number, value: bigint): bigint {
    return Atomics.add(array, index, value)
  },
  /** Returns the value found; the exchange happened if it equals `expected`. */
  compareExchange(array: BigInt64Array, index: number, expected: bigint, replacement: bigint): bigint {
    return Atomics.compareExchange(array, index, expected, replacement)
  },
  load(array: BigInt64Array, index: number): bigint {
    return Atomics.load(array, index)
  },
  store(array: BigInt64Array, index: number, value: bigint): void {
    Atomics.store(array, index, value)
  },
}
