/** Maps what the broker granted. A refusal closes the descriptor and says what did not fit. */
import { SharedVerbsError } from '../protocol/errors.js'
import { closeDescriptor } from '../shm/libc.js'
import { Mapping } from '../shm/mapping.js'

/** Takes over the descriptor. Throws `segment-invalid`. */
export function mapSegment(fd: number | undefined, byteLength: number, writable: boolean): Mapping {
  if (fd === undefined) throw new SharedVerbsError('segment-invalid', 'the broker sent no descriptor')
  try {
    return Mapping.attach(fd, { byteLength, writable })
  } catch (cause) {
    closeDescriptor(fd)
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new SharedVerbsError(
      'segment-invalid',
      `cannot map ${byteLength} bytes from the broker: ${reason}`,
      { byteLength, writable },
      cause,
    )
  }
}
