/** Mistakes of the robust lock and of its sweep. One thing changed in the real sources, or in what the scene does, and the smallest scenario that shows it. */
import type { Scenario } from '../support/explorer.js'
import type { Change } from '../support/explorer-code.js'
import type { Code } from './load.js'
import { lockScenario } from './lock-scene.js'
import type { Mutant } from './mutant.js'

const LOCK = 'shm/robust-lock.ts'
const change = (file: string, find: string, replace: string): Change => ({ file, find, replace })

const swept = (code: Code): Scenario =>
  lockScenario(code, 'lock', { clients: 3, rounds: 1, sweeper: true }, { crashes: { client: 1 } })
const takenOver = (code: Code): Scenario =>
  lockScenario(
    code,
    'lock taken over',
    { clients: 3, rounds: 1, sweeper: false },
    { crashes: { client: 1 }, timeouts: 'always' },
  )
const slept = (code: Code): Scenario =>
  lockScenario(code, 'lock slept on', { clients: 3, rounds: 1, sweeper: true }, { crashes: { client: 1 } })

export const lockMutants: readonly Mutant[] = [
  {
    name: 'a sweep that unlocks before it repairs',
    changes: [
      change(LOCK, '    repair()\n    words.exchange(index, FREE)', '    words.exchange(index, FREE)\n    repair()'),
    ],
    scenario: swept,
    caughtBy: ['I1', 'I2'],
  },
  {
    name: 'a take-over by a store instead of a compare-and-swap',
    changes: [
      change(
        LOCK,
        'return this.#words.compareExchange(this.#index, found, owner | WAITERS) === found',
        'this.#words.store(this.#index, owner | WAITERS)\n    return true',
      ),
    ],
    scenario: takenOver,
    caughtBy: ['I1', 'I2'],
  },
  {
    name: 'a take-over that does not ask whether the owner is dead',
    changes: [change(LOCK, 'if (this.#liveness.alive(ownerMember(found))) return false\n', '')],
    scenario: takenOver,
    caughtBy: ['I1', 'I2'],
  },
  {
    name: 'a sweep that wakes waiters only of locks that the dead one held',
    changes: [
      change(
        LOCK,
        '  words.wake(index, ALL)\n  return result',
        "  if (result === 'repaired') words.wake(index, ALL)\n  return result",
      ),
    ],
    scenario: slept,
    caughtBy: ['I3'],
  },
  {
    // Alone it is harmless: a release wakes all.
    name: 'a release that wakes one, and a waiter that slept and takes the lock without the waiters bit',
    changes: [
      change(LOCK, 'this.#words.wake(this.#index, ALL)', 'this.#words.wake(this.#index, 1)'),
      change(
        LOCK,
        'compareExchange(this.#index, FREE, owner | WAITERS) === FREE',
        'compareExchange(this.#index, FREE, owner) === FREE',
      ),
    ],
    scenario: slept,
    caughtBy: ['I3'],
  },
  {
    name: 'a sleep on whatever the word holds',
    changes: [
      change(
        LOCK,
        'this.#words.wait(this.#index, marked,',
        'this.#words.wait(this.#index, this.#words.or(this.#index, 0),',
      ),
    ],
    scenario: slept,
    caughtBy: ['I3'],
  },
  {
    name: 'a release that wakes nobody',
    changes: [change(LOCK, 'if ((found & WAITERS) !== 0) this.#words.wake(this.#index, ALL)\n', '')],
    scenario: slept,
    caughtBy: ['I3'],
  },
  {
    name: 'a new broker that does not sweep the locks of its predecessor',
    changes: [],
    scenario: (code) =>
      lockScenario(
        code,
        'lock, broker dies',
        { clients: 2, rounds: 1, sweeper: true, adopts: false },
        { crashes: { client: 1, broker: 1 } },
      ),
    caughtBy: ['I3', 'I5'],
  },
  {
    name: 'the number of a dead member given away before its sweep is done',
    changes: [],
    scenario: (code) =>
      lockScenario(
        code,
        'lock, number used again',
        { clients: 2, rounds: 1, sweeper: true, reuse: 'at-once' },
        { crashes: { client: 1 } },
      ),
    caughtBy: ['I1', 'I2'],
  },
]
