/** Receives of a queue pair: the ledger, and how far messages have used it up. */
import { type Status, status } from '../../protocol/statuses.js'
import type { SoftCompletionQueue } from './soft-completion-queue.js'
import { Ledger } from './soft-ledger.js'

export class ReceiveQueue extends Ledger {
  /** The receive that the next message takes. */
  next = 0

  get hasReceive(): boolean {
    return this.next !== this.posted
  }

  /** Completes everything outstanding: the oldest with `cause`, the rest as flushed. */
  flush(cause: Status, completions: SoftCompletionQueue, number: number): void {
    let why = cause
    while (this.next !== this.posted) {
      completions.pushError(this, this.next, why, number)
      this.next = (this.next + 1) | 0
      why = status.flushed
    }
  }
}
