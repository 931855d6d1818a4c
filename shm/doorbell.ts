/**
 * A bell that one sleeper hears and anybody may ring: an eventfd.
 *
 *   ringer                                   sleeper
 *   1 publish (word store)                   1 arm (word store)
 *   2 load armed ── set? ──► ring()          2 look again ── something there? ──► do not sleep
 *                              │             3 wait: returns at once if the bell was rung since the last drain
 *                              ▼
 *                    counter 0 → 1 → 2 …     drained by the wait, before the sleeper looks again
 *
 * Why a wake cannot be lost: both step 1s and step 2s go through `Words`, so in every order either the ringer sees the
 * sleeper armed or the sleeper sees what was published. A ring is remembered in the counter, so it does not matter
 * whether the sleeper was asleep yet. And the counter is drained before the sleeper looks, so a ring that comes after
 * the drain ends the next wait. What may happen is one wake too many: whoever wakes looks.
 *
 * Waker: whoever publishes. Deadline: the caller's. Dead waker: nobody rings; the sleeper's deadline ends the wait, or
 * the broker, which rings the sessions concerned when it sweeps the dead.
 *
 * One thread sleeps on one bell: two threads would steal each other's rings. Inside that thread any number of waits may
 * be pending; a ring ends all of them.
 */
import { DescriptorPoll } from './descriptor-poll.js'
import { closeDescriptor, eventfdCreate, eventfdDrain, eventfdSignal, pollDescriptors } from './libc.js'

export type WaitResult = 'rung' | 'timeout' | 'aborted'

export interface WaitOptions {
  /** Without it the wait ends only by a ring, an abort or `close()`. */
  timeoutMs?: number
  signal?: AbortSignal
}

const LONGEST_TIMER_MS = 2 ** 31 - 1

export class Doorbell {
  readonly fd: number
  readonly #fds: readonly number[]
  #open = true
  /** Started while somebody waits, so an idle bell keeps no process alive and a pending wait cannot be collected. */
  readonly #poll: DescriptorPoll
  readonly #waits = new Set<(result: WaitResult) => void>()

  /** `fd` is an eventfd, the bell's from here on. */
  constructor(fd: number) {
    this.fd = fd
    this.#fds = [fd]
    this.#poll = new DescriptorPoll(fd, () => void this.drain())
  }

  static create(): Doorbell {
    return new Doorbell(eventfdCreate())
  }

  /** No allocation; one system call. */
  ring(): void {
    if (this.#open) eventfdSignal(this.fd)
  }

  /** Forgets the rings so far; true if there were any. Pending waits end, because the ring was also theirs. */
  drain(): boolean {
    if (!this.#open || !eventfdDrain(this.fd)) return false
    if (this.#waits.size > 0) this.#endAll('rung')
    return true
  }

  /** Blocks this thread until a ring or the deadline. */
  wait(timeoutMs: number): 'rung' | 'timeout' {
    if (!this.#open) return 'timeout'
    pollDescriptors(this.#fds, timeoutMs)
    return this.drain() ? 'rung' : 'timeout'
  }

  /** Sleeps in the event loop, and keeps the process alive meanwhile. A closed bell answers 'aborted'. */
  waitAsync({ timeoutMs, signal }: WaitOptions = {}): Promise<WaitResult> {
    if (!this.#open || signal?.aborted) return Promise.resolve('aborted')
    return new Promise((resolve) => {
      let timer: NodeJS.Timeout | undefined
      const end = (result: WaitResult): void => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', abort)
        this.#remove(end)
        resolve(result)
      }
      const abort = (): void => end('aborted')
      if (timeoutMs !== undefined && timeoutMs < LONGEST_TIMER_MS) {
        timer = setTimeout(() => end(this.drain() ? 'rung' : 'timeout'), Math.max(0, timeoutMs))
      }
      signal?.addEventListener('abort', abort, { once: true })
      this.#add(end)
    })
  }

  /** Ends pending waits as 'aborted' and closes the descriptor. May be called again. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#endAll('aborted')
    this.#poll.close()
    closeDescriptor(this.fd)
  }

  #add(end: (result: WaitResult) => void): void {
    this.#waits.add(end)
    if (this.#waits.size === 1) this.#poll.start({ readable: true })
  }

  #remove(end: (result: WaitResult) => void): void {
    if (this.#waits.delete(end) && this.#waits.size === 0) this.#poll.stop()
  }

  #endAll(result: WaitResult): void {
    for (const end of [...this.#waits]) end(result)
  }
}
