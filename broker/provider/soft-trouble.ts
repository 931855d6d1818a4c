/**
 * What ended the work of a queue pair, noted by whoever found it and acted on by the queue pair. The first finding stays.
 *
 *   requester   the oldest unanswered request failed: it completes with `status`, the rest is flushed
 *   responder   a request of the peer was refused with `status`; a receive may have failed with `receiveStatus`
 *   stream      the socket broke or the peer sends what no peer would send: nothing is known of what is unanswered,
 *               and only time tells (verbs have no connection that could be seen to break)
 */
import { type Status, status } from '../../protocol/statuses.js'
import type { ProviderEvent } from './provider.js'

export class Trouble {
  kind: 'none' | 'requester' | 'responder' | 'stream' = 'none'
  status: Status = status.success
  receiveStatus: Status = status.success
  event: ProviderEvent['kind'] | null = null
  /** Of a stream: garbage rather than a closed socket. */
  violation = false

  get isNone(): boolean {
    return this.kind === 'none'
  }

  requesterFailed(why: Status): void {
    if (this.kind !== 'none') return
    this.kind = 'requester'
    this.status = why
  }

  responderRefused(why: Status, receiveStatus: Status, event: ProviderEvent['kind'] | null): void {
    if (this.kind !== 'none') return
    this.kind = 'responder'
    this.status = why
    this.receiveStatus = receiveStatus
    this.event = event
  }

  streamBroke(violation: boolean): void {
    if (this.kind !== 'none') return
    this.kind = 'stream'
    this.violation = violation
  }

  clear(): void {
    this.kind = 'none'
    this.status = status.success
    this.receiveStatus = status.success
    this.event = null
    this.violation = false
  }
}
