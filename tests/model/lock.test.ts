import { lockExplorations } from './lock-explorations.js'
import { testExplorations } from './verify.js'

testExplorations(lockExplorations)
