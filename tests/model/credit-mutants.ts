/** Mistakes in the credit of a lane. */
import type { Scenario } from '../support/explorer.js'
import { type CreditOptions, creditScenario } from './credit-scene.js'
import type { Code } from './load.js'
import type { Mutant } from './mutant.js'

const LANE = 'broker/engine/lane.ts'

const busy: CreditOptions = { buffers: [4, 4], data: [4, 4], control: [1, 1] }
const spent = (code: Code): Scenario => creditScenario(code, 'credit', busy, {})

export const creditMutants: readonly Mutant[] = [
  {
    name: 'the last credit spent on data',
    changes: [
      {
        file: LANE,
        find: 'if (tier === creditTier.data) return 1 + this.controlReserve',
        replace: 'if (tier === creditTier.data) return 0',
      },
    ],
    scenario: spent,
    caughtBy: ['H5'],
  },
  {
    name: 'a report that may not use the last credit',
    changes: [{ file: LANE, find: '&& this.unreported > 0 ? 0 : 1', replace: '&& this.unreported > 0 ? 1 : 1' }],
    scenario: spent,
    caughtBy: ['H5'],
  },
  {
    name: 'buffers promised before they are posted again',
    changes: [
      {
        file: LANE,
        find: 'this.advertisedLimit = (this.consumed + this.bounceCount) | 0',
        replace: 'this.advertisedLimit = (this.lastReceived + this.bounceCount) | 0',
      },
    ],
    scenario: spent,
    caughtBy: ['H1'],
  },
  {
    name: 'one frame more than there is credit for',
    changes: [
      { file: LANE, find: 'this.credit <= this.#reserve(tier) ||', replace: 'this.credit < this.#reserve(tier) ||' },
    ],
    scenario: spent,
    caughtBy: ['H1', 'H5'],
  },
  {
    name: 'credit of a lost lane used on the next',
    changes: [],
    scenario: (code) =>
      creditScenario(code, 'credit, lane lost', { ...busy, keepsCredit: true }, { crashes: { loss: 1 } }),
    caughtBy: ['H1'],
  },
]
