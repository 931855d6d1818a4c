/** How an engine waits: what it does for how long after the last work, beside others who compute, and while bytes are under way. */
import test, { type ExecutionContext } from 'ava'
import { Idle } from '../../../broker/engine/idle.js'
import { brokerPage } from '../../../protocol/broker-page.js'
import { closeDescriptor, eventfdCreate, eventfdDrain, eventfdSignal, systemFutex } from '../../../shm/libc.js'

import { SharedWords, type Words } from '../../../shm/words.js'

const STEP_MS = 0.01

/** An idle engine whose time is told by hand: each look at the clock after a yield takes `yieldMs`. */
class Sleeper {
  readonly idle: Idle
  readonly words: Words
  readonly doorbell = eventfdCreate()
  nowMs = 1000
  yieldMs = STEP_MS
  owes = false
  restless = false

  constructor(t: ExecutionContext, mode: 'adaptive' | 'spin' | 'block') {
    this.words = new SharedWords(new Int32Array(1024), 0, systemFutex)
    this.idle = new Idle(mode, this.doorbell, this.words, [], () => this.owes)
    t.teardown(() => {
      this.idle.close()
      closeDescriptor(this.doorbell)
    })
  }

  /** One pause after a turn without work; whether it slept. */
  pause(): boolean {
    const { sleeps } = this.idle
    const after = (): number => {
      this.nowMs += this.yieldMs
      return this.nowMs
    }
    this.idle.pause(
      this.nowMs,
      () => this.restless,
      () => 0,
      after,
    )
    return this.idle.sleeps > sleeps
  }

  /** Whether it gave its core to who was woken. */
  handsOver(): boolean {
    const since = this.nowMs
    let looks = 0
    this.idle.handOver(() => {
      if (looks++ > 0) this.nowMs += this.yieldMs
      return this.nowMs
    })
    return this.nowMs > since
  }

  /** Milliseconds of yields until it sleeps. */
  patienceMs(): number {
    this.idle.worked()
    const since = this.nowMs
    while (!this.pause()) if (this.nowMs - since > 100) return Number.POSITIVE_INFINITY
    return this.nowMs - since
  }

  /** A yield that somebody else's slice ended; then how long sleeps follow at once. */
  politenessMs(): number {
    this.idle.worked()
    this.yieldMs = 5
    this.pause()
    this.yieldMs = STEP_MS
    const since = this.nowMs
    for (;;) {
      this.idle.worked()
      if (!this.pause()) return this.nowMs - STEP_MS - since
      this.nowMs += 1
    }
  }
}

const near = (t: ExecutionContext, actual: number, expected: number, by: number): void => {
  t.true(Math.abs(actual - expected) <= by, `${actual} is not ${expected}`)
}

test('after the last work it yields for a while, then sleeps; each piece of work starts that anew', (t) => {
  const sleeper = new Sleeper(t, 'adaptive')
  near(t, sleeper.patienceMs(), 0.5, 2 * STEP_MS)
  t.true(sleeper.pause(), 'nothing happened: it sleeps again')
  near(t, sleeper.patienceMs(), 0.5, 2 * STEP_MS)
})

test('while bytes of a long message are under way it yields for longer, not for ever', (t) => {
  const sleeper = new Sleeper(t, 'adaptive')
  sleeper.owes = true
  near(t, sleeper.patienceMs(), 2, 2 * STEP_MS)
})

test('beside somebody who computes it sleeps at once, for longer each time he is still there', (t) => {
  const sleeper = new Sleeper(t, 'adaptive')
  for (const expected of [2, 4, 8, 16, 32, 64, 128, 160, 160]) near(t, sleeper.politenessMs(), expected, 1)
  sleeper.owes = true
  sleeper.yieldMs = 5
  sleeper.idle.worked()
  sleeper.pause()
  t.true(sleeper.pause(), 'also while bytes are under way')
})

test('who had something to do now and then is no reason to sleep for long: after many short yields it starts anew', (t) => {
  const sleeper = new Sleeper(t, 'adaptive')
  for (const expected of [2, 4, 8]) near(t, sleeper.politenessMs(), expected, 1)
  sleeper.nowMs += 5000
  near(t, sleeper.politenessMs(), 16, 1)
  for (let yields = 0; yields <= 300; yields++) {
    sleeper.idle.worked()
    t.false(sleeper.pause())
  }
  near(t, sleeper.politenessMs(), 2, 1)
})

test('a client that takes its time to answer is nobody who computes', (t) => {
  const sleeper = new Sleeper(t, 'adaptive')
  sleeper.yieldMs = 0.3
  sleeper.idle.worked()
  t.false(sleeper.pause())
  t.false(sleeper.pause())
})

test('who was woken gets the core at once, unless that would be a slice for somebody who computes', (t) => {
  const sleeper = new Sleeper(t, 'adaptive')
  t.true(sleeper.handsOver())
  sleeper.yieldMs = 5
  t.true(sleeper.handsOver())
  t.false(sleeper.handsOver(), 'that one was long')
  sleeper.nowMs += 3
  t.true(sleeper.handsOver())
  t.false(new Sleeper(t, 'spin').handsOver())
  t.false(new Sleeper(t, 'block').handsOver())
})

test('blocking sleeps at once, spinning never', (t) => {
  const blocking = new Sleeper(t, 'block')
  blocking.owes = true
  t.is(blocking.patienceMs(), 0)
  const spinning = new Sleeper(t, 'spin')
  for (let turn = 0; turn < 1000; turn++) t.false(spinning.pause())
})

test('a sleep that would miss something does not happen; awake, it says so and has taken the rings of its doorbell', (t) => {
  const sleeper = new Sleeper(t, 'block')
  sleeper.restless = true
  t.false(sleeper.pause())
  sleeper.restless = false
  eventfdSignal(sleeper.doorbell)
  t.true(sleeper.pause())
  t.is(sleeper.words.load(brokerPage.word.sleeping), 0)
  t.false(eventfdDrain(sleeper.doorbell))
})
