/**
 * Inter-process lock whose holder may be killed at any instruction.
 *
 *    31   30 ........ 20   19 ................... 0
 *   ┌───┬────────────────┬──────────────────────────┐
 *   │ W │  member index  │  generation (never 0)    │      0 = free
 *   └───┴────────────────┴──────────────────────────┘
 *     └─ somebody may sleep on the word
 *
 *              CAS 0 → me                          exchange 0; wake all if W
 *     free ─────────────────► held by me ───────────────────────────────────► free
 *                                │ killed
 *                                ▼              CAS exact dead value → repairer | W
 *                          held by a dead one ─────────────────────────────────────► held by the repairer ──► free
 *
 * Invariants:
 * - At most one living holder. A living holder, however slow or stopped, is never replaced: only the liveness oracle
 *   (a kernel lock that vanishes at death) declares a death, never a timeout and never a closed socket.
 * - A take-over is one compare-and-swap from the exact dead value to the repairer's own word. There is no moment in
 *   which the structure is both unlocked and unrepaired; if the repairer dies too, the word names a dead owner again.
 * - Who may have slept takes the lock with W set, because others may sleep still: without it a holder that took the
 *   lock from a woken-and-killed waiter would release silently.
 * - After the exchange in `release` nothing is stored.
 * - A word that names member 0 with generation 0 cannot exist, so 0 means free.
 *
 * Sleeping: waker = the releaser. Releaser dead between its store and its wake, or the woken waiter dead = the broker
 * wakes all waiters of all locks of the job at any death. Broker dead or stopped = every sleep ends after 50 ms and
 * asks the oracle itself.
 *
 * Inside the lock: no allocation, callback or await; a collector's pause is a stop for everybody who waits.
 *
 * Straight code over `Words`: the explorer steps it access by access and may abandon it at any of them, so nothing here
 * catches, and nothing runs in a `finally`.
 */
import type { Words } from './words.js'

export interface LivenessOracle {
  /** False only when the kernel says that the member is dead. Not knowing is `true`. */
  alive(memberIndex: number): boolean
}

/** owner-died: the lock is held by the caller, who must repair what it guards (idempotently) before going on. */
export type AcquireResult = 'acquired' | 'owner-died' | 'busy'

export interface RobustLockOptions {
  /** Milliseconds from any fixed point, for deadlines. */
  nowMs?: () => number
  /** Looks at the word before sleeping; about 2 µs. */
  spins?: number
}

export const FREE = 0
export const WAITERS = 1 << 31
export const MAX_MEMBERS = 2048
const GENERATION_MASK = 0xfffff
const MEMBER_SHIFT = 20
const MEMBER_MASK = 0x7ff
const DEFAULT_SPINS = 150
const LONGEST_SLEEP_MS = 50
const ALL = 0x7fffffff
/** Only hostile writers can make a compare-and-swap fail this often in a sweep. */
const SWEEP_TRIES = 1000

/** The word of an owner. Generations run from 1 to 2^20 - 1 and wrap to 1. */
export function ownerWord(memberIndex: number, generation: number): number {
  const low = generation & GENERATION_MASK
  return ((memberIndex & MEMBER_MASK) << MEMBER_SHIFT) | (low === 0 ? 1 : low)
}

export function ownerMember(word: number): number {
  return (word >>> MEMBER_SHIFT) & MEMBER_MASK
}

export function ownerGeneration(word: number): number {
  return word & GENERATION_MASK
}

export class RobustLock {
  readonly #words: Words
  readonly #index: number
  readonly #liveness: LivenessOracle
  readonly #nowMs: () => number
  readonly #spins: number

  constructor(words: Words, index: number, liveness: LivenessOracle, options: RobustLockOptions = {}) {
    this.#words = words
    this.#index = index
    this.#liveness = liveness
    this.#nowMs = options.nowMs ?? (() => performance.now())
    this.#spins = options.spins ?? DEFAULT_SPINS
  }

  /** Waits for a living holder at most `timeoutMs`, then 'busy'. `owner` is the caller's `ownerWord`. */
  acquire(owner: number, timeoutMs: number): AcquireResult {
    if (this.#words.compareExchange(this.#index, FREE, owner) === FREE) return 'acquired'
    return this.#acquireHeld(owner, timeoutMs)
  }

  /** Does not sleep: 'busy' if a living member holds it now. */
  tryAcquire(owner: number): AcquireResult {
    const found = this.#words.compareExchange(this.#index, FREE, owner)
    if (found === FREE) return 'acquired'
    return this.#takeFromDead(found, owner) ? 'owner-died' : 'busy'
  }

  /** False: the word did not name the caller, so somebody scribbled over it (never a consequence of a death). */
  release(owner: number): boolean {
    const found = this.#words.exchange(this.#index, FREE)
    if ((found & WAITERS) !== 0) this.#words.wake(this.#index, ALL)
    return (found & ~WAITERS) === owner
  }

  /** The member that holds the lock now, or -1: for display. */
  holder(): number {
    const word = this.#words.load(this.#index)
    return word === FREE ? -1 : ownerMember(word)
  }

  #acquireHeld(owner: number, timeoutMs: number): AcquireResult {
    for (let spin = 0; spin < this.#spins; spin++) {
      if (this.#words.load(this.#index) !== FREE) continue
      if (this.#words.compareExchange(this.#index, FREE, owner) === FREE) return 'acquired'
    }
    const deadlineMs = this.#nowMs() + timeoutMs
    for (;;) {
      const found = this.#words.load(this.#index)
      if (found === FREE) {
        if (this.#words.compareExchange(this.#index, FREE, owner | WAITERS) === FREE) return 'acquired'
      }
      const leftMs = deadlineMs - this.#nowMs()
      if (leftMs <= 0) return found !== FREE && this.#takeFromDead(found, owner) ? 'owner-died' : 'busy'
      if (found !== FREE && this.#sleepOn(found, leftMs, owner)) return 'owner-died'
    }
  }

  /** One sleep with the waiters bit set; true if the lock was taken from a dead owner at its end. */
  #sleepOn(found: number, leftMs: number, owner: number): boolean {
    const marked = found | WAITERS
    if (found !== marked && this.#words.compareExchange(this.#index, found, marked) !== found) return false
    const ended = this.#words.wait(this.#index, marked, Math.min(LONGEST_SLEEP_MS, leftMs))
    return ended === 'timeout' && this.#takeFromDead(marked, owner)
  }

  #takeFromDead(found: number, owner: number): boolean {
    if (this.#liveness.alive(ownerMember(found))) return false
    return this.#words.compareExchange(this.#index, found, owner | WAITERS) === found
  }
}

/**
 * unstable: the word changed under a thousand attempts, which only a hostile writer does; fail the object it guards.
 */
export type SweepResult = 'repaired' | 'untouched' | 'unstable'

/**
 * The broker's part after the death of a member (pidfd), for every lock of the job, held by the dead or not: waking
 * everybody makes good for a wake that died with its sender. May be repeated, also by the next broker. `repair` must be
 * idempotent.
 */
export function sweepLock(
  words: Words,
  index: number,
  deadMember: number,
  brokerOwner: number,
  repair: () => void,
): SweepResult {
  let result: SweepResult = 'unstable'
  for (let attempt = 0; attempt < SWEEP_TRIES; attempt++) {
    const found = words.load(index)
    if (found === FREE || ownerMember(found) !== deadMember) {
      result = 'untouched'
      break
    }
    if (words.compareExchange(index, found, brokerOwner | (found & WAITERS)) !== found) continue
    repair()
    words.exchange(index, FREE)
    result = 'repaired'
    break
  }
  words.wake(index, ALL)
  return result
}
