/** Everything that is thrown becomes one class before anybody outside hears of it. */
import { SharedVerbsError } from '../../protocol/errors.js'
import { ShmError } from '../../shm/errors.js'
import { SystemCallError } from '../../shm/libc.js'

const outOfMemory = new Set(['ENOMEM', 'ENOSPC', 'EMFILE', 'ENFILE'])

export function toFailure(error: unknown): SharedVerbsError {
  if (error instanceof SharedVerbsError) return error
  if (error instanceof SystemCallError) {
    const code = outOfMemory.has(error.code) ? 'no-memory' : 'system-call-failed'
    return new SharedVerbsError(code, error.message, { call: error.call, errno: error.code }, error)
  }
  if (error instanceof ShmError && error.code === 'segment-invalid') {
    return new SharedVerbsError('segment-invalid', error.message, {}, error)
  }
  const message = error instanceof Error ? error.message : String(error)
  return new SharedVerbsError('internal-error', `the broker failed: ${message}; this is a bug, see its log`, {}, error)
}
