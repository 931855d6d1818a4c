import { deliverExplorations } from './deliver-explorations.js'
import { testExplorations } from './verify.js'

testExplorations(deliverExplorations)
