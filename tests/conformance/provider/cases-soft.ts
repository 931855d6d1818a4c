/** Cases that need what only the soft provider has: fault hooks and a wire format that a test can speak. */
import type { ProviderCase } from './cases.js'
import { connectionCases } from './cases-connections.js'
import { faultCases } from './cases-faults.js'
import { modelCases } from './cases-model.js'
import { processCases } from './cases-processes.js'

export const softCases: readonly ProviderCase[] = [...faultCases, ...connectionCases, ...modelCases, ...processCases]
