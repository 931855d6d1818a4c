import type { Bounds } from '../support/explorer.js'
import type { Exploration } from './exploration.js'
import { loadExplored, loadOnce } from './load.js'
import { type PostOptions, postScenario } from './post-scene.js'

function post(promise: string, name: string, options: PostOptions, bounds: Bounds, isLong = false): Exploration {
  const scenario = async (fullName: string) => postScenario(await loadOnce(), fullName, options, bounds)
  return { scene: 'post', promise, name, isLong, scenario }
}
const LONG = true

const ORDER = 'what is published is executed once, whole and in order (I6, I8, I9)'
const SWEEP = 'whoever dies, the others go on and nothing is left behind (I5, I6, I7, I9, I10)'
const RESTART = 'a broker may die anywhere, its successor too (I6, I7, I9, I23)'
const AWAKE = 'an engine never sleeps while a request waits (I9, I13)'
const AGAIN = 'the number of a dead member serves another session after its sweep (I5, I6, I7, I9, I21)'
const POLLED = 'clients post and poll while a broker dies and another comes (I6, I7, I9, I11, I12, I23)'
const STOPPED = 'a stopped poster makes others busy, not wait; the drain goes on (I4, I6, I10)'

/** A visit that takes one entry leaves the rest to the engine's own list. */
const stingy: Exploration = {
  scene: 'post',
  promise: 'a drain that stops at its budget goes on by itself (I6, I9)',
  name: 'a list of 2 and 1, a budget of 1, 2 preemptions',
  scenario: async (fullName) => {
    const budget = { file: 'broker/engine/engine.ts', find: 'const DRAIN_BUDGET = 256' }
    const code = await loadExplored([{ ...budget, replace: 'const DRAIN_BUDGET = 1' }])
    return postScenario(code, fullName, { lists: [[2], [1]], slots: 4 }, { preemptions: 2 })
  },
}

export const postExplorations: readonly Exploration[] = [
  post(ORDER, '2 posters, plain reads too', { lists: [[1], [1]], slots: 2 }, { granularity: 'reads' }),
  post(ORDER, 'a list of 2 and 1, 2 slots, 2 preemptions', { lists: [[2], [1]], slots: 2 }, { preemptions: 2 }),
  post(ORDER, '3 posters, 2 slots, 1 preemption', { lists: [[1], [1], [1]], slots: 2 }, { preemptions: 1 }),
  stingy,
  post(SWEEP, '2 posters, 1 death', { lists: [[1], [1]], slots: 2 }, { crashes: { client: 1 } }),
  post(STOPPED, '2 posters, 1 stopped', { lists: [[1], [1]], slots: 2 }, { stops: { client: 1 }, timeouts: 'always' }),
  post(
    RESTART,
    '1 poster of 3 in 2 slots, 1 death, broker dies twice, 2 preemptions',
    { lists: [[2, 1]], slots: 2 },
    { crashes: { client: 1, broker: 2 }, preemptions: 2 },
  ),
  post(
    RESTART,
    '2 posters, broker dies, 2 preemptions',
    { lists: [[1], [1]], slots: 2 },
    { crashes: { broker: 1 }, preemptions: 2 },
  ),
  post(
    RESTART,
    '2 posters, 1 death, broker dies twice, 2 of them in all, 1 preemption',
    { lists: [[1], [1]], slots: 2 },
    { crashes: { client: 1, broker: 2 }, crashesInAll: 2, preemptions: 1 },
  ),
  post(AWAKE, '1 poster of 2, 1 death', { lists: [[1, 1]], slots: 2, sleeps: true }, { crashes: { client: 1 } }),
  post(AWAKE, '2 posters, 2 preemptions', { lists: [[1], [1]], slots: 2, sleeps: true }, { preemptions: 2 }),
  post(
    AGAIN,
    '1 poster, its number used again, 2 deaths',
    { lists: [[1], [1]], slots: 2, reuse: 'after-sweep' },
    { crashes: { client: 1, again: 1 } },
  ),
  post(
    AGAIN,
    '2 posters, a number used again, 1 death, broker dies, 1 preemption',
    { lists: [[1], [1], [1]], slots: 2, reuse: 'after-sweep' },
    { crashes: { client: 1, broker: 1 }, preemptions: 1 },
  ),
  post(
    POLLED,
    '1 poster of 2, 1 poller, broker dies twice, 2 preemptions',
    { lists: [[1, 1]], slots: 1, pollers: 1 },
    { crashes: { broker: 2 }, preemptions: 2 },
  ),
  post(
    POLLED,
    '1 poster of 2, 2 pollers, everybody dies, 2 in all, 1 preemption',
    { lists: [[1, 1]], slots: 2, pollers: 2 },
    { crashes: { client: 1, poller: 1, broker: 2 }, crashesInAll: 2, preemptions: 1 },
  ),
  post(ORDER, '3 posters, 2 slots, 2 preemptions', { lists: [[1], [1], [1]], slots: 2 }, { preemptions: 2 }, LONG),
  post(SWEEP, '2 posters, 2 deaths', { lists: [[1], [1]], slots: 2 }, { crashes: { client: 2 } }, LONG),
  post(
    RESTART,
    '2 posters, broker dies, 3 preemptions',
    { lists: [[1], [1]], slots: 2 },
    { crashes: { broker: 1 }, preemptions: 3 },
    LONG,
  ),
  post(
    RESTART,
    '2 posters, 1 death, broker dies twice, 2 preemptions',
    { lists: [[1], [1]], slots: 2 },
    { crashes: { client: 1, broker: 2 }, preemptions: 2 },
    LONG,
  ),
  post(
    SWEEP,
    '3 posters, 1 death, 1 preemption',
    { lists: [[1], [1], [1]], slots: 2 },
    { crashes: { client: 1 }, preemptions: 1 },
    LONG,
  ),
  post(
    AWAKE,
    '2 posters, 1 death, broker dies, 2 preemptions',
    { lists: [[1], [1]], slots: 2, sleeps: true },
    { crashes: { client: 1, broker: 1 }, preemptions: 2 },
    LONG,
  ),
]
