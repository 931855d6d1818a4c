/** All mistakes that the explorations must catch. */
import type { Mutant } from './mutant.js'
import { nodeMutants } from './node-mutants.js'
import { wireMutants } from './wire-mutants.js'

export const mutants: readonly Mutant[] = [...nodeMutants, ...wireMutants]
