/**
 * Imported for what it does: tells V8 that the path of a message may become one function. It is made of many small ones, more than the
 * compiler puts together by default, and a tenth of a message's time went into calls. V8 reads the limit whenever it compiles; it changes
 * nothing else.
 */
import { setFlagsFromString } from 'node:v8'

setFlagsFromString('--max-inlined-bytecode-size-cumulative=3000')
