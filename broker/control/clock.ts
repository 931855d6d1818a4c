/** Time as the control plane sees it: given from outside, so that tests turn it by hand. */

export interface Timer {
  /** May be called again. */
  cancel(): void
}

export interface Clock {
  /** Monotonic milliseconds from any fixed point, for deadlines. */
  nowMs(): number
  /** Milliseconds of the calendar, for what people read. */
  wallTimeMs(): number
  after(delayMs: number, action: () => void): Timer
  /** Keeps no process alive. */
  every(periodMs: number, action: () => void): Timer
}

/** Longer delays would wrap to one millisecond in setTimeout. */
const LONGEST_DELAY_MS = 2 ** 31 - 1

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  wallTimeMs: () => Date.now(),
  after(delayMs, action) {
    const handle = setTimeout(action, Math.min(Math.max(0, delayMs), LONGEST_DELAY_MS))
    return { cancel: () => clearTimeout(handle) }
  },
  every(periodMs, action) {
    const handle = setInterval(action, periodMs)
    handle.unref()
    return { cancel: () => clearInterval(handle) }
  },
}

/** A clock that remembers its timers: one call at the end of the broker's life cancels what anybody forgot. */
export class OwnedClock implements Clock {
  readonly #clock: Clock
  readonly #timers = new Set<Timer>()
  #ended = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  nowMs(): number {
    return this.#clock.nowMs()
  }

  wallTimeMs(): number {
    return this.#clock.wallTimeMs()
  }

  after(delayMs: number, action: () => void): Timer {
    const timer = this.#clock.after(delayMs, () => {
      this.#timers.delete(owned)
      action()
    })
    const owned = this.#own(timer)
    return owned
  }

  every(periodMs: number, action: () => void): Timer {
    return this.#own(this.#clock.every(periodMs, action))
  }

  /** From here on no timer of this clock fires, and none can be set. */
  end(): void {
    this.#ended = true
    for (const timer of [...this.#timers]) timer.cancel()
  }

  #own(timer: Timer): Timer {
    const owned: Timer = {
      cancel: () => {
        this.#timers.delete(owned)
        timer.cancel()
      },
    }
    if (this.#ended) timer.cancel()
    else this.#timers.add(owned)
    return owned
  }
}
