/**
 * Posting: how a list of work requests gets from this process into a queue pair's ring, under that queue pair's lock.
 *
 *   claim       slots free → claimed(member), one compare-and-swap each; no lock
 *   (write)     the caller writes the bodies with plain stores
 *   commit      lock ─► references into the ring ─► one store of the tail = the commit of the whole list ─► unlock
 *               ─► activity bits ─► load `sleeping`, ring the engine
 *
 * Killed before the store of the tail: nothing was posted, the sweep frees the claims. Killed after it: everything was
 * posted, and the sweep or the next poster makes the broker look. So taking the lock over from a dead owner needs no
 * repair: a draft of references beyond the tail is no part of the ring and is overwritten.
 *
 * Waits: only the lock's. A living holder, stopped or slow, ends it as `busy` after `lockTimeoutMs`; a dead one is
 * replaced.
 */

import { limits } from '../protocol/limits.js'
import { activityBit, queuePairHeader } from '../protocol/queue-pair-segment.js'
import { append } from '../shm/reference-ring.js'
import { RobustLock } from '../shm/robust-lock.js'
import { claimFree, NO_CLAIM, undoClaim } from '../shm/slot-state.js'
import type { Words } from '../shm/words.js'
import type { Attachment } from './attachment.js'
import type { QueuePairSegment, SlotQueue } from './queue-pair-segment.js'

/**
 * Why the last post accepted fewer than it was given. full: poll completions first. busy: a living process holds the
 * posting lock of a shared queue pair; try again later. closed: the queue pair or the session has ended, nothing will
 * be accepted any more.
 */
export type Refusal = 'none' | 'full' | 'busy' | 'closed'

const WANT_ROOM = queuePairHeader.word.wantRoom

/** Long enough for a holder that was preempted, short enough for an event loop. */
const lockTimeoutMs = 5

/**
 * Slots of the list being posted and their generations. One for the thread: posting never awaits and calls nothing of
 * the application.
 */
export const claimedSlots = new Int32Array(limits.slotsPerQueue)
export const claimedGenerations = new Int32Array(limits.slotsPerQueue)

/** Posts to one side of one queue pair. */
export class Poster {
  readonly #words: Words
  readonly #queue: SlotQueue
  readonly #lock: RobustLock
  readonly #attachment: Attachment
  /** Bit of this ring in the job's activity. */
  readonly #activityBit: number
  /** Where the search for a free slot goes on: slots become free in about the order in which they were posted. */
  #cursor = 0

  constructor(attachment: Attachment, segment: QueuePairSegment, queue: SlotQueue) {
    this.#attachment = attachment
    this.#words = segment.words
    this.#queue = queue
    this.#lock = new RobustLock(segment.words, queue.lock, attachment.monitor)
    this.#activityBit = activityBit(segment.number, queue.side)
  }

  /**
   * Claims up to `wanted` free slots into `claimedSlots`; how many. Fewer only when no other is free: whoever is told so waits for a
   * completion, which nobody owes him if all that is in use was posted by others or asks for none.
   */
  claim(wanted: number): number {
    const { slotBase, slotWords, slotCount } = this.#queue
    const member = this.#attachment.member
    let slot = this.#cursor
    let count = 0
    for (let looked = 0; looked < slotCount && count < wanted; looked++) {
      const generation = claimFree(this.#words, slotBase + slot * slotWords, member)
      if (generation !== NO_CLAIM) {
        claimedSlots[count] = slot
        claimedGenerations[count] = generation
        count++
      }
      slot++
      if (slot === slotCount) slot = 0
    }
    if (count > 0) this.#cursor = slot
    return count
  }

  /**
   * Publishes the claimed slots in their order, all or none. Anything but 'none': nothing was posted, the claims are
   * undone.
   */
  commit(count: number): Refusal {
    const owner = this.#attachment.owner
    if (this.#lock.acquire(owner, lockTimeoutMs) === 'busy') return this.#refuseBusy(count)
    const appended = append(this.#words, this.#queue.ring, this.#queue.ringCapacity, claimedSlots, count)
    this.#lock.release(owner)
    if (!appended) {
      // Head and tail are not what honest processes leave; the broker will fail the queue pair.
      this.#undo(count)
      return 'closed'
    }
    this.#attachment.notify(this.#activityBit)
    return 'none'
  }

  #refuseBusy(count: number): Refusal {
    this.#undo(count)
    this.#words.store(WANT_ROOM, 1)
    return 'busy'
  }

  #undo(count: number): void {
    const { slotBase, slotWords } = this.#queue
    for (let index = 0; index < count; index++) {
      const word = slotBase + claimedSlots[index]! * slotWords
      undoClaim(this.#words, word, this.#attachment.member, claimedGenerations[index]!)
    }
  }
}
