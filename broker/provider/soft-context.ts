/** What the parts of one soft device share: time, counters, scratch memory, sockets, keys and lists of what is to be done. */
import type { Memory } from '../../shm/memory.js'
import type { DeviceCapabilities, ProviderCounters, ProviderEvent } from './provider.js'
import { Arena } from './soft-arena.js'
import type { FaultHooks } from './soft-faults.js'
import { SCRATCH_BYTES, SCRATCH_MARGIN_BYTES } from './soft-input.js'
import { MemoryTable, type RandomBytes } from './soft-memory.js'
import { SocketSet } from './soft-sockets.js'

export interface SoftCounters extends ProviderCounters {
  /** Connections that were refused: stale or wrong number, packet sequence or token, garbage, or none of it in time. */
  connectionsRefused: number
  /** Streams that were cut because the peer sent what no peer would send. */
  protocolErrors: number
}

/** Queue pairs that want a turn, each once; whoever still wants one afterwards queues up again behind the others. */
export class WorkList<Item extends { readonly listed: Uint8Array }> {
  readonly #index: number
  #items: Item[] = []
  #taken: Item[] = []

  /** `index` is the list's own flag in `listed`. */
  constructor(index: number) {
    this.#index = index
  }

  get length(): number {
    return this.#items.length
  }

  add(item: Item): void {
    if (item.listed[this.#index] !== 0) return
    item.listed[this.#index] = 1
    this.#items.push(item)
  }

  /** Everybody who waits now, taken off the list; valid until the next call. */
  take(): readonly Item[] {
    const taken = this.#items
    this.#items = this.#taken
    this.#items.length = 0
    this.#taken = taken
    for (const item of taken) item.listed[this.#index] = 0
    return taken
  }
}

export interface Listed {
  readonly listed: Uint8Array
}

export class SoftContext<QueuePair extends Listed = Listed> {
  nowMs = 0
  readonly counters: SoftCounters = {
    queuePairs: 0,
    queuePairsCreated: 0,
    memoryRegions: 0,
    messagesSent: 0,
    bytesSent: 0,
    bytesReceived: 0,
    receiverNotReady: 0,
    systemCalls: 0,
    connectionsRefused: 0,
    protocolErrors: 0,
  }
  readonly limits: DeviceCapabilities
  readonly faults: FaultHooks | null
  readonly random: RandomBytes
  readonly table: MemoryTable
  readonly sockets = new SocketSet()
  readonly receiving = new WorkList<QueuePair>(0)
  readonly transmitting = new WorkList<QueuePair>(1)
  #events: ProviderEvent[] = []
  readonly #scratch = new Arena(SCRATCH_BYTES + SCRATCH_MARGIN_BYTES)

  constructor(limits: DeviceCapabilities, random: RandomBytes, faults: FaultHooks | null) {
    this.limits = limits
    this.random = random
    this.faults = faults
    this.table = new MemoryTable(random)
  }

  /** For bytes that live no longer than the call that received them. */
  get scratch(): Memory {
    return this.#scratch.memory
  }

  emit(kind: ProviderEvent['kind'], subject: number): void {
    this.#events.push({ kind, subject })
  }

  takeEvents(): readonly ProviderEvent[] {
    if (this.#events.length === 0) return NO_EVENTS
    const events = this.#events
    this.#events = []
    return events
  }

  close(): void {
    this.sockets.destroy()
    this.#scratch.close()
  }
}

const NO_EVENTS: readonly ProviderEvent[] = []
