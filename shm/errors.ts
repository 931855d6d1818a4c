/**
 * Errors of shared memory. Callers match on `code`, never on the text; the message is code, attempt, values.
 * A failed system call is a `SystemCallError` (libc.ts) and keeps the kernel's own code.
 */
export type ShmErrorCode =
  /** A descriptor offered as a segment lacks seals, has another size, or may not be mapped as asked. */
  | 'segment-invalid'
  /** A segment is larger than the memory that is left: taking its pages would end processes, not fail. */
  | 'memory-exhausted'
  /** A mapping was used after `close()`. */
  | 'mapping-closed'
  /** A copy, address or name outside what it may name. A mistake of the caller, found before anything was touched. */
  | 'out-of-bounds'
  /** Another open description holds the liveness byte of this member. */
  | 'liveness-token-taken'
  /** A living server listens on this socket path. */
  | 'socket-in-use'

export class ShmError extends Error {
  readonly code: ShmErrorCode

  constructor(code: ShmErrorCode, detail: string) {
    super(`${code}: ${detail}`)
    this.name = 'ShmError'
    this.code = code
  }
}
