/**
 * A flow: the unit of order. A connected queue pair has one; a datagram queue pair has one for each destination and source.
 * It remembers what waits, what is under way, what the peer delivered, and what this side received, in both directions.
 *
 *   waiting ──start──► inFlight ──outcome known, at the head──► completion
 *
 * Nothing here survives the broker; what must (sequence, last delivered) lies in the queue pair's segment.
 */
import type { AtomicOutcome } from './atomics.js'
import type { Lane } from './lane.js'
import type { LanePath } from './lane-path.js'
import type { EngineQueuePair } from './queue-pair.js'
import type { Region } from './region.js'
import { type ReceiveRequest, RequestQueue, type SendRequest } from './request.js'
import { StraightSends, straightSend } from './straight-sends.js'

/** Failures in a row that stay true although both ends forget what they told each other. */
const REMEMBERED_FAILURES = 64

export class Flow {
  readonly queuePair: EngineQueuePair
  /** Row of the remote node; `thisNode` when both ends are here. */
  readonly peer: number
  readonly remoteNumber: number
  readonly remoteGeneration: number
  /** Null on this node, and while it is suspended and no lane is up. */
  lane: Lane | null
  /** Where it waits when its lane is lost; null on this node and for datagrams. */
  path: LanePath | null
  /** Its lane was lost and the other end has not said yet what it knows: nothing of it moves. */
  suspended = false
  /** A resume message is due, before anything else. */
  telling: 'none' | 'ask' | 'answer' = 'none'
  /** The other end's flow object, on this node. */
  twin: Flow | null = null
  readonly connected: boolean
  /** Left behind: lists that still hold it skip it. */
  dead = false
  /** Same node: where the request being copied goes. */
  localReceive: ReceiveRequest | null = null
  localRegion: Region | null = null

  readonly waiting = new RequestQueue<SendRequest>()
  /** In posting order: first those that have records, then those that need none. */
  readonly recorded = new RequestQueue<SendRequest>()
  #straight: StraightSends | null = null
  /** Flushed requests that are told after what is under way. */
  readonly flushed = new RequestQueue<SendRequest>()

  /** Messages that consumed (or will consume) a receive at the peer, and how many the peer allows; both since the flow began. */
  messagesSent = 0
  receiveLimit = 0
  /** Receives of this queue pair that were gone when the flow began: they are no credit for this peer. */
  #receivesBefore: number
  /** Highest sequence the peer has delivered, and the highest of a message this side sent: a peer cannot deliver more. */
  delivered = 0
  highestSent = 0
  /** The peer told a delivery before; until then 0 means "nothing yet" and not sequence 0. */
  deliveryTold = false
  /** A flow begins at whatever sequence its first message has. */
  outboundStarted = false
  inboundStarted = false
  /** Large sends whose chunks are not all posted: one-sided requests behind them must wait. */
  unposted = 0
  /** A write is being posted: everything behind it waits. */
  moving: SendRequest | null = null
  announced = 0
  atomicsOutstanding = 0
  /** Sequences of atomics without an answer, oldest first; the peer remembers a window of them. */
  readonly atomicSequences: number[] = []
  /** Datagram: requests in flight that must go again, and how often the peer said "no receive" since it last delivered something. */
  resending = false
  notReadyCount = 0
  /** Datagram: the peer drops everything of this flow until a message says that it is the first after "no receive". */
  resumeDue = false
  /** A timer for `retryAtMs` runs. */
  retryTimed = false
  /** Lane frame in which this flow's latest message stands and is not closed yet. */
  frameStamp = -1

  /** In the lane's (or node's) ring of flows with something to do. */
  scheduled = false
  nextScheduled: Flow | null = null
  blocked: 'none' | 'credit' | 'fence' | 'key' | 'read' | 'atomic' | 'order' | 'frame' | 'ready' = 'none'

  /** Messages matched to receives, in order; published from the head. */
  readonly inbound = new RequestQueue<ReceiveRequest>()
  /** Receive being filled by eager segments. */
  assembling: ReceiveRequest | null = null
  assembledByteLength = 0
  /** Last sequence accepted (matched) and last delivered (published). */
  accepted = 0
  lastDelivered = 0
  /** Row of the datagram flow table in the segment that holds `lastDelivered`; -1 for connected flows. */
  recordIndex = -1
  /** Datagram: the message for which there was no receive; others are dropped until it comes again. */
  parked = false
  parkedSequence = 0
  readyDue = false
  notReadyDue = false
  retryAtMs = 0

  /** News for the peer, told by the next message or by an acknowledgements row. */
  acknowledgementDue = false
  advertisedLimit = 0
  inAcknowledgementList = false
  nextAcknowledgement: Flow | null = null
  /** Sequences of messages that arrived but could not be received, with their status; told before they count as delivered. */
  readonly failedSequences: number[] = []
  readonly failedStatuses: number[] = []
  /** The latest of those that were told: they are told again after a lost lane, whose end may have forgotten them. */
  readonly toldFailures: { readonly sequence: number; readonly status: number }[] = []
  /** Results of executed atomics that are due; bounded by the atomic window. */
  readonly atomicResultsDue: { readonly sequence: number; readonly outcome: AtomicOutcome }[] = []
  readonly grantsDue: ReceiveRequest[] = []

  /** Standing control messages, latest state wins. */
  connectDue = false
  acceptDue = false
  disconnectDue = false
  disconnectedDue = false
  disconnectSent = false
  disconnectReceived = false
  disconnectedReceived = false
  disconnectedSent = false
  inControlList = false
  nextControl: Flow | null = null
  cookie = 0
  service = ''

  constructor(
    queuePair: EngineQueuePair,
    peer: number,
    remoteNumber: number,
    remoteGeneration: number,
    lane: Lane | null,
    connected: boolean,
  ) {
    this.queuePair = queuePair
    this.peer = peer
    this.remoteNumber = remoteNumber
    this.remoteGeneration = remoteGeneration
    this.lane = lane
    this.path = connected ? (lane?.path ?? null) : null
    this.connected = connected
    this.#receivesBefore = (queuePair.receivesTaken - queuePair.receives.size) | 0
  }

  /** How many messages the peer may have sent in all. */
  get limit(): number {
    return this.connected ? (this.queuePair.receivesTaken - this.#receivesBefore) | 0 : 0
  }

  /** Credit counts from here on, at both ends: receives posted now are all there are. */
  beginCredit(): void {
    this.#receivesBefore = (this.queuePair.receivesTaken - this.queuePair.receives.size) | 0
    this.advertisedLimit = 0
    this.messagesSent = 0
    this.receiveLimit = 0
  }

  /** Takes it off a lane that is lost, with all its lists. */
  leaveLane(): void {
    this.lane?.flows.delete(this)
    this.lane = null
    this.scheduled = false
    this.nextScheduled = null
    this.inControlList = false
    this.nextControl = null
    this.inAcknowledgementList = false
    this.nextAcknowledgement = null
    this.frameStamp = -1
    this.blocked = 'none'
    this.telling = 'none'
  }

  /** Nothing is under way any more; the requests themselves keep their places. */
  forgetOutbound(): void {
    this.moving = null
    this.announced = 0
    this.unposted = 0
    this.atomicsOutstanding = 0
    this.atomicSequences.length = 0
    this.resending = false
    this.resumeDue = false
    this.retryAtMs = 0
  }

  /** The sender hears of a failure when the receiver has: a message that was only placed comes again after a lost lane. */
  get failureDue(): boolean {
    const first = this.failedSequences[0]
    return first !== undefined && (this.queuePair.ending || ((first - this.lastDelivered) | 0) <= 0)
  }

  failureTold(sequence: number, status: number): void {
    if (this.toldFailures.push({ sequence, status }) > REMEMBERED_FAILURES) this.toldFailures.shift()
  }

  /** The lane is lost: the peer may not have read them, or have died before it could tell its client. */
  retellFailures(): void {
    for (const { sequence, status } of this.toldFailures.splice(0).reverse()) {
      this.failedSequences.unshift(sequence)
      this.failedStatuses.unshift(status)
    }
  }

  /** Messages that were not delivered will come again; so will their failures, and atomics whose results were not told. */
  forgetInbound(): void {
    this.assembling = null
    this.assembledByteLength = 0
    this.accepted = this.lastDelivered
    this.parked = false
    this.queuePair.parkedFlows.delete(this)
    this.readyDue = false
    this.notReadyDue = false
    this.grantsDue.length = 0
    this.atomicResultsDue.length = 0
    while (this.failedSequences.length > 0 && ((this.failedSequences.at(-1)! - this.lastDelivered) | 0) > 0) {
      this.failedSequences.pop()
      this.failedStatuses.pop()
    }
  }

  /** The peer has delivered up to here. False: it told that before, or cannot have. */
  learnDelivered(delivered: number): boolean {
    if (((delivered - this.delivered) | 0) <= 0 || ((delivered - this.highestSent) | 0) > 0) return false
    this.deliveryTold = true
    this.delivered = delivered
    this.notReadyCount = 0
    return true
  }

  beginOutbound(sequence: number): void {
    if (this.outboundStarted) return
    this.outboundStarted = true
    this.delivered = (sequence - 1) | 0
    this.highestSent = this.delivered
  }

  /** A predecessor had delivered up to here. */
  continueInbound(last: number): void {
    this.inboundStarted = true
    this.accepted = last
    this.lastDelivered = last
  }

  beginInbound(sequence: number): void {
    if (this.inboundStarted) return
    this.inboundStarted = true
    this.accepted = (sequence - 1) | 0
    this.lastDelivered = this.accepted
  }

  /** Everything under way, each with its record: what is done for every message uses `recorded` and `straight` as they are. */
  get inFlight(): RequestQueue<SendRequest> {
    if (this.straightSize > 0) this.record()
    return this.recorded
  }

  /** Sends without records; of a connected flow only. */
  get straight(): StraightSends {
    this.#straight ??= new StraightSends(this.queuePair.sendsTaken.length)
    return this.#straight
  }

  get straightSize(): number {
    return this.#straight === null ? 0 : this.#straight.size
  }

  /** Makes records of those that have none. */
  record(): void {
    const { straight, queuePair } = this
    for (; straight.size > 0; straight.drop()) {
      const { first, words, region, shared } = straight
      const request = queuePair.sendRequest(words[first + straightSend.slot]!)
      request.generation = words[first + straightSend.generation]!
      request.flags = words[first + straightSend.flags]!
      request.byteLength = words[first + straightSend.byteLength]!
      request.local.add(region, words[first + straightSend.offset]! >>> 0, request.byteLength)
      request.hasLeft(this, words[first + straightSend.sequence]!, shared, words[first + straightSend.frame]!)
      this.recorded.push(request)
    }
  }

  /** Whether something is still to be told or waited for. */
  get idle(): boolean {
    return this.waiting.size === 0 && this.recorded.size + this.straightSize === 0 && this.inbound.size === 0
  }
}
