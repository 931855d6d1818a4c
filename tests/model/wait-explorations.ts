import type { Bounds } from '../support/explorer.js'
import type { Exploration } from './exploration.js'
import { loadOnce } from './load.js'
import { type WaitOptions, waitScenario } from './wait-scene.js'

function wait(name: string, options: WaitOptions, bounds: Bounds, isLong = false): Exploration {
  const promise = 'nobody sleeps while there is something to take (I11, I13)'
  const scenario = async (fullName: string) => waitScenario(await loadOnce(), fullName, options, bounds)
  return { scene: 'wait', promise, name, isLong, scenario }
}

export const waitExplorations: readonly Exploration[] = [
  wait('1 waiter of 2, one by one', { wants: [2], turns: [1, 1] }, {}),
  wait('2 waiters of 1, together', { wants: [1, 1], turns: [2] }, {}),
  wait(
    '2 waiters of 1, one by one, 1 death, 2 preemptions',
    { wants: [1, 1], turns: [1, 1] },
    { crashes: { waiter: 1 }, preemptions: 2 },
  ),
  wait('2 waiters of 1, one by one', { wants: [1, 1], turns: [1, 1] }, {}, true),
]
