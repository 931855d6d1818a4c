/** A queue pair without the provider's own refusals: for questions about what the kernel does with what is refused. */
import {
  CompletionBatch,
  type QueuePairAddress,
  type QueuePairAttributes,
  sendFlag,
  sendOpcode,
  WorkRequestBatch,
} from '../../../broker/provider/provider.js'
import { ibvMemoryRegion, ibvQueuePair } from '../../../broker/provider/verbs-abi.js'
import { VerbsCompletions } from '../../../broker/provider/verbs-completions.js'
import { fieldsOf, VerbsContext } from '../../../broker/provider/verbs-context.js'
import { chooseGid } from '../../../broker/provider/verbs-gid.js'
import { verbsDevices } from '../../../broker/provider/verbs-inventory.js'
import { VerbsCompletionQueue, VerbsQueuePair } from '../../../broker/provider/verbs-objects.js'
import { VerbsPosting } from '../../../broker/provider/verbs-posting.js'
import * as transitions from '../../../broker/provider/verbs-transitions.js'
import { statusName } from '../../../protocol/statuses.js'
import { clock, mapAnonymous } from '../../../shm/libc.js'

export const attributes: QueuePairAttributes = {
  readsInitiated: 4,
  readsAccepted: 4,
  pathMtu: 1024,
  timeoutExponent: 12,
  retryCount: 6,
  rnrRetryCount: 7,
  rnrTimerMs: 0.64,
  trafficClass: 0,
}

const MEMORY_BYTES = 1 << 20
const counters = {
  ...{ queuePairs: 0, queuePairsCreated: 0, memoryRegions: 0, messagesSent: 0, bytesSent: 0, bytesReceived: 0 },
  ...{ receiverNotReady: 0, systemCalls: 0 },
}

export class RawEnd {
  readonly context: VerbsContext
  readonly queuePair: VerbsQueuePair
  readonly remoteKey: number
  /** '<id> <status>' of everything polled. */
  readonly seen: string[] = []
  readonly #queue: VerbsCompletionQueue
  readonly #posting: VerbsPosting
  readonly #completions: VerbsCompletions
  readonly #memory = mapAnonymous(MEMORY_BYTES)
  readonly #localKey: number
  readonly #gidIndex: number

  constructor() {
    const opened = VerbsContext.open(verbsDevices()[0]!)
    if (!(opened instanceof VerbsContext)) throw new Error(opened.message)
    this.context = opened
    const { library } = opened
    const domain = opened.allocateDomain()
    const region = fieldsOf(
      library.registerMemory(domain, this.#memory, MEMORY_BYTES, 0, 7),
      ibvMemoryRegion.byteLength,
    )
    this.#localKey = region.getUint32(ibvMemoryRegion.lkey, true)
    this.remoteKey = region.getUint32(ibvMemoryRegion.rkey, true)
    this.#queue = new VerbsCompletionQueue(1, opened.createQueue(256, 1), 256)
    const limits = { sendDepth: 64, receiveDepth: 64, scatterGather: 1, inlineByteLength: 0 }
    const pointer = opened.createQueuePair(domain, this.#queue.pointer, this.#queue.pointer, limits)
    opened.modifyQueuePair(pointer, transitions.toInit(opened.port))
    const number = fieldsOf(pointer, ibvQueuePair.byteLength).getUint32(ibvQueuePair.qp_num, true)
    const gid = chooseGid(opened.queryGids(), 'ethernet', '')!
    this.#gidIndex = gid.index
    const address = { number, packetSequence: 77, path: { gid: gid.value, lid: 0, mtu: 1024 } }
    const both = { sendQueue: this.#queue, receiveQueue: this.#queue }
    this.queuePair = new VerbsQueuePair({ serial: 1, pointer, domain, gid, address, limits, ...both })
    this.#posting = new VerbsPosting(opened.dataPath, counters, 1 << 23, new Map([[this.#localKey, this.#memory]]))
    this.#completions = new VerbsCompletions(opened.dataPath, counters, new Map([[1, this.queuePair]]))
  }

  get address(): QueuePairAddress {
    return this.queuePair.parts.address
  }

  connect(remote: QueuePairAddress, wished: Partial<QueuePairAttributes> = {}): void {
    const all = { ...attributes, ...wished }
    const path = {
      port: 1,
      linkLayer: 'ethernet',
      gidIndex: this.#gidIndex,
      mtu: 1024,
      trafficClass: 0,
      serviceLevel: 0,
    } as const
    this.modify(transitions.toReadyToReceive(remote, all, path))
    this.modify(transitions.toReadyToSend(this.address.packetSequence, all))
  }

  modify(transition: transitions.Transition): void {
    const result = this.context.modifyQueuePair(this.queuePair.pointer, transition)
    if (result !== 0) throw new Error(`modifying the queue pair: error ${result}`)
  }

  /** How many of `count` requests from `id` on were accepted. */
  post(kind: 'send' | 'write' | 'read' | 'receive', id: number, remoteKey = 0, count = 1, length = 8): number {
    const batch = new WorkRequestBatch(count)
    for (let index = 0; index < count; index++) {
      batch.begin(id + index, 0, kind === 'receive' ? 0 : sendOpcode[kind], sendFlag.signaled, 0, remoteKey)
      batch.addSge(this.#memory, length, this.#localKey)
    }
    if (kind === 'receive') return this.#posting.postReceive(this.queuePair, batch)
    return this.#posting.postSend(this.queuePair, batch)
  }

  /** Polls for a while, or until so many completions were seen in all. */
  watch(forMs: number, untilCount = Number.POSITIVE_INFINITY): readonly string[] {
    const batch = new CompletionBatch(64)
    for (const endMs = clock.nowMs() + forMs; clock.nowMs() < endMs && this.seen.length < untilCount; ) {
      batch.count = 0
      this.#completions.poll(this.#queue, batch)
      for (let at = 0; at < batch.count; at++) this.seen.push(`${batch.idLow[at]} ${statusName(batch.status[at]!)}`)
    }
    return this.seen
  }

  close(): void {
    this.context.library.destroyQueuePair(this.queuePair.pointer)
    this.context.library.destroyQueue(this.#queue.pointer)
    this.context.close()
  }
}

export function rawPair(wished: Partial<QueuePairAttributes> = {}): readonly [RawEnd, RawEnd] {
  const [a, b] = [new RawEnd(), new RawEnd()]
  a.connect(b.address, wished)
  b.connect(a.address, wished)
  return [a, b]
}
