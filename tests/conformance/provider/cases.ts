/**
 * What every provider must do, written once: numbered as in the list of conformance cases, from 100 on where that list has no
 * number of its own. A suite for a provider runs all of them with its own device factory.
 */
import type { ExecutionContext } from 'ava'
import { completionCases } from './cases-completions.js'
import { flowCases } from './cases-flow.js'
import { orderingCases } from './cases-ordering.js'
import { protectionCases } from './cases-protection.js'
import { stateCases } from './cases-states.js'
import type { DeviceFactory } from './rig.js'

export interface ProviderCase {
  readonly number: number
  readonly name: string
  /** Set where other providers are allowed to behave otherwise. */
  readonly only?: 'soft'
  run(t: ExecutionContext, factory: DeviceFactory): void | Promise<void>
}

export const providerCases: readonly ProviderCase[] = [
  ...orderingCases,
  ...completionCases,
  ...protectionCases,
  ...flowCases,
  ...stateCases,
]
