import type { Scenario } from '../support/explorer.js'
import type { Change } from '../support/explorer-code.js'
import type { Code } from './load.js'

/** A mistake that the explorations must catch. */
export interface Mutant {
  readonly name: string
  /** In the sources; none, if it lies in what the scene does or decides by. */
  readonly changes: readonly Change[]
  readonly scenario: (code: Code) => Scenario
  readonly caughtBy: readonly string[]
}
