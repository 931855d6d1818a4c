/**
 * A condition variable of the event loop: whoever waits looks again each time somebody says that something changed.
 * Waker: `notify`. Deadline: the waiter's own, so a waker that never comes delays nobody longer than that.
 */
import type { Clock } from './clock.js'

export class Condition {
  readonly #clock: Clock
  readonly #waiting = new Set<(changed: boolean) => void>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get waiters(): number {
    return this.#waiting.size
  }

  notify(): void {
    for (const wake of [...this.#waiting]) wake(true)
  }

  /** What `look` finds, or undefined at the deadline. `look` may throw to end the wait. */
  async until<Found>(look: () => Found | undefined, deadlineMs: number): Promise<Found | undefined> {
    for (;;) {
      const found = look()
      if (found !== undefined) return found
      if (!(await this.#changed(deadlineMs))) return look()
    }
  }

  #changed(deadlineMs: number): Promise<boolean> {
    const leftMs = deadlineMs - this.#clock.nowMs()
    if (leftMs <= 0) return Promise.resolve(false)
    return new Promise((resolve) => {
      const wake = (changed: boolean): void => {
        timer.cancel()
        this.#waiting.delete(wake)
        resolve(changed)
      }
      const timer = this.#clock.after(leftMs, () => wake(false))
      this.#waiting.add(wake)
    })
  }
}
