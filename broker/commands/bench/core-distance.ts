/**
 * How long a cache line takes from one core to another. A virtual machine's host moves its processors about: within one
 * cluster of cores they are near, else several times as far apart, and what two cores do together runs at half its speed. A
 * figure says little without that.
 *
 *   main ──► end 0 on its core ─── one word to and fro ─── end 1 on its core
 */
import { cpus } from 'node:os'
import { Worker } from 'node:worker_threads'
import { systemFutex } from '../../../shm/libc.js'
import { SharedWords, type Words } from '../../../shm/words.js'
import { pinThread } from './pinning.js'

/** More is another cluster, or another socket; within one it is a third of that. */
export const FAR_NS = 100

interface End {
  readonly worker: Worker
  /** What it reports after each order; null: the other end did not run in time. */
  next(): Promise<number | null>
}

async function startEnd(shared: SharedArrayBuffer, side: number, core: number): Promise<End> {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const worker = new Worker(new URL(`./core-distance-end.${extension}`, import.meta.url), {
    workerData: { shared, side },
  })
  const next = <Report>(): Promise<Report> =>
    new Promise((resolve, reject) => {
      worker.once('error', reject)
      worker.once('message', (report: Report) => {
        worker.off('error', reject)
        resolve(report)
      })
    })
  try {
    pinThread(await next<number>(), core)
  } catch (error) {
    await worker.terminate()
    throw error
  }
  // It sleeps between two measurements and keeps nobody from ending.
  worker.unref()
  return { worker, next }
}

export class CoreDistance {
  readonly #words: Words
  readonly #ends: readonly End[]
  #last: number | null = null

  private constructor(words: Words, ends: readonly End[]) {
    this.#words = words
    this.#ends = ends
  }

  static async between(first: number, second: number): Promise<CoreDistance> {
    const shared = new SharedArrayBuffer(64)
    const ends: End[] = []
    try {
      for (const [side, core] of [first, second].entries()) ends.push(await startEnd(shared, side, core))
    } catch (error) {
      await Promise.all(ends.map(({ worker }) => worker.terminate()))
      throw error
    }
    const distance = new CoreDistance(new SharedWords(new Int32Array(shared), 0, systemFutex), ends)
    // The first time is the compiler's.
    await distance.#measure()
    distance.#last = await distance.#measure()
    return distance
  }

  /** Undefined where there is one core only, or where this process may not have both: then nothing is told of it. */
  static ofFirstTwo(): Promise<CoreDistance | undefined> {
    if (cpus().length < 2) return Promise.resolve(undefined)
    return CoreDistance.between(0, 1).catch(() => undefined)
  }

  /** Nanoseconds one way, now or when this was asked last, whichever is more: what was measured in between had that. Null: others had the cores. */
  async sinceLast(): Promise<number | null> {
    const [before, after] = [this.#last, await this.#measure()]
    this.#last = after
    return before === null || after === null ? (before ?? after) : Math.max(before, after)
  }

  /** Takes a millisecond or two. */
  async #measure(): Promise<number | null> {
    this.#words.store(0, 0)
    const reports = this.#ends.map(({ next }) => next())
    for (const { worker } of this.#ends) worker.postMessage('go')
    const [distance = null] = await Promise.all(reports)
    return distance
  }

  async end(): Promise<void> {
    await Promise.all(this.#ends.map(({ worker }) => worker.terminate()))
  }
}
