/** What becomes of requests that are posted to a queue pair in the error state? */
import * as transitions from '../../../broker/provider/verbs-transitions.js'
import { rawPair } from './raw-end.js'

const LONG_ENOUGH_MS = 1000

export function probeErrorState(): Record<string, unknown> {
  const [a, b] = rawPair()
  a.modify(transitions.toError)
  const accepted = { send: a.post('send', 1), receive: a.post('receive', 2) }
  const atOnce = [...a.watch(LONG_ENOUGH_MS)]
  a.modify(transitions.toError)
  const afterAskingAgain = [...a.watch(LONG_ENOUGH_MS)]
  a.close()
  b.close()
  return { accepted, atOnce, afterAskingAgain }
}
