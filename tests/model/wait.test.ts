import { testExplorations } from './verify.js'
import { waitExplorations } from './wait-explorations.js'

testExplorations(waitExplorations)
