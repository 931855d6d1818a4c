/** What one measurement uses: a connected queue pair, its completion queue, memory in equal pieces, and prepared lists of requests. */
import type { BenchLinkPlan, BenchOffer } from '../protocol/bench.js'
import { limits } from '../protocol/limits.js'
import { Waiter } from './bench-waiter.js'
import type { CompletionQueue } from './completion-queue.js'
import type { MemoryRegion } from './memory-region.js'
import type { QueuePair } from './queue-pair.js'
import type { Session } from './session.js'
import type { ReceiveWorkRequest, ScatterGatherEntry } from './work-request.js'

/** Requests of a list at most; only its last one makes a completion. */
const LONGEST_LIST = 64

/** Twice as many as sends, where that is possible: a sender that finds no receive waits for the receiver's turn, and is not measured itself. */
export const receivesFor = (sends: number): number => Math.min(2 * sends, limits.slotsPerQueue)

export class BenchLink {
  readonly plan: BenchLinkPlan
  readonly memory: MemoryRegion
  readonly queuePair: QueuePair
  readonly waiter: Waiter
  /** Of the peer, for one-sided requests. */
  remoteKey = 0
  readonly #completionQueue: CompletionQueue

  constructor(plan: BenchLinkPlan, memory: MemoryRegion, completionQueue: CompletionQueue, queuePair: QueuePair) {
    this.plan = plan
    this.memory = memory
    this.queuePair = queuePair
    this.waiter = new Waiter(completionQueue, plan.wait)
    this.#completionQueue = completionQueue
  }

  static async open(session: Session, plan: BenchLinkPlan): Promise<BenchLink> {
    const rights = { remoteRead: true, remoteWrite: true, remoteAtomic: true }
    const memory = await session.registerMemory(plan.slots * plan.byteLength, rights)
    const maxReceive = receivesFor(plan.depth)
    const completionQueue = await session.createCompletionQueue({ capacity: plan.depth + maxReceive })
    const queuePair = await session.createQueuePair({
      sendCq: completionQueue,
      maxSend: plan.depth,
      maxReceive,
    })
    return new BenchLink(plan, memory, completionQueue, queuePair)
  }

  get offer(): BenchOffer {
    return { address: this.queuePair.address, memoryKey: this.memory.remoteKey }
  }

  async connect({ address, memoryKey }: BenchOffer): Promise<void> {
    this.remoteKey = memoryKey
    await this.queuePair.connect(address, { timeoutMs: 20_000 })
  }

  /** What a request for one of the pieces says of its payload. */
  payload(slot: number): { readonly local: readonly ScatterGatherEntry[]; readonly inline?: boolean } {
    const { slots, byteLength, inline } = this.plan
    const local = [{ region: this.memory, offset: (slot % slots) * byteLength, length: byteLength }]
    return inline && byteLength <= this.queuePair.maxInline ? { local, inline } : { local }
  }

  get listLength(): number {
    return Math.min(LONGEST_LIST, Math.max(1, this.plan.slots >> 2))
  }

  receives(count: number): ReceiveWorkRequest[] {
    return Array.from({ length: count }, (_, id) => ({ id, local: this.payload(id).local }))
  }

  postReceives(list: readonly ReceiveWorkRequest[]): void {
    const accepted = this.queuePair.postReceive(list)
    if (accepted !== list.length) throw new Error(`${accepted} of ${list.length} receives were taken`)
  }

  async close(): Promise<void> {
    await this.queuePair.close()
    await this.#completionQueue.close()
    await this.memory.close()
  }
}

/** `tails[n]` is the last n of a list: what is posted again when only its first part was taken. */
export function tailsOf<Request>(list: readonly Request[]): readonly (readonly Request[])[] {
  return Array.from({ length: list.length + 1 }, (_, count) => list.slice(list.length - count))
}
