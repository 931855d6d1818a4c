import type { Bounds } from '../support/explorer.js'
import type { Exploration } from './exploration.js'
import { loadOnce } from './load.js'
import { type PollOptions, pollScenario } from './poll-scene.js'

function poll(promise: string, name: string, options: PollOptions, bounds: Bounds, isLong = false): Exploration {
  const scenario = async (fullName: string) => pollScenario(await loadOnce(), fullName, options, bounds)
  return { scene: 'poll', promise, name, isLong, scenario }
}
const LONG = true

const ONCE = 'each completion is taken once and in order, whoever dies (I11, I12)'
const AGAIN = 'what a successor publishes again is taken once all the same (I11, I12, I23)'

export const pollExplorations: readonly Exploration[] = [
  poll(
    ONCE,
    '2 pollers, 3 requests in 2 slots, 1 death',
    { pollers: 2, requests: 3, slots: 2, batch: 1 },
    { crashes: { poller: 1 } },
  ),
  poll(
    ONCE,
    '2 pollers of 2 at a time, 4 requests in 2 slots, 1 death, 2 preemptions',
    { pollers: 2, requests: 4, slots: 2, batch: 2 },
    { crashes: { poller: 1 }, preemptions: 2 },
  ),
  poll(
    ONCE,
    '3 pollers, 3 requests in 2 slots, 2 preemptions',
    { pollers: 3, requests: 3, slots: 2, batch: 1 },
    { preemptions: 2 },
  ),
  poll(
    AGAIN,
    '1 poller, 4 requests in 2 slots, broker dies twice',
    { pollers: 1, requests: 4, slots: 2, batch: 2 },
    { crashes: { broker: 2 } },
  ),
  poll(
    AGAIN,
    '2 pollers, 2 requests in 1 slot, a poller and the broker die, 3 preemptions',
    { pollers: 2, requests: 2, slots: 1, batch: 1 },
    { crashes: { poller: 1, broker: 1 }, preemptions: 3 },
  ),
  poll(
    AGAIN,
    '2 pollers, 2 requests in 2 slots, a poller and the broker die, 4 preemptions',
    { pollers: 2, requests: 2, slots: 2, batch: 1 },
    { crashes: { poller: 1, broker: 1 }, preemptions: 4 },
    LONG,
  ),
  poll(
    AGAIN,
    '2 pollers, 4 requests in 2 slots, a poller and the broker die, 2 preemptions',
    { pollers: 2, requests: 4, slots: 2, batch: 2 },
    { crashes: { poller: 1, broker: 1 }, preemptions: 2 },
    LONG,
  ),
]
