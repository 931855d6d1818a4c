/**
 * How much bulk may stand in front of a small message.
 *
 * Whatever is posted on a lane is executed in order, so a small message waits for all chunks before it: at 4 GB/s 130 µs for the window
 * below, a millisecond for the whole one. The whole one is for lanes without small messages, where it keeps both engines at work although
 * one of them waits for its core now and then. One small message is enough for the smaller window for a while, because the next one
 * most likely comes within that time.
 */

const WINDOW_BYTES = 512 * 1024
/** A quarter of the window, so that one chunk is copied in while another is copied out. */
const CHUNK_BYTES = 128 * 1024
/** Longer than a ping-pong through two brokers takes on cores that others use as well. */
const LATELY_MS = 50

export class BulkPace {
  /** Small messages sent on the lane so far. */
  smallMessages = 0
  #seen = 0
  #lastMs = Number.NEGATIVE_INFINITY

  /** Whether the lane carried small messages lately. */
  isShared(nowMs: number): boolean {
    if (this.#seen !== this.smallMessages) {
      this.#seen = this.smallMessages
      this.#lastMs = nowMs
    }
    return nowMs - this.#lastMs < LATELY_MS
  }
}

export function windowLimit(wholeByteLength: number, isShared: boolean): number {
  return isShared ? Math.min(wholeByteLength, WINDOW_BYTES) : wholeByteLength
}

export function chunkLimit(wholeByteLength: number, isShared: boolean): number {
  return isShared ? Math.min(wholeByteLength, CHUNK_BYTES) : wholeByteLength
}
