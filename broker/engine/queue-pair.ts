/**
 * A queue pair as the engine sees it: its segment, its private records of what was posted, its flows.
 * The segment belongs to clients: everything read from it goes through drain.ts, which copies before it checks.
 */

import {
  type QueuePairGeometry,
  queuePairGeometry,
  queuePairHeader,
  queuePairState,
  queuePairType,
  receiveSlot,
  sendSlot,
} from '../../protocol/queue-pair-segment.js'
import type { Status } from '../../protocol/statuses.js'
import type { Mapping } from '../../shm/mapping.js'
import type { Memory } from '../../shm/memory.js'
import { ReferenceRingConsumer } from '../../shm/reference-ring.js'
import type { Words } from '../../shm/words.js'
import type { EngineCompletionQueue } from './completion-queue.js'
import type { Flow } from './flow.js'
import { PostedReceives } from './posted-receives.js'
import { ReceiveRequest, SendRequest } from './request.js'

export interface QueuePairSetup {
  readonly number: number
  readonly generation: number
  readonly job: number
  readonly type: 'connected' | 'datagram'
  readonly sendSlots: number
  readonly receiveSlots: number
  readonly inlineByteLength: number
  readonly rnrRetry: number
  readonly rnrTimerMs: number
  readonly trafficClass: number
}

/** What a peer that wants to connect left here until the application connects back. */
export interface HeldConnect {
  readonly from: Flow['lane']
  readonly peer: number
  readonly number: number
  readonly generation: number
  readonly cookie: number
  readonly receiveLimit: number
}

export class EngineQueuePair {
  readonly number: number
  readonly generation: number
  readonly job: number
  readonly connected: boolean
  readonly rnrRetry: number
  readonly rnrTimerMs: number
  readonly trafficClass: number
  readonly geometry: QueuePairGeometry
  readonly mapping: Mapping
  readonly memory: Memory
  readonly words: Words
  readonly sendQueue: EngineCompletionQueue
  readonly receiveQueue: EngineCompletionQueue
  readonly sendRing: ReferenceRingConsumer
  readonly receiveRing: ReferenceRingConsumer

  /** 32-bit words from one send slot to the next. */
  readonly sendSlotWords: number
  /** Send slots that were taken from the ring and have no verdict yet. */
  readonly sendsTaken: Uint8Array
  /** Records that nobody uses, linked through themselves; those used lately first. */
  #idleSend: SendRequest | null = null
  readonly receives: PostedReceives
  /** Records of receives, for those that messages are being matched to. */
  #idleReceive: ReceiveRequest | null = null
  /** Receives taken from the ring since the queue pair began; the peer's limit. */
  receivesTaken = 0

  state: number = queuePairState.idle
  errorStatus: Status = 0
  /** The only flow of a connected queue pair. */
  flow: Flow | null = null
  /** Flows of a datagram queue pair, by source and destination. */
  readonly flows = new Map<number, Flow>()
  held: HeldConnect | null = null
  /** Local flows of others that wait for a receive here. */
  readonly waitingForReceive = new Set<Flow>()
  /** Remote datagram flows that were told "not ready" and wait for a receive here, in that order. */
  readonly parkedFlows = new Set<Flow>()
  /** Datagram flows whose next request waits for everything before it on the other flows. */
  readonly fenced = new Set<Flow>()
  /** On the engine's list of rings left half drained. */
  sendBacklog = false
  receiveBacklog = false
  /** Has its send ring looked at again. */
  goOn: (() => void) | null = null

  closing = false
  discard = false
  onClosed: (() => void) | null = null
  /** Tells the tables whom it is connected to; set by the engine's commands. */
  describe: ((flow: Flow) => void) | null = null
  /** Tells the tables its state. */
  onState: (() => void) | null = null
  /** Datagram, adopted: senders that are not known yet may stand in the flow table. */
  remembersFlows = false
  /** Completions in slots that are not in a ring yet. */
  unpublished = 0
  /** Row of counters in the node file, in 8-byte words; -1 when none. */
  counterBase = -1

  constructor(
    setup: QueuePairSetup,
    mapping: Mapping,
    sendQueue: EngineCompletionQueue,
    receiveQueue: EngineCompletionQueue,
  ) {
    this.number = setup.number
    this.generation = setup.generation
    this.job = setup.job
    this.connected = setup.type === 'connected'
    this.rnrRetry = setup.rnrRetry
    this.rnrTimerMs = setup.rnrTimerMs
    this.trafficClass = setup.trafficClass
    this.geometry = queuePairGeometry({
      ...setup,
      type: this.connected ? queuePairType.connected : queuePairType.datagram,
    })
    this.mapping = mapping
    this.memory = mapping.memory
    this.words = mapping.words
    this.sendQueue = sendQueue
    this.receiveQueue = receiveQueue
    const { sendRingOffset, sendRingCapacity, receiveRingOffset, receiveRingCapacity } = this.geometry
    this.sendRing = new ReferenceRingConsumer(this.words, sendRingOffset / 4, sendRingCapacity, setup.sendSlots)
    this.receiveRing = new ReferenceRingConsumer(
      this.words,
      receiveRingOffset / 4,
      receiveRingCapacity,
      setup.receiveSlots,
    )
    this.sendSlotWords = this.geometry.sendSlotByteLength >>> 2
    this.sendsTaken = new Uint8Array(setup.sendSlots)
    this.receives = new PostedReceives(setup.receiveSlots)
  }

  /** It goes down: nothing new starts, what is under way ends. */
  get ending(): boolean {
    return this.closing || this.state === queuePairState.error
  }

  /** A record for a send slot that was taken from the ring. */
  sendRequest(slot: number): SendRequest {
    const request = this.#idleSend ?? new SendRequest(this)
    this.#idleSend = request.next
    this.sendsTaken[slot] = 1
    request.begin(slot, this.sendSlotWord(slot))
    return request
  }

  /** Its verdict was told; nothing refers to the record any more. */
  endSend(request: SendRequest): void {
    this.sendsTaken[request.slot] = 0
    request.next = this.#idleSend
    this.#idleSend = request
  }

  /** A record for a receive that is matched to a message now: one that was used lately, so that it is in the caches. */
  receiveRequest(slot: number): ReceiveRequest {
    const receive = this.#idleReceive ?? new ReceiveRequest(this)
    this.#idleReceive = receive.next
    receive.begin(slot, this.receiveSlotWord(slot), this.receives.generationOf(slot))
    return receive
  }

  /** Its outcome was told; nothing refers to the record any more. */
  endReceive(receive: ReceiveRequest): void {
    this.receives.end(receive.slot)
    this.#retire(receive)
  }

  #retire(receive: ReceiveRequest): void {
    receive.next = this.#idleReceive
    this.#idleReceive = receive
  }

  /** What was matched and not told waits for the next message; `inPlace`: among the others in posting order, else ahead of them. */
  returnReceives(receives: readonly ReceiveRequest[], inPlace: boolean): void {
    for (const receive of receives) {
      receive.unbind()
      this.#retire(receive)
    }
    if (inPlace) this.receives.giveBack(receives.map(({ slot }) => slot))
    else for (const { slot } of receives.toReversed()) this.receives.unshift(slot)
  }

  /** Start of a send slot in 32-bit words. */
  sendSlotWord(slot: number): number {
    return (this.geometry.sendSlotsOffset + slot * this.geometry.sendSlotByteLength) >>> 2
  }

  receiveSlotWord(slot: number): number {
    return (this.geometry.receiveSlotsOffset + slot * receiveSlot.byteLength) >>> 2
  }

  /** Where a send slot's inline payload starts, in bytes. */
  inlineOffset(slot: number): number {
    return this.geometry.sendSlotsOffset + slot * this.geometry.sendSlotByteLength + sendSlot.offset.furtherEntries
  }

  /** Pairs with clients that look at the state before they post, and with inspection. */
  setState(state: number, status: Status = 0): void {
    this.state = state
    if (status !== 0) {
      this.errorStatus = status
      this.words.store(queuePairHeader.word.errorStatus, status)
    }
    this.words.store(queuePairHeader.word.state, state)
    this.onState?.()
  }

  *everyFlow(): IterableIterator<Flow> {
    if (this.flow) yield this.flow
    yield* this.flows.values()
  }
}

/** Key of a datagram flow: nodes and numbers are below 2^26 and 2^24, generations are checked against the flow. */
export const flowKey = (peer: number, number: number): number => peer * 0x1000000 + number
