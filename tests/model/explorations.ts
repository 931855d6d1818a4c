/** All explorations, scene by scene. */
import { creditExplorations } from './credit-explorations.js'
import { deliverExplorations } from './deliver-explorations.js'
import type { Exploration } from './exploration.js'
import { lockExplorations } from './lock-explorations.js'
import { pollExplorations } from './poll-explorations.js'
import { postExplorations } from './post-explorations.js'
import { waitExplorations } from './wait-explorations.js'
import { wireExplorations } from './wire-explorations.js'

export const explorations: readonly Exploration[] = [
  ...lockExplorations,
  ...postExplorations,
  ...pollExplorations,
  ...waitExplorations,
  ...deliverExplorations,
  ...wireExplorations,
  ...creditExplorations,
]
