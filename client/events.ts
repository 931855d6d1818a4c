/** What a session tells without being asked: `session.on('event', (event) => …)`, distinguished by `event.kind`. */
import type { EventBody } from '../protocol/control.js'
import type { SharedVerbsError } from '../protocol/errors.js'
import type { StatusName } from '../protocol/statuses.js'
import type { QueuePair } from './queue-pair.js'

/** A queue pair failed: what was posted is flushed, nothing more is sent. Close it. */
export interface QueuePairErrorEvent {
  readonly kind: 'queue-pair-error'
  readonly number: number
  readonly generation: number
  /** Status of the first work request that failed, where there was one. */
  readonly status: StatusName
  readonly reason: string
  /** The handle, when this session has one. */
  readonly queuePair: QueuePair | undefined
}

/** The peer disconnected or its process ended. */
export interface QueuePairDisconnectedEvent {
  readonly kind: 'queue-pair-disconnected'
  readonly number: number
  readonly generation: number
  readonly reason: string
  readonly queuePair: QueuePair | undefined
}

/** A post to this shared queue pair was refused as `busy`, by this session or another; it may be tried again. */
export interface QueuePairRoomEvent {
  readonly kind: 'queue-pair-room'
  readonly number: number
  readonly generation: number
  readonly queuePair: QueuePair | undefined
}

/**
 * The connection to the broker ended without `session.close()`. `recovering`: the next broker is looked for; handles stay as they are,
 * posting and waiting go on, requests wait. Otherwise, or when this comes a second time, the session has ended: requests and waits fail
 * with `error`.
 */
export interface BrokerLostEvent {
  readonly kind: 'broker-lost'
  readonly reason: string
  readonly error: SharedVerbsError
  readonly recovering: boolean
}

/** The next broker goes on with this session and everything it holds. */
export interface BrokerBackEvent {
  readonly kind: 'broker-back'
  /** Its number: each broker of a node has a higher one. */
  readonly epoch: number
}

export type SessionEvent =
  | QueuePairErrorEvent
  | QueuePairDisconnectedEvent
  | QueuePairRoomEvent
  | BrokerLostEvent
  | BrokerBackEvent
  | ({ readonly kind: 'completion-queue-error' } & EventBody<'completion-queue-error'>)
  | ({ readonly kind: 'path-lost' } & EventBody<'path-lost'>)
  | ({ readonly kind: 'path-recovered' } & EventBody<'path-recovered'>)
  | ({ readonly kind: 'device-removed' } & EventBody<'device-removed'>)
  | ({ readonly kind: 'broker-draining' } & EventBody<'broker-draining'>)
