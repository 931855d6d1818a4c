import test from 'ava'
import type { Bounds } from '../support/explorer.js'
import { loadExplored } from './load.js'
import { type LockOptions, lockScenario } from './lock-scene.js'
import { holds, isLong } from './verify.js'

const code = await loadExplored()

function lockTest(promise: string, name: string, options: LockOptions, bounds: Bounds): void {
  test(`${promise}: ${name}`, (t) => {
    t.timeout(600_000)
    holds(t, lockScenario(code, name, options, bounds))
  })
}

lockTest(
  'a sweep after each death leaves no waiter asleep and no dead owner (I1, I2, I3, I5)',
  '3 clients, 2 deaths',
  { clients: 3, rounds: 1, sweeper: true },
  { crashes: { client: 2 } },
)
lockTest(
  'a broker that dies while it repairs is replaced, and its successor repairs (I1, I2, I3, I5, I23)',
  '2 clients twice, 1 death, broker dies twice',
  { clients: 2, rounds: 2, sweeper: true },
  { crashes: { client: 1, broker: 2 } },
)
lockTest(
  'without a broker, waiters take over from the dead at their deadlines (I1, I2, I3)',
  '3 clients, 2 deaths, no sweeper, any deadline',
  { clients: 3, rounds: 1, sweeper: false },
  { crashes: { client: 2 }, timeouts: 'always' },
)
lockTest(
  'waiters and the broker may both take over (I1, I2, I3, I5)',
  '2 clients, 2 deaths, broker dies, any deadline',
  { clients: 2, rounds: 1, sweeper: true },
  { crashes: { client: 2, broker: 1 }, timeouts: 'always' },
)
lockTest(
  'a stopped holder is never replaced, and who waits for it gives up (I1, I3, I4)',
  '2 clients, 1 stopped, 1 death',
  { clients: 2, rounds: 1, sweeper: true, patienceMs: 60 },
  { crashes: { client: 1 }, stops: { client: 1 }, timeouts: 'always' },
)
lockTest(
  'the number of a dead member serves another session after its sweep (I1, I2, I3, I21)',
  '2 clients, number used again, 2 deaths, broker dies',
  { clients: 2, rounds: 1, sweeper: true, reuse: 'after-sweep' },
  { crashes: { client: 1, again: 1, broker: 1 } },
)

if (isLong) {
  lockTest(
    'a broker that dies while it repairs is replaced, and its successor repairs (I1, I2, I3, I5, I23)',
    '3 clients, 2 deaths, broker among them',
    { clients: 3, rounds: 1, sweeper: true },
    { crashes: { client: 2, broker: 1 }, crashesInAll: 2 },
  )
  lockTest(
    'a sweep after each death leaves no waiter asleep and no dead owner (I1, I2, I3, I5)',
    '4 clients, 1 death',
    { clients: 4, rounds: 1, sweeper: true },
    { crashes: { client: 1 }, preemptions: 4 },
  )
  lockTest(
    'waiters and the broker may both take over (I1, I2, I3, I5)',
    '3 clients, 1 death, any deadline',
    { clients: 3, rounds: 1, sweeper: true },
    { crashes: { client: 1 }, timeouts: 'always' },
  )
  lockTest(
    'a stopped holder is never replaced, and who waits for it gives up (I1, I3, I4)',
    '3 clients, 1 stopped, 1 death',
    { clients: 3, rounds: 1, sweeper: true, patienceMs: 60 },
    { crashes: { client: 1 }, stops: { client: 1 }, timeouts: 'idle' },
  )
}
