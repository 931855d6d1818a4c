/** When is a peer that is gone given up, with 6 retries and with 7? */
import { clock } from '../../../shm/libc.js'
import { rawPair } from './raw-end.js'

const LIMIT_MS = 6000

function timeUntilGivenUp(retryCount: number): Record<string, unknown> {
  // 4.096 µs × 2^14 = 67 ms each time
  const [a, b] = rawPair({ timeoutExponent: 14, retryCount })
  b.close()
  const startMs = clock.nowMs()
  a.post('send', 1)
  const seen = [...a.watch(LIMIT_MS, 1)]
  const afterMs = Math.round(clock.nowMs() - startMs)
  a.close()
  return { seen, afterMs }
}

export function probeRetries(): Record<string, unknown> {
  return { six: timeUntilGivenUp(6), seven: timeUntilGivenUp(7) }
}
