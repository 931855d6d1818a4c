/** One end of `core-distance.ts`: a thread on a core of its own that passes a word to and fro when it is told to. */
import { readlinkSync } from 'node:fs'
import { basename } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { systemFutex } from '../../../shm/libc.js'
import { SharedWords } from '../../../shm/words.js'

const BATCHES = 30
const BATCH_ROUNDS = 100
/** Far more than it takes, unless others have the cores. */
const PATIENCE_MS = 50
const SPINS_BETWEEN_LOOKS = 4096
/** In the word instead of a number of passes: one end gave up. */
const GIVEN_UP = -1

const { shared, side } = workerData as { readonly shared: SharedArrayBuffer; readonly side: number }
/** Nobody sleeps on it, so its address is not needed. */
const words = new SharedWords(new Int32Array(shared), 0, systemFutex)

/** False: it did not come in time. Waker: the other end, which spins on its own core. */
function waitFor(value: number, untilMs: number): boolean {
  for (let spins = 1; words.load(0) !== value; spins++) {
    if (spins % SPINS_BETWEEN_LOOKS !== 0) continue
    if (performance.now() < untilMs && words.load(0) !== GIVEN_UP) continue
    words.store(0, GIVEN_UP)
    return false
  }
  return true
}

/** Passes the word on whenever it comes; false: the other end was not there. */
function passBatch(first: number, untilMs: number): boolean {
  for (let pass = first; pass < first + 2 * BATCH_ROUNDS; pass += 2) {
    if (side === 0) words.store(0, pass + 1)
    if (!waitFor(side === 0 ? pass + 2 : pass + 1, untilMs)) return false
    if (side === 1) words.store(0, pass + 2)
  }
  return true
}

/** Median of the batches, in nanoseconds one way: whoever was interrupted spoils a few of them. */
function measure(): number | null {
  const untilMs = performance.now() + PATIENCE_MS
  const times: number[] = []
  for (let batch = 0; batch < BATCHES; batch++) {
    const startMs = performance.now()
    if (!passBatch(batch * 2 * BATCH_ROUNDS, untilMs)) return null
    times.push(((performance.now() - startMs) * 1e6) / (2 * BATCH_ROUNDS))
  }
  return times.sort((a, b) => a - b)[BATCHES >> 1]!
}

parentPort?.on('message', () => parentPort?.postMessage(measure()))
parentPort?.postMessage(Number(basename(readlinkSync('/proc/thread-self'))))
