/** All mistakes that the explorations must catch. */
import { completionMutants } from './completion-mutants.js'
import { creditMutants } from './credit-mutants.js'
import { lockMutants } from './lock-mutants.js'
import type { Mutant } from './mutant.js'
import { postMutants } from './post-mutants.js'
import { wireMutants } from './wire-mutants.js'

export const mutants: readonly Mutant[] = [
  ...lockMutants,
  ...postMutants,
  ...completionMutants,
  ...wireMutants,
  ...creditMutants,
]
