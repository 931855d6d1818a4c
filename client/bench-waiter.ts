/** Takes completions the way a measurement was told to wait for them, and ends it at the first that is no success. */
import type { BenchWait } from '../protocol/bench.js'
import { status } from '../protocol/statuses.js'
import { clock } from '../shm/libc.js'
import { CompletionBatch } from './completion.js'
import type { CompletionQueue } from './completion-queue.js'

/** As long as a neighbour on another core needs for an answer. */
const BRIEF_MS = 0.02
/** A wait this long has lost its broker or its peer. */
const patience = { timeoutMs: 20_000 } as const

export class Waiter {
  readonly batch = new CompletionBatch(256)
  readonly wait: BenchWait
  readonly #queue: CompletionQueue

  constructor(queue: CompletionQueue, wait: BenchWait) {
    this.#queue = queue
    this.wait = wait
  }

  /** What is there now, perhaps nothing. */
  poll(): number {
    const count = this.#queue.pollInto(this.batch)
    for (let row = 0; row < count; row++) if (this.batch.status[row] !== status.success) this.#fail(row)
    return count
  }

  /** At least one completion. Allocates nothing; an `event-loop` waits as `block` does here. */
  take(): number {
    let count = this.poll()
    if (count > 0) return count
    if (this.wait === 'brief' || this.wait === 'spin') {
      const giveUpMs = clock.nowMs() + (this.wait === 'spin' ? patience.timeoutMs : BRIEF_MS)
      while (count === 0 && clock.nowMs() < giveUpMs) count = this.poll()
    }
    while (count === 0 && this.wait !== 'spin' && this.#queue.waitSync(patience)) count = this.poll()
    if (count === 0) this.#starved()
    return count
  }

  /** At least one completion, with other work of the process going on meanwhile. */
  async takeLater(): Promise<number> {
    let count = this.poll()
    while (count === 0 && (await this.#queue.wait(patience))) count = this.poll()
    if (count === 0) this.#starved()
    return count
  }

  #starved(): never {
    throw new Error(`no completion within ${patience.timeoutMs} ms`)
  }

  #fail(row: number): never {
    throw new Error(`${this.batch.opcodeName(row)} ended as ${this.batch.statusName(row)}`)
  }
}
