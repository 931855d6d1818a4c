import { testExplorations } from './verify.js'
import { wireExplorations } from './wire-explorations.js'

testExplorations(wireExplorations)
