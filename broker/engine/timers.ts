/** One-shot timers of the engine, turned by hand with the turn's clock. Few at a time: connects, parked requests, retries. */
interface Timer {
  readonly dueMs: number
  readonly run: () => void
}

export class Timers {
  #timers: Timer[] = []
  #nextMs = Number.POSITIVE_INFINITY

  after(nowMs: number, delayMs: number, run: () => void): void {
    const dueMs = nowMs + delayMs
    this.#timers.push({ dueMs, run })
    this.#nextMs = Math.min(this.#nextMs, dueMs)
  }

  /** Runs what is due; how many. */
  run(nowMs: number): number {
    if (nowMs < this.#nextMs) return 0
    const due = this.#timers.filter((timer) => timer.dueMs <= nowMs)
    this.#timers = this.#timers.filter((timer) => timer.dueMs > nowMs)
    this.#nextMs = this.#timers.reduce((next, timer) => Math.min(next, timer.dueMs), Number.POSITIVE_INFINITY)
    for (const timer of due) timer.run()
    return due.length
  }

  nextMs(nowMs: number): number {
    return Math.max(0, this.#nextMs - nowMs)
  }
}
