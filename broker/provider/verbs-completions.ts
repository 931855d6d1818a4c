/** Completions from the device to the caller: polled by the list, routed by the ledgers, and armed for sleep. */

import { status } from '../../protocol/statuses.js'
import { bytes, layout } from '../../shm/layout.js'
import type { CompletionBatch, ProviderCounters } from './provider.js'
import { Arena } from './soft-arena.js'
import { ibvCompletion as completion } from './verbs-abi.js'
import type { DataPath } from './verbs-library.js'
import { isReceiveOwner, serialOf, type VerbsCompletionQueue, type VerbsQueuePair } from './verbs-objects.js'
import { statusOf } from './verbs-status.js'

const POLLED_MAX = 64
const arenaLayout = layout('completion arena', { completions: bytes(POLLED_MAX * completion.byteLength) })

export class VerbsCompletions {
  /** Queue pairs whose first error completion was taken; the device empties the list. */
  readonly failed: VerbsQueuePair[] = []
  readonly #arena = new Arena(arenaLayout.byteLength)
  readonly #dataPath: DataPath
  readonly #counters: ProviderCounters
  /** Living queue pairs by serial number. */
  readonly #owners: ReadonlyMap<number, VerbsQueuePair>

  constructor(dataPath: DataPath, counters: ProviderCounters, owners: ReadonlyMap<number, VerbsQueuePair>) {
    this.#dataPath = dataPath
    this.#counters = counters
    this.#owners = owners
  }

  close(): void {
    this.#arena.close()
  }

  poll(queue: VerbsCompletionQueue, into: CompletionBatch): number {
    const before = into.count
    if (queue.staged.count > 0) this.#unstage(queue, into)
    while (into.count < into.capacity) {
      const wished = Math.min(into.capacity - into.count, POLLED_MAX)
      if (this.#pollDevice(queue, into, wished) < wished) break
    }
    return into.count - before
  }

  /** Asks for an event at the next completion, then looks once more; false: something is there. */
  prepareSleep(queue: VerbsCompletionQueue): boolean {
    if (queue.staged.count > 0) return false
    if (!queue.isArmed) {
      this.#dataPath.armQueue(queue.pointer, 0)
      this.#counters.systemCalls++
      queue.isArmed = true
    }
    // What came before the queue was armed raises no event.
    this.#pollDevice(queue, queue.staged, queue.staged.capacity)
    return queue.staged.count === 0
  }

  /** How many completions the device gave; those of queue pairs that are gone reach nobody. */
  #pollDevice(queue: VerbsCompletionQueue, into: CompletionBatch, wished: number): number {
    const polled = this.#dataPath.pollQueue(queue.pointer, wished, this.#arena.memory.address)
    for (let index = 0; index < polled; index++) this.#take(index * completion.byteLength, into)
    return polled
  }

  #take(base: number, into: CompletionBatch): void {
    const { u32 } = this.#arena.memory
    const word = base >>> 2
    const owner = u32[word + completion.wr_id / 4 + 1]!
    const queuePair = this.#owners.get(serialOf(owner))
    if (queuePair === undefined) return
    const isReceive = isReceiveOwner(owner)
    const ledger = isReceive ? queuePair.receives : queuePair.sends
    const at = ledger.retire(u32[word + completion.wr_id / 4]!)
    if (at < 0) return
    const verdict = statusOf(u32[word + completion.status / 4]!)
    const byteLength = verdict === status.success && isReceive ? u32[word + completion.byte_len / 4]! : 0
    if (verdict !== status.success) this.#noteFailure(queuePair)
    else if (isReceive) this.#counters.bytesReceived += byteLength
    into.push(ledger.idLow[at]!, ledger.idHigh[at]!, verdict, ledger.opcode[at]!, queuePair.number, byteLength)
  }

  #noteFailure(queuePair: VerbsQueuePair): void {
    if (queuePair.state === 'error') return
    queuePair.state = 'error'
    this.failed.push(queuePair)
  }

  #unstage(queue: VerbsCompletionQueue, into: CompletionBatch): void {
    const { staged } = queue
    let taken = 0
    for (; taken < staged.count && into.count < into.capacity; taken++) copyCompletion(staged, taken, into)
    for (let index = taken; index < staged.count; index++) moveDown(staged, index, index - taken)
    staged.count -= taken
  }

  /** Forgets staged completions of a queue pair that is going. */
  forget(queue: VerbsCompletionQueue, number: number): void {
    const { staged } = queue
    let kept = 0
    for (let index = 0; index < staged.count; index++) {
      if (staged.queuePair[index] !== number) moveDown(staged, index, kept++)
    }
    staged.count = kept
  }
}

function copyCompletion(from: CompletionBatch, index: number, into: CompletionBatch): void {
  const at = into.count++
  into.idLow[at] = from.idLow[index]!
  into.idHigh[at] = from.idHigh[index]!
  into.status[at] = from.status[index]!
  into.opcode[at] = from.opcode[index]!
  into.queuePair[at] = from.queuePair[index]!
  into.byteLength[at] = from.byteLength[index]!
}

function moveDown(batch: CompletionBatch, from: number, to: number): void {
  const { count } = batch
  batch.count = to
  copyCompletion(batch, from, batch)
  batch.count = count
}
