/**
 * Looking again and again before going to sleep, with the core given away in between. An engine that turns on another core answers within
 * microseconds, and being woken from there takes thirty. An engine on the same core needs that core to answer: then a sleep is best. Each
 * wait that found nothing this way makes more of the following ones sleep at once, so that who waits for rare events computes nothing.
 *
 * Waker: nobody; the caller's look. Bound: the number of yields, and one that somebody who computes made long.
 */
import { clock, schedulerYield } from '../shm/libc.js'

/** Two ways through two brokers, on cores that others use as well. */
const MOST_YIELDS = 100
/** A yield that took this long was a slice of somebody who computes. */
const FOREIGN_MS = 0.3
/** At most 2^this waits in a row sleep at once. */
const MOST_DOUBLINGS = 10

export class Patience {
  #failures = 0
  #sleeps = 0

  /** True as soon as `look` is; false: go to sleep. */
  wait(look: () => boolean, isEngineBeside: () => boolean): boolean {
    if (this.#sleeps > 0) {
      this.#sleeps--
      return false
    }
    let nowMs = clock.nowMs()
    for (let yields = 0; yields < MOST_YIELDS && isEngineBeside(); yields++) {
      schedulerYield()
      if (look()) {
        this.#failures = 0
        return true
      }
      const thenMs = nowMs
      nowMs = clock.nowMs()
      if (nowMs - thenMs > FOREIGN_MS) break
    }
    this.#sleeps = 2 ** this.#failures
    this.#failures = Math.min(this.#failures + 1, MOST_DOUBLINGS)
    return false
  }
}
