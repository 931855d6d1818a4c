import type { Bounds } from '../support/explorer.js'
import type { Exploration } from './exploration.js'
import { loadOnce } from './load.js'
import { type LockOptions, lockScenario } from './lock-scene.js'

function lock(promise: string, name: string, options: LockOptions, bounds: Bounds, isLong = false): Exploration {
  const scenario = async (fullName: string) => lockScenario(await loadOnce(), fullName, options, bounds)
  return { scene: 'lock', promise, name, isLong, scenario }
}
const LONG = true

const SWEPT = 'a sweep after each death leaves no waiter asleep and no dead owner (I1, I2, I3, I5)'
const SUCCEEDED = 'a broker that dies while it repairs is replaced, and its successor repairs (I1, I2, I3, I5, I23)'
const ALONE = 'without a broker, waiters take over from the dead at their deadlines (I1, I2, I3)'
const BOTH = 'waiters and the broker may both take over (I1, I2, I3, I5)'
const STOPPED = 'a stopped holder is never replaced, and who waits for it gives up (I1, I3, I4)'
const AGAIN = 'the number of a dead member serves another session after its sweep (I1, I2, I3, I21)'

export const lockExplorations: readonly Exploration[] = [
  lock(SWEPT, '3 clients, 2 deaths', { clients: 3, rounds: 1, sweeper: true }, { crashes: { client: 2 } }),
  lock(
    SUCCEEDED,
    '2 clients twice, 1 death, broker dies twice',
    { clients: 2, rounds: 2, sweeper: true },
    { crashes: { client: 1, broker: 2 } },
  ),
  lock(
    ALONE,
    '3 clients, 2 deaths, no sweeper, any deadline',
    { clients: 3, rounds: 1, sweeper: false },
    { crashes: { client: 2 }, timeouts: 'always' },
  ),
  lock(
    BOTH,
    '2 clients, 2 deaths, broker dies, any deadline',
    { clients: 2, rounds: 1, sweeper: true },
    { crashes: { client: 2, broker: 1 }, timeouts: 'always' },
  ),
  lock(
    STOPPED,
    '2 clients, 1 stopped, 1 death',
    { clients: 2, rounds: 1, sweeper: true, patienceMs: 60 },
    { crashes: { client: 1 }, stops: { client: 1 }, timeouts: 'always' },
  ),
  lock(
    AGAIN,
    '2 clients, number used again, 2 deaths, broker dies',
    { clients: 2, rounds: 1, sweeper: true, reuse: 'after-sweep' },
    { crashes: { client: 1, again: 1, broker: 1 } },
  ),
  lock(
    SUCCEEDED,
    '3 clients, 2 deaths, broker among them',
    { clients: 3, rounds: 1, sweeper: true },
    { crashes: { client: 2, broker: 1 }, crashesInAll: 2 },
    LONG,
  ),
  lock(
    SWEPT,
    '4 clients, 1 death, 4 preemptions',
    { clients: 4, rounds: 1, sweeper: true },
    { crashes: { client: 1 }, preemptions: 4 },
    LONG,
  ),
  lock(
    BOTH,
    '3 clients, 1 death, any deadline',
    { clients: 3, rounds: 1, sweeper: true },
    { crashes: { client: 1 }, timeouts: 'always' },
    LONG,
  ),
  lock(
    STOPPED,
    '3 clients, 1 stopped, 1 death',
    { clients: 3, rounds: 1, sweeper: true, patienceMs: 60 },
    { crashes: { client: 1 }, stops: { client: 1 }, timeouts: 'idle' },
    LONG,
  ),
]
