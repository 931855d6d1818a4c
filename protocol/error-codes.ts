/**
 * Every error code of the project, one table. Codes are stable and matched by programs; texts are for people and may change.
 *
 * Categories: usage (the caller's arguments), state (not now), limit (a bound was met), access (not yours), environment (the machine
 * or the installation), peer (the other node), protocol (bytes that make no sense), internal.
 */
export type ErrorCategory = 'usage' | 'state' | 'limit' | 'access' | 'environment' | 'peer' | 'protocol' | 'internal'

export const errorCodes = {
  'invalid-argument': 'usage',
  'unknown-option': 'usage',
  unsupported: 'usage',
  'length-out-of-bounds': 'usage',
  'address-not-resolved': 'usage',
  closed: 'state',
  busy: 'state',
  'not-connected': 'state',
  'already-connected': 'state',
  'name-in-use': 'state',
  draining: 'state',
  'broker-lost': 'state',
  aborted: 'state',
  timeout: 'state',
  'limit-exceeded': 'limit',
  'message-too-large': 'limit',
  'no-memory': 'limit',
  'wrong-job-key': 'access',
  'wrong-cluster-key': 'access',
  'access-denied': 'access',
  'no-such-object': 'access',
  'stale-handle': 'access',
  'broker-not-running': 'environment',
  'broker-already-running': 'environment',
  'runtime-directory-unusable': 'environment',
  'abi-mismatch': 'environment',
  'segment-invalid': 'environment',
  'system-call-failed': 'environment',
  'provider-unavailable': 'environment',
  'port-in-use': 'environment',
  'peer-unknown': 'peer',
  'peer-unreachable': 'peer',
  'peer-refused': 'peer',
  'connection-rejected': 'peer',
  'path-lost': 'peer',
  'malformed-message': 'protocol',
  'protocol-violation': 'protocol',
  'internal-error': 'internal',
} as const satisfies Record<string, ErrorCategory>

export type ErrorCode = keyof typeof errorCodes

export const isErrorCode = (value: unknown): value is ErrorCode =>
  typeof value === 'string' && Object.hasOwn(errorCodes, value)
