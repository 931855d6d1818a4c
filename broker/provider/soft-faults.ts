/**
 * Faults that tests order from a soft device: per queue pair, and per request where it matters. A device opened without
 * them has none of this on its paths but a comparison with null.
 *
 *   const faults = new FaultHooks()
 *   const device = openSoftDevice({ …, faults })
 *   faults.everyQueuePair.delayMs = 5                        for queue pairs made from now on
 *   faults.of(queuePair.number).cutAfterExecuting = 7        this device executes request 7 of the peer, then goes silent
 *   faults.executed                                          what this device executed: the oracle
 *
 * All of them describe the device that has them as *responder*, except `vanish` and `overrunCompletionQueue`.
 */
import type { ProviderCompletionQueue } from './provider.js'

export interface ExecutedRequest {
  readonly queuePair: number
  /** Counted from 0 since the queue pair was connected. */
  readonly index: number
  readonly opcode: 'send' | 'write' | 'read'
  readonly byteLength: number
}

const NEVER = -1

export class QueuePairFaults {
  readonly #record: (request: ExecutedRequest) => void
  /** Executes, but answers nothing: no acknowledgement, no read data, no refusal. */
  dropAcknowledgements = false
  /** Arriving bytes are looked at this much later. */
  delayMs = 0
  /** Nothing that arrives is looked at: the process is stopped, its kernel is not. */
  stopExecuting = false
  /** The connection ends after this request was executed and before anybody is told; -1 = never. */
  cutAfterExecuting = NEVER
  /** The connection ends after so many payload bytes of this request were placed; `request` -1 = never. */
  partialWriteThenCut = { request: NEVER, byteLength: 0 }
  /** Set when a cut is due; the queue pair acts on it. */
  isCut = false

  constructor(record: (request: ExecutedRequest) => void) {
    this.#record = record
  }

  onExecuted(request: ExecutedRequest): void {
    this.#record(request)
    if (request.index === this.cutAfterExecuting) this.isCut = true
  }

  /** Copies what was ordered for every queue pair. */
  assign(from: QueuePairFaults): void {
    this.dropAcknowledgements = from.dropAcknowledgements
    this.delayMs = from.delayMs
    this.stopExecuting = from.stopExecuting
    this.cutAfterExecuting = from.cutAfterExecuting
    this.partialWriteThenCut = { ...from.partialWriteThenCut }
  }
}

/** What the device lets the hooks do to it. */
export interface FaultyDevice {
  vanish(): void
  overrun(queue: ProviderCompletionQueue): void
}

export class FaultHooks {
  /** In the order of execution. */
  readonly executed: ExecutedRequest[] = []
  readonly everyQueuePair: QueuePairFaults
  readonly #queuePairs = new Map<number, QueuePairFaults>()
  #device: FaultyDevice | null = null

  constructor() {
    this.everyQueuePair = this.#make()
  }

  of(queuePair: number): QueuePairFaults {
    const known = this.#queuePairs.get(queuePair)
    if (known !== undefined) return known
    const made = this.#make()
    made.assign(this.everyQueuePair)
    this.#queuePairs.set(queuePair, made)
    return made
  }

  /** The device is gone, without completions and without events: posting finds it dead, polling finds nothing. */
  vanish(): void {
    this.#device?.vanish()
  }

  /** The next completion of this queue finds it full. */
  overrunCompletionQueue(queue: ProviderCompletionQueue): void {
    this.#device?.overrun(queue)
  }

  attach(device: FaultyDevice): void {
    this.#device = device
  }

  #make(): QueuePairFaults {
    return new QueuePairFaults((request) => this.executed.push(request))
  }
}
