/**
 * Completion statuses, one table. Names and meanings follow the verbs (ibv_wc_status in ibv_poll_cq(3)); `unknown`,
 * `remote-aborted`, and the promise of `flushed` are this project's own:
 *
 *   flushed   certainly not executed, always true
 *   unknown   may or may not have happened; only where nothing can prove it (verbs-semantics, verdicts)
 */
export const status = {
  success: 0,
  localLengthError: 1,
  localQueuePairError: 2,
  localProtectionError: 4,
  flushed: 5,
  remoteInvalidRequest: 9,
  remoteAccessError: 10,
  remoteOperationError: 11,
  retryExceeded: 12,
  rnrRetryExceeded: 13,
  remoteAborted: 14,
  deviceRemoved: 20,
  generalError: 21,
  unknown: 32,
} as const

export type Status = (typeof status)[keyof typeof status]

const names = {
  0: 'success',
  1: 'local-length-error',
  2: 'local-qp-error',
  4: 'local-protection-error',
  5: 'flushed',
  9: 'remote-invalid-request',
  10: 'remote-access-error',
  11: 'remote-operation-error',
  12: 'retry-exceeded',
  13: 'rnr-retry-exceeded',
  14: 'remote-aborted',
  20: 'device-removed',
  21: 'general-error',
  32: 'unknown',
} as const satisfies Record<Status, string>

export type StatusName = (typeof names)[Status]

/** Verbs-like name; a number that is no status reads as `general-error`. */
export function statusName(value: number): StatusName {
  return names[value as Status] ?? 'general-error'
}

export const statusNames: readonly StatusName[] = Object.values(names)

/** Statuses that promise that the request had no effect at the peer. */
export function promisesNoEffect(value: Status): boolean {
  return (
    value === status.flushed ||
    value === status.rnrRetryExceeded ||
    value === status.localLengthError ||
    value === status.localProtectionError ||
    value === status.localQueuePairError ||
    value === status.remoteAccessError
  )
}
