/** A queue pair: where work requests are posted. The broker multiplexes many on a few real ones per pair of nodes. */
import { EventEmitter } from 'node:events'
import type { ObjectHandle, QueuePairAddress, ServiceAddress } from '../protocol/address.js'
import { limits } from '../protocol/limits.js'
import { queuePairStateNames } from '../protocol/queue-pair-segment.js'
import type { Attachment } from './attachment.js'
import type { CompletionQueue } from './completion-queue.js'
import type { QueuePairDisconnectedEvent, QueuePairErrorEvent } from './events.js'
import { claimedGenerations, claimedSlots, Poster, type Refusal } from './posting.js'
import type { QueuePairSegment } from './queue-pair-segment.js'
import type { Presentable } from './reattachment.js'
import type { ReceiveWorkRequest, SendFields, SendWorkRequest } from './work-request.js'
import { checkReceive, checkSend, PostingTarget, writeReceive, writeSend } from './work-request-encoder.js'

export type QueuePairState = (typeof queuePairStateNames)[number]

/** Plain JSON with which another process of the job on this node opens the same queue pair. */
export interface QueuePairHandle extends ObjectHandle {
  readonly kind: 'queue-pair'
  readonly sendCompletionQueue: ObjectHandle
  readonly receiveCompletionQueue: ObjectHandle
}

export interface ConnectOptions {
  /** Deadline for the peer's answer. Default 5000. */
  readonly timeoutMs?: number
  /** Gives up with `aborted`. The queue pair may become connected all the same: close it. */
  readonly signal?: AbortSignal
}

const defaultConnectTimeoutMs = 5000
/** The broker keeps the deadline of connecting; this much later the client gives the broker up. */
const answerGraceMs = 5000
/** How often a pending close looks whether a full completion ring holds the broker up. */
const reliefIntervalMs = 5

/** What the list being posted says; one for the thread, like the claimed slots. */
const operations = new Int32Array(limits.slotsPerQueue)

interface QueuePairEvents {
  error: [QueuePairErrorEvent]
  disconnected: [QueuePairDisconnectedEvent]
  /** A post was refused as `busy`; it may be tried again. */
  room: []
}

/** Emits `error` (only if somebody listens) and `disconnected`. */
export class QueuePair extends EventEmitter<QueuePairEvents> {
  readonly type: 'connected' | 'datagram'
  readonly number: number
  readonly generation: number
  /** How peers reach it, plain JSON. */
  readonly address: QueuePairAddress
  readonly sendCq: CompletionQueue
  readonly receiveCq: CompletionQueue
  /**
   * Sends and receives that can be outstanding, and bytes of an inline payload: as granted, at least what was asked
   * for.
   */
  readonly maxSend: number
  readonly maxReceive: number
  readonly maxInline: number
  /** Why the last post accepted fewer than it was given. */
  lastRefusal: Refusal = 'none'
  readonly #attachment: Attachment
  readonly #segment: QueuePairSegment
  readonly #target: PostingTarget
  readonly #sends: Poster
  readonly #receives: Poster
  #remote: QueuePairAddress | undefined
  /** What the next broker knew of its connection. */
  #presentedRemote: QueuePairAddress | undefined
  #closing: Promise<void> | undefined
  #released = false

  /** @internal Applications call `session.createQueuePair`, `session.openQueuePair` or `session.listen`. */
  constructor(attachment: Attachment, segment: QueuePairSegment, sendCq: CompletionQueue, receiveCq: CompletionQueue) {
    super()
    const { grant } = segment
    this.type = grant.type
    this.number = grant.number
    this.generation = grant.generation
    this.address = { node: attachment.grant.node, number: grant.number, generation: grant.generation }
    this.sendCq = sendCq
    this.receiveCq = receiveCq
    this.maxSend = grant.sendSlots
    this.maxReceive = grant.receiveSlots
    this.maxInline = grant.inlineByteLength
    this.#attachment = attachment
    this.#segment = segment
    this.#target = new PostingTarget(attachment, segment)
    this.#sends = new Poster(attachment, segment, segment.send)
    this.#receives = new Poster(attachment, segment, segment.receive)
    attachment.queuePairs.add(this)
  }

  /** As the broker has written it last; `closed` from the call of `close()` on. */
  get state(): QueuePairState {
    if (this.#closing) return 'closed'
    return queuePairStateNames[this.#segment.state] ?? 'error'
  }

  /** The peer of a connected queue pair, once known. */
  get remote(): QueuePairAddress | undefined {
    return this.#remote
  }

  /**
   * Posts one work request or a list in its order. Returns how many were accepted, from the first on; 0 = none, never
   * throws for full (see `lastRefusal`). Each accepted one gets exactly one verdict. Throws `invalid-argument` or
   * `address-not-resolved` for a request that is wrong in itself; then none of the list was posted.
   */
  postSend(requests: SendWorkRequest | readonly SendWorkRequest[]): number {
    return isList(requests)
      ? this.#postSends(requests as readonly SendFields[])
      : this.#postSend(requests as SendFields)
  }

  /** Posts memory for one message, or a list in its order; as `postSend`. */
  postReceive(requests: ReceiveWorkRequest | readonly ReceiveWorkRequest[]): number {
    return isList(requests) ? this.#postReceives(requests) : this.#postReceive(requests)
  }

  /**
   * Connects to a queue pair by address, or to whoever listens on a service. Throws `already-connected`,
   * `peer-unknown`, `peer-unreachable`, `connection-rejected`, `timeout`, `aborted`.
   */
  async connect(remote: QueuePairAddress | ServiceAddress, options: ConnectOptions = {}): Promise<void> {
    const { timeoutMs = defaultConnectTimeoutMs, signal } = options
    const { result } = await this.#attachment.request(
      'connectQueuePair',
      { ...this.#id, remote: plainAddress(remote), timeoutMs },
      { timeoutMs: timeoutMs + answerGraceMs, signal, done: this.whenConnected },
    )
    this.#remote = result.remote
  }

  /**
   * Tells the peer, after everything posted was delivered, and flushes what is left at the deadline. The queue pair
   * stays to be closed.
   */
  async disconnect({ timeoutMs = defaultConnectTimeoutMs, signal }: ConnectOptions = {}): Promise<void> {
    const deadlines = { timeoutMs: timeoutMs + answerGraceMs, signal }
    await this.#attachment.request('disconnectQueuePair', { ...this.#id, timeoutMs }, deadlines)
  }

  /**
   * For `session.openQueuePair` in another process of the job on this node. Lists of several processes do not
   * interleave.
   */
  share(): QueuePairHandle {
    return {
      kind: 'queue-pair',
      ...this.#id,
      sendCompletionQueue: this.sendCq.share(),
      receiveCompletionQueue: this.receiveCq.share(),
    }
  }

  /**
   * Ends it. Everything outstanding gets its verdict, and its completions can be polled after this resolved. Nothing
   * can be posted from the call on. May be called again.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  /** @internal For requests that connect it, repeated at the next broker: the result if the lost one had done it. */
  readonly whenConnected = (): { remote: QueuePairAddress } | undefined =>
    this.#presentedRemote && { remote: this.#presentedRemote }

  /** @internal */
  get presentable(): Presentable {
    return {
      ...this.#id,
      descriptor: this.#segment.descriptor,
      closing: this.#closing !== undefined,
      presented: ({ remote }) => {
        this.#presentedRemote = remote
      },
    }
  }

  /** @internal Called by the listener that accepted it. */
  connectedTo(remote: QueuePairAddress): void {
    this.#remote = remote
  }

  /** @internal Unmaps without asking the broker. */
  release(): void {
    if (this.#released) return
    this.#released = true
    this.#closing ??= Promise.resolve()
    this.#attachment.queuePairs.delete(this)
    this.#attachment.dismiss(this.#segment)
    this.#segment.close()
  }

  get #id(): { number: number; generation: number } {
    return { number: this.number, generation: this.generation }
  }

  async #close(): Promise<void> {
    const relief = setInterval(() => this.#relieve(), reliefIntervalMs)
    this.#relieve()
    try {
      await this.#attachment.request('closeQueuePair', this.#id)
    } finally {
      clearInterval(relief)
      this.#takeOver()
      this.release()
    }
  }

  /** The broker may wait for room to publish the last completions, and the poller may be waiting for this close. */
  #relieve(): void {
    this.sendCq.relieve()
    this.receiveCq.relieve()
  }

  /**
   * Keeps the completions before the segment goes. Not while other processes go on with the queue pair: they are
   * theirs as well.
   */
  #takeOver(): void {
    if (!this.#segment.brokerClosed && !this.#attachment.ended) return
    this.sendCq.takeOver(this.#segment)
    if (this.receiveCq !== this.sendCq) this.receiveCq.takeOver(this.#segment)
  }

  #accepts(): boolean {
    this.lastRefusal = 'none'
    if (this.#closing === undefined && this.#attachment.ended === undefined && !this.#segment.brokerClosed) return true
    this.lastRefusal = 'closed'
    return false
  }

  #postSend(request: SendFields): number {
    if (!this.#accepts()) return 0
    const operation = checkSend(request, this.#target)
    if (this.#sends.claim(1) === 0) return this.#full()
    writeSend(this.#target, claimedSlots[0]!, claimedGenerations[0]!, request, operation)
    return this.#commit(this.#sends, 1, 1)
  }

  #postSends(requests: readonly SendFields[]): number {
    if (requests.length === 0 || !this.#accepts()) return 0
    const most = Math.min(requests.length, this.maxSend)
    for (let index = 0; index < most; index++) operations[index] = checkSend(requests[index]!, this.#target)
    const count = this.#sends.claim(most)
    if (count === 0) return this.#full()
    for (let index = 0; index < count; index++) {
      writeSend(this.#target, claimedSlots[index]!, claimedGenerations[index]!, requests[index]!, operations[index]!)
    }
    return this.#commit(this.#sends, count, requests.length)
  }

  #postReceive(request: ReceiveWorkRequest): number {
    if (!this.#accepts()) return 0
    const entries = checkReceive(request, this.#target)
    if (this.#receives.claim(1) === 0) return this.#full()
    writeReceive(this.#target, claimedSlots[0]!, claimedGenerations[0]!, request, entries)
    return this.#commit(this.#receives, 1, 1)
  }

  #postReceives(requests: readonly ReceiveWorkRequest[]): number {
    if (requests.length === 0 || !this.#accepts()) return 0
    const most = Math.min(requests.length, this.maxReceive)
    for (let index = 0; index < most; index++) operations[index] = checkReceive(requests[index]!, this.#target)
    const count = this.#receives.claim(most)
    if (count === 0) return this.#full()
    for (let index = 0; index < count; index++) {
      writeReceive(this.#target, claimedSlots[index]!, claimedGenerations[index]!, requests[index]!, operations[index]!)
    }
    return this.#commit(this.#receives, count, requests.length)
  }

  #full(): number {
    this.lastRefusal = 'full'
    return 0
  }

  #commit(poster: Poster, count: number, wanted: number): number {
    const refusal = poster.commit(count)
    if (refusal === 'none' && count < wanted) this.lastRefusal = 'full'
    else this.lastRefusal = refusal
    return refusal === 'none' ? count : 0
  }
}

/** Array.isArray as a guard for readonly lists. */
const isList = <Item>(value: Item | readonly Item[]): value is readonly Item[] => Array.isArray(value)

/** Copies what the protocol names, so that an address taken from a larger object passes. */
function plainAddress(remote: QueuePairAddress | ServiceAddress): QueuePairAddress | ServiceAddress {
  if ('service' in remote) return { node: remote.node, service: remote.service }
  return { node: remote.node, number: remote.number, generation: remote.generation }
}
