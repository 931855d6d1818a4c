/** A clock that tests turn by hand: timers fire when it is told that time has passed, and never otherwise. */
import type { Clock, Timer } from '../../../broker/control/clock.js'

interface Waiting {
  dueMs: number
  readonly periodMs: number | null
  readonly action: () => void
}

export class ManualClock implements Clock {
  #nowMs = 0
  readonly #waiting = new Set<Waiting>()

  nowMs(): number {
    return this.#nowMs
  }

  wallTimeMs(): number {
    return Date.now()
  }

  after(delayMs: number, action: () => void): Timer {
    return this.#wait({ dueMs: this.#nowMs + Math.max(0, delayMs), periodMs: null, action })
  }

  every(periodMs: number, action: () => void): Timer {
    return this.#wait({ dueMs: this.#nowMs + periodMs, periodMs, action })
  }

  advance(durationMs: number): void {
    const endMs = this.#nowMs + durationMs
    for (let next = this.#next(endMs); next; next = this.#next(endMs)) {
      this.#nowMs = Math.max(this.#nowMs, next.dueMs)
      if (next.periodMs === null) this.#waiting.delete(next)
      else next.dueMs += next.periodMs
      next.action()
    }
    this.#nowMs = endMs
  }

  #wait(waiting: Waiting): Timer {
    this.#waiting.add(waiting)
    return { cancel: () => void this.#waiting.delete(waiting) }
  }

  #next(endMs: number): Waiting | undefined {
    const due = [...this.#waiting].filter(({ dueMs }) => dueMs <= endMs)
    return due.reduce<Waiting | undefined>((first, one) => (first && first.dueMs <= one.dueMs ? first : one), undefined)
  }
}
