import { postExplorations } from './post-explorations.js'
import { testExplorations } from './verify.js'

testExplorations(postExplorations)
