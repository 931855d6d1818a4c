/** One-shot timers of the engine, turned by hand with the turn's clock. Few at a time: connects, parked requests, retries. */
export interface Timer {
  readonly dueMs: number
  readonly run: () => void
}

export class Timers {
  #timers: Timer[] = []
  #nextMs = Number.POSITIVE_INFINITY

  after(nowMs: number, delayMs: number, run: () => void): Timer {
    const timer = { dueMs: nowMs + delayMs, run }
    this.#timers.push(timer)
    this.#nextMs = Math.min(this.#nextMs, timer.dueMs)
    return timer
  }

  /** What it waited for has come; one that ran already may be given too. */
  cancel(timer: Timer): void {
    const index = this.#timers.indexOf(timer)
    if (index < 0) return
    this.#timers.splice(index, 1)
    this.#nextMs = this.#earliest()
  }

  /** Runs what is due; how many. */
  run(nowMs: number): number {
    if (nowMs < this.#nextMs) return 0
    const due = this.#timers.filter((timer) => timer.dueMs <= nowMs)
    this.#timers = this.#timers.filter((timer) => timer.dueMs > nowMs)
    this.#nextMs = this.#earliest()
    for (const timer of due) timer.run()
    return due.length
  }

  #earliest(): number {
    return this.#timers.reduce((next, timer) => Math.min(next, timer.dueMs), Number.POSITIVE_INFINITY)
  }

  nextMs(nowMs: number): number {
    return Math.max(0, this.#nextMs - nowMs)
  }
}
