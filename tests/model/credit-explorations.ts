import type { Bounds } from '../support/explorer.js'
import { type CreditOptions, creditScenario } from './credit-scene.js'
import type { Exploration } from './exploration.js'
import { loadOnce } from './load.js'

function credit(name: string, options: CreditOptions, bounds: Bounds, isLong = false): Exploration {
  const promise = 'frames never exceed buffers, and nobody waits for credit for ever (H1, H5)'
  const scenario = async (fullName: string) => creditScenario(await loadOnce(), fullName, options, bounds)
  return { scene: 'credit', promise, name, isLong, scenario }
}
const LONG = true

/** Four are the fewest that a broker agrees to: with three, reports about reports never end. */
const four = { buffers: [4, 4] } as const

export const creditExplorations: readonly Exploration[] = [
  credit(
    '4 buffers, 1 data and 1 control each, the lane lost once',
    { ...four, data: [1, 1], control: [1, 1] },
    { crashes: { loss: 1 } },
  ),
  credit('4 buffers, 2 data each', { ...four, data: [2, 2], control: [0, 0] }, {}),
  credit('4 buffers, 2 data against 1 and 1 control', { ...four, data: [2, 1], control: [0, 1] }, {}),
  credit('4 buffers, 5 data against 1 control', { ...four, data: [5, 0], control: [0, 1] }, {}),
  credit('4 buffers, 2 data and 1 control each', { ...four, data: [2, 2], control: [1, 1] }, {}, LONG),
  credit('6 buffers against 4, 1 control against 6 data', { buffers: [6, 4], data: [0, 6], control: [1, 0] }, {}, LONG),
  credit(
    '4 buffers, 2 data each, the lane lost twice',
    { ...four, data: [2, 2], control: [0, 0] },
    { crashes: { loss: 2 } },
    LONG,
  ),
]
