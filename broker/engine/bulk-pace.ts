/**
 * How much bulk may stand in front of a small message.
 *
 * Whatever is posted on a lane is executed in order, so a small message waits for all chunks before it, and the longer the queue in the
 * socket is, the more often an engine loses its core before it is through. Three paces:
 *
 *   alone        no small message lately: the whole window, which keeps both engines at work although one waits for its core now and then
 *   beside few   some: most likely they speak of the bulk itself, such as a header for each write
 *   beside many  somebody talks to and fro beside the bulk: each of those messages waits for little
 *
 * One small message is enough for a while, because the next one most likely comes within that time; it counts as many until as much bulk
 * went as tells them apart.
 */

export interface Pace {
  /** Bytes posted and not completed, at most. */
  readonly windowByteLength: number
  /** At most half of the window, so that one chunk is copied in while another is copied out. */
  readonly chunkByteLength: number
}

const KIB = 1024
export const pace = {
  alone: { windowByteLength: Number.MAX_SAFE_INTEGER, chunkByteLength: Number.MAX_SAFE_INTEGER },
  besideFew: { windowByteLength: 512 * KIB, chunkByteLength: 128 * KIB },
  besideMany: { windowByteLength: 128 * KIB, chunkByteLength: 64 * KIB },
} as const satisfies Record<string, Pace>

/** Longer than a ping-pong through two brokers takes on cores that others use as well. */
const LATELY_MS = 50
/** So much bulk is looked at to tell many from few. */
const SAMPLE_BYTES = 1024 * KIB
/** Many: a small message for each of these. A ping-pong is several times as frequent, a header for a write rarer. */
const BYTES_OF_EACH = 256 * KIB

export class BulkPace {
  /** Small messages sent on the lane so far. */
  smallMessages = 0
  /** Bytes of chunks posted on it so far. */
  bulkBytes = 0
  #seen = 0
  #lastMs = Number.NEGATIVE_INFINITY
  /** Both counts when the sample began. */
  #messagesBefore = 0
  #bytesBefore = 0
  #beside: Pace = pace.besideMany

  at(nowMs: number): Pace {
    if (this.#seen !== this.smallMessages) {
      this.#seen = this.smallMessages
      this.#lastMs = nowMs
    }
    const isAlone = nowMs - this.#lastMs >= LATELY_MS
    if (isAlone) this.#beside = pace.besideMany
    if (isAlone || this.bulkBytes - this.#bytesBefore >= SAMPLE_BYTES) this.#endSample(isAlone)
    return isAlone ? pace.alone : this.#beside
  }

  #endSample(isAlone: boolean): void {
    const messages = this.smallMessages - this.#messagesBefore
    const bytes = this.bulkBytes - this.#bytesBefore
    if (!isAlone) this.#beside = messages * BYTES_OF_EACH >= bytes ? pace.besideMany : pace.besideFew
    this.#messagesBefore = this.smallMessages
    this.#bytesBefore = this.bulkBytes
  }
}

/** What the lane may have posted and not completed at this pace; never more than it may have at all. */
export function windowLimit(wholeByteLength: number, { windowByteLength }: Pace): number {
  return Math.min(wholeByteLength, windowByteLength)
}

export function chunkLimit(wholeByteLength: number, { chunkByteLength }: Pace): number {
  return Math.min(wholeByteLength, chunkByteLength)
}
