/**
 * What the engine does when a turn found nothing.
 *
 *   spin       keeps turning: for brokers that own a core
 *   block      sleeps at once on one descriptor for everything: clients' doorbell, provider, commands
 *   adaptive   yields the core for a bounded time after the last work, measuring each yield; a yield that took long means that somebody
 *              else computes here, then it sleeps at once and keeps to that for a while, longer each time it happens again
 *
 * A yield costs 0.6 µs when nobody wants the core, and hands it over in about 3 when a client does; waking a sleeper costs 3 µs on the
 * same core and 30 on another. Beside a process that computes a yield takes its whole slice, 5 ms, while a sleeper that is woken runs
 * at once. README.md has the measurements.
 *
 * Sleeping cannot miss anything: store `sleeping` in the broker page (pairs with the clients' load after they marked activity), look at
 * everything once more, then wait; whoever publishes after the look rings the doorbell.
 */

import { brokerPage } from '../../protocol/broker-page.js'
import {
  closeDescriptor,
  currentCore,
  EPOLL_EVENT_BYTES,
  EPOLLIN,
  epollAdd,
  epollCreate,
  epollWait,
  eventfdDrain,
  mapAnonymous,
  munmap,
  schedulerYield,
} from '../../shm/libc.js'
import type { Words } from '../../shm/words.js'

/** How long yields go on after the last work: what a ping-pong of eight pairs through this core takes. */
const YIELD_MS = 0.5
/** The same while bytes of a long message are under way: the other end may be waiting for its core. */
const OWED_YIELD_MS = 2
/** A yield that took this long was a slice of somebody who computes: clients that answer take less, all of them together. */
const FOREIGN_MS = 0.5
/** After such a yield, sleeps follow at once for this long, and for twice as long if it happens again as soon as that is over. */
const POLITE_MS = 2
const POLITE_MOST_MS = 160
/** Who computes all the time takes one of the first yields; whoever comes after so many only had something to do. */
const CALM_YIELDS = 300
/** Clients are told where the engine runs every so many yields, less one: a mask. */
const CORE_YIELDS = 63
/** The longest sleep: heartbeats of the engine's turn counter go on. */
const SLEEP_MS = 500
const EVENTS = 16

export class Idle {
  readonly #mode: 'adaptive' | 'spin' | 'block'
  readonly #doorbell: number
  readonly #words: Words
  readonly #epoll: number
  readonly #events: number
  readonly #owesBytes: () => boolean
  #idleSinceMs = 0
  #politeMs = POLITE_MS
  #yields = 0
  /** Short ones since one took long. */
  #calmYields = Number.POSITIVE_INFINITY
  #politeUntilMs = Number.NEGATIVE_INFINITY
  sleeps = 0

  constructor(
    mode: 'adaptive' | 'spin' | 'block',
    doorbell: number,
    page: Words,
    descriptors: readonly number[],
    owesBytes: () => boolean = () => false,
  ) {
    this.#owesBytes = owesBytes
    this.#mode = mode
    this.#doorbell = doorbell
    this.#words = page
    this.#epoll = epollCreate()
    this.#events = mapAnonymous(EPOLL_EVENT_BYTES * EVENTS)
    for (const fd of [doorbell, ...descriptors]) epollAdd(this.#epoll, fd, EPOLLIN, fd)
  }

  /** Work was done: the next pause starts its patience anew. */
  worked(): void {
    this.#idleSinceMs = 0
  }

  /** One pause. `restless` looks whether a sleep would miss something; `dueMs` is how long a sleep may last. */
  pause(nowMs: number, restless: () => boolean, dueMs: () => number, clockMs: () => number): void {
    if (this.#mode === 'spin') return
    if (this.#idleSinceMs === 0) this.#idleSinceMs = nowMs
    if (this.#mode === 'adaptive' && nowMs >= this.#politeUntilMs && this.#isPatient(nowMs)) {
      if ((this.#yields++ & CORE_YIELDS) === 0) this.#words.put(brokerPage.word.core, currentCore())
      this.#yield(nowMs, clockMs)
      return
    }
    this.#sleep(restless, dueMs)
  }

  /** Somebody was woken to answer: on this core the scheduler lets it wait until the engine yields or sleeps, so it yields at once. */
  handOver(clockMs: () => number): void {
    if (this.#mode !== 'adaptive') return
    const nowMs = clockMs()
    if (nowMs >= this.#politeUntilMs) this.#yield(nowMs, clockMs)
  }

  #yield(nowMs: number, clockMs: () => number): void {
    schedulerYield()
    const afterMs = clockMs()
    if (afterMs - nowMs > FOREIGN_MS) this.#giveWay(afterMs)
    else this.#calmYields++
  }

  #isPatient(nowMs: number): boolean {
    const idleMs = nowMs - this.#idleSinceMs
    return idleMs < YIELD_MS || (idleMs < OWED_YIELD_MS && this.#owesBytes())
  }

  #giveWay(nowMs: number): void {
    const wasCalm = this.#calmYields > CALM_YIELDS
    this.#calmYields = 0
    this.#politeMs = wasCalm ? POLITE_MS : Math.min(2 * this.#politeMs, POLITE_MOST_MS)
    this.#politeUntilMs = nowMs + this.#politeMs
  }

  #sleep(restless: () => boolean, dueMs: () => number): void {
    this.#words.store(brokerPage.word.sleeping, 1)
    // Pairs with clients that mark activity and then load `sleeping`: one of the two sees the other.
    if (!restless()) {
      this.sleeps++
      epollWait(this.#epoll, this.#events, EVENTS, Math.min(SLEEP_MS, Math.ceil(dueMs())))
    }
    this.#words.store(brokerPage.word.sleeping, 0)
    eventfdDrain(this.#doorbell)
  }

  close(): void {
    closeDescriptor(this.#epoll)
    munmap(this.#events, EPOLL_EVENT_BYTES * EVENTS)
  }
}
