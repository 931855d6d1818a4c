/**
 * The last replies of one connection, by request id: a client that repeats a request, because it does not know whether the first
 * was heard, gets the first answer again and nothing is done twice (crash-consistency W16). Bounded; the oldest goes first.
 */

import { encodeFailure } from '../../protocol/codec.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import { sessionBounds } from './limits.js'

export interface Reply {
  readonly message: Uint8Array
  /** undefined: what they belonged to is gone. */
  readonly descriptors: () => readonly number[] | undefined
}

export class ReplyMemory {
  readonly #replies = new Map<number, Reply | 'pending'>()

  /** A request begins; false when it is a repeat, answered or under way. */
  begin(id: number): boolean {
    if (this.#replies.has(id)) return false
    this.#replies.set(id, 'pending')
    if (this.#replies.size > sessionBounds.rememberedReplies) this.#forgetOldest()
    return true
  }

  end(id: number, reply: Reply): void {
    this.#replies.set(id, reply)
  }

  /** Gives the id free: nothing was begun for it. */
  abandon(id: number): void {
    this.#replies.delete(id)
  }

  /** What to send for a repeat; undefined while the first is under way, whose answer will serve both. */
  repeat(id: number): { readonly message: Uint8Array; readonly descriptors: readonly number[] } | undefined {
    const reply = this.#replies.get(id)
    if (reply === undefined || reply === 'pending') return undefined
    const descriptors = reply.descriptors()
    if (descriptors) return { message: reply.message, descriptors }
    const gone = new SharedVerbsError('closed', `request ${id} was answered before, and its object is closed since`)
    return { message: encodeFailure(id, gone), descriptors: [] }
  }

  #forgetOldest(): void {
    for (const [id, reply] of this.#replies) {
      if (reply === 'pending') continue
      this.#replies.delete(id)
      return
    }
  }
}
