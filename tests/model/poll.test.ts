import { pollExplorations } from './poll-explorations.js'
import { testExplorations } from './verify.js'

testExplorations(pollExplorations)
