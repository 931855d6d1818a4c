import test from 'ava'
import type { Bounds } from '../support/explorer.js'
import { loadExplored } from './load.js'
import { type PostOptions, postScenario } from './post-scene.js'
import { holds, isLong } from './verify.js'

const code = await loadExplored()
/** A visit that takes one entry leaves the rest to the engine's own list. */
const stingy = await loadExplored([
  { file: 'broker/engine/engine.ts', find: 'const DRAIN_BUDGET = 256', replace: 'const DRAIN_BUDGET = 1' },
])

function postTest(promise: string, name: string, options: PostOptions, bounds: Bounds, explored = code): void {
  test(`${promise}: ${name}`, (t) => {
    t.timeout(600_000)
    holds(t, postScenario(explored, name, options, bounds))
  })
}

const ORDER = 'what is published is executed once, whole and in order (I6, I8, I9)'
const SWEEP = 'whoever dies, the others go on and nothing is left behind (I5, I6, I7, I9, I10)'
const RESTART = 'a broker may die anywhere, its successor too (I6, I7, I9, I23)'
const AWAKE = 'an engine never sleeps while a request waits (I9, I13)'

postTest(ORDER, '2 posters', { lists: [[1], [1]], slots: 2 }, { granularity: 'reads' })
postTest(ORDER, 'a list of 2 and 1, 2 slots, 2 preemptions', { lists: [[2], [1]], slots: 2 }, { preemptions: 2 })
postTest(ORDER, '3 posters, 2 slots, 1 preemption', { lists: [[1], [1], [1]], slots: 2 }, { preemptions: 1 })
postTest(
  'a drain that stops at its budget goes on by itself (I6, I9)',
  'a list of 2 and 1, a budget of 1, 2 preemptions',
  { lists: [[2], [1]], slots: 4 },
  { preemptions: 2 },
  stingy,
)
postTest(SWEEP, '2 posters, 1 death', { lists: [[1], [1]], slots: 2 }, { crashes: { client: 1 } })
postTest(
  'a stopped poster makes others busy, not wait; the drain goes on (I4, I6, I10)',
  '2 posters, 1 stopped',
  { lists: [[1], [1]], slots: 2 },
  { stops: { client: 1 }, timeouts: 'always' },
)
postTest(
  RESTART,
  '1 poster of 3 in 2 slots, 1 death, broker dies twice, 2 preemptions',
  { lists: [[2, 1]], slots: 2 },
  { crashes: { client: 1, broker: 2 }, preemptions: 2 },
)
postTest(
  RESTART,
  '2 posters, broker dies, 2 preemptions',
  { lists: [[1], [1]], slots: 2 },
  { crashes: { broker: 1 }, preemptions: 2 },
)
postTest(
  RESTART,
  '2 posters, 1 death, broker dies twice, 2 of them in all, 1 preemption',
  { lists: [[1], [1]], slots: 2 },
  { crashes: { client: 1, broker: 2 }, crashesInAll: 2, preemptions: 1 },
)
postTest(AWAKE, '1 poster of 2, 1 death', { lists: [[1, 1]], slots: 2, sleeps: true }, { crashes: { client: 1 } })
postTest(AWAKE, '2 posters, 2 preemptions', { lists: [[1], [1]], slots: 2, sleeps: true }, { preemptions: 2 })

if (isLong) {
  postTest(ORDER, '3 posters, 2 slots, 2 preemptions', { lists: [[1], [1], [1]], slots: 2 }, { preemptions: 2 })
  postTest(SWEEP, '2 posters, 2 deaths', { lists: [[1], [1]], slots: 2 }, { crashes: { client: 2 } })
  postTest(RESTART, '2 posters, broker dies', { lists: [[1], [1]], slots: 2 }, { crashes: { broker: 1 } })
  postTest(
    RESTART,
    '2 posters, 1 death, broker dies twice, 2 preemptions',
    { lists: [[1], [1]], slots: 2 },
    { crashes: { client: 1, broker: 2 }, preemptions: 2 },
  )
  postTest(
    SWEEP,
    '3 posters, 1 death, 1 preemption',
    { lists: [[1], [1], [1]], slots: 2 },
    { crashes: { client: 1 }, preemptions: 1 },
  )
  postTest(
    AWAKE,
    '2 posters, 1 death, broker dies, 2 preemptions',
    { lists: [[1], [1]], slots: 2, sleeps: true },
    {
      crashes: { client: 1, broker: 1 },
      preemptions: 2,
    },
  )
}
