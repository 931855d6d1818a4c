import { SharedVerbsError } from '../../protocol/errors.js'
import type { Clock } from './clock.js'

/** The outcome of `work`, or `timeout` at the deadline; the work itself goes on. `what` is said in the error: 'removing sessions'. */
export async function within<Result>(
  work: Promise<Result>,
  timeoutMs: number,
  clock: Clock,
  what: string,
): Promise<Result> {
  let expire: () => void = () => {}
  const expired = new Promise<never>((_, reject) => {
    expire = () => reject(new SharedVerbsError('timeout', `${what} took longer than ${timeoutMs} ms`, { timeoutMs }))
  })
  const timer = clock.after(timeoutMs, expire)
  // Whichever loses the race may still fail later, when nobody listens any more.
  work.catch(() => undefined)
  try {
    return await Promise.race([work, expired])
  } finally {
    timer.cancel()
  }
}
