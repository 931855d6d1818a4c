/** What libibverbs says, in the words of the contract: completion statuses, asynchronous events, error numbers. */
import { constants } from 'node:os'
import { type Status, status } from '../../protocol/statuses.js'
import { errnoName } from '../../shm/libc.js'
import type { ProviderEvent, ProviderFailure } from './provider.js'
import { ibvConstants as ibv } from './verbs-abi.js'

const STATUSES_MAX = 32

/** By ibv_wc_status; what has no name of its own is a general error. */
const statusTable: readonly Status[] = Array.from({ length: STATUSES_MAX }, (_, value) => statusOfName(value))

function statusOfName(value: number): Status {
  switch (value) {
    case ibv.IBV_WC_SUCCESS:
      return status.success
    case ibv.IBV_WC_LOC_LEN_ERR:
      return status.localLengthError
    case ibv.IBV_WC_LOC_QP_OP_ERR:
      return status.localQueuePairError
    case ibv.IBV_WC_LOC_PROT_ERR:
    case ibv.IBV_WC_LOC_ACCESS_ERR:
      return status.localProtectionError
    case ibv.IBV_WC_WR_FLUSH_ERR:
      return status.flushed
    case ibv.IBV_WC_REM_INV_REQ_ERR:
      return status.remoteInvalidRequest
    case ibv.IBV_WC_REM_ACCESS_ERR:
      return status.remoteAccessError
    case ibv.IBV_WC_REM_OP_ERR:
      return status.remoteOperationError
    case ibv.IBV_WC_RETRY_EXC_ERR:
      return status.retryExceeded
    case ibv.IBV_WC_RNR_RETRY_EXC_ERR:
      return status.rnrRetryExceeded
    case ibv.IBV_WC_REM_ABORT_ERR:
      return status.remoteAborted
    case ibv.IBV_WC_FATAL_ERR:
      return status.deviceRemoved
    default:
      return status.generalError
  }
}

export function statusOf(value: number): Status {
  return statusTable[value] ?? status.generalError
}

type EventKind = ProviderEvent['kind']

const eventKinds: Readonly<Record<number, EventKind>> = {
  [ibv.IBV_EVENT_CQ_ERR]: 'completion-queue-error',
  [ibv.IBV_EVENT_QP_FATAL]: 'queue-pair-error',
  [ibv.IBV_EVENT_QP_REQ_ERR]: 'queue-pair-error',
  [ibv.IBV_EVENT_QP_ACCESS_ERR]: 'access-error',
  [ibv.IBV_EVENT_PATH_MIG_ERR]: 'path-change',
  [ibv.IBV_EVENT_DEVICE_FATAL]: 'device-fatal',
  [ibv.IBV_EVENT_PORT_ACTIVE]: 'port-active',
  [ibv.IBV_EVENT_PORT_ERR]: 'port-error',
  [ibv.IBV_EVENT_LID_CHANGE]: 'path-change',
  [ibv.IBV_EVENT_PKEY_CHANGE]: 'path-change',
  [ibv.IBV_EVENT_GID_CHANGE]: 'path-change',
}

/** Null for events that ask for nothing: a connection that came up, a drained send queue, shared receive queues. */
export function eventKindOf(value: number): EventKind | null {
  return eventKinds[value] ?? null
}

/** Events after which the queue pair named in the event's element is in error. */
export function isQueuePairFailure(value: number): boolean {
  return value >= ibv.IBV_EVENT_QP_FATAL && value <= ibv.IBV_EVENT_QP_ACCESS_ERR
}

const { errno } = constants
const codes: Readonly<Record<number, ProviderFailure['code']>> = {
  [errno.EPERM]: 'permission',
  [errno.EACCES]: 'permission',
  [errno.ENOMEM]: 'no-memory',
  [errno.ENODEV]: 'device-gone',
  [errno.ENXIO]: 'device-gone',
  [errno.EIO]: 'device-gone',
  [errno.EOPNOTSUPP]: 'not-supported',
  [errno.ENOSYS]: 'not-supported',
  [errno.EMFILE]: 'limit',
  [errno.ENFILE]: 'limit',
  [errno.ENOSPC]: 'limit',
  [errno.ENETUNREACH]: 'unreachable',
  [errno.EHOSTUNREACH]: 'unreachable',
  [errno.ETIMEDOUT]: 'unreachable',
}

/** A call of the library that failed with an error number, positive or negative as drivers like it. */
export function failureOf(attempted: string, number: number, hint = ''): ProviderFailure {
  const positive = Math.abs(number)
  const code = codes[positive] ?? 'invalid'
  return { code, message: `${code}: ${attempted}: ${errnoName(positive)}${hint === '' ? '' : `; ${hint}`}` }
}
