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

/**
 * Queue pairs that want a turn, each once; whoever still wants one afterwards queues up again behind the others. The arrays only ever
 * grow: one that is emptied by its length is made anew by the next that comes, in every turn.
 */
export class WorkList<Item extends { readonly listed: Uint8Array }> {
  readonly #index: number
  #items: (Item | null)[] = []
  #taken: (Item | null)[] = []
  #takenCount = 0
  #taking = 0
  /** How many wait. */
  length = 0

  /** `index` is the list's own flag in `listed`. */
  constructor(index: number) {
    this.#index = index
  }

  add(item: Item): void {
    if (item.listed[this.#index] !== 0) return
    item.listed[this.#index] = 1
    this.#items[this.length++] = item
  }

  /** Takes everybody who waits now off the list, for `next`. */
  take(): void {
    const taken = this.#items
    this.#items = this.#taken
    this.#taken = taken
    this.#takenCount = this.length
    this.#taking = 0
    this.length = 0
  }

  /** The next of those who were taken, or null. */
  next(): Item | null {
    if (this.#taking === this.#takenCount) return null
    const item = this.#taken[this.#taking]!
    this.#taken[this.#taking++] = null
    item.listed[this.#index] = 0
    return item
  }
}

export interface Listed {
  readonly listed: Uint8Array
}

export class SoftContext<QueuePair extends Listed = Listed> {
  nowMs = 0
  /** Queue pairs whose socket is full. */
  blocked = 0
  /** Queue pairs with a long message under way. */
  owing = 0
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
