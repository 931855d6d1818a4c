import { creditExplorations } from './credit-explorations.js'
import { testExplorations } from './verify.js'

testExplorations(creditExplorations)
