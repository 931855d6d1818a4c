import test from 'ava'
import type { Bounds } from '../support/explorer.js'
import { loadExplored } from './load.js'
import { holds, isLong } from './verify.js'
import { type WaitOptions, waitScenario } from './wait-scene.js'

const code = await loadExplored()

function waitTest(name: string, options: WaitOptions, bounds: Bounds): void {
  test(`nobody sleeps while there is something to take (I11, I13): ${name}`, (t) => {
    t.timeout(600_000)
    holds(t, waitScenario(code, name, options, bounds))
  })
}

waitTest('1 waiter of 2, one by one', { wants: [2], turns: [1, 1] }, {})
waitTest('2 waiters of 1, together', { wants: [1, 1], turns: [2] }, {})
waitTest(
  '2 waiters of 1, one by one, 1 death, 2 preemptions',
  { wants: [1, 1], turns: [1, 1] },
  {
    crashes: { waiter: 1 },
    preemptions: 2,
  },
)

if (isLong) waitTest('2 waiters of 1, one by one', { wants: [1, 1], turns: [1, 1] }, {})
