/**
 * A lane: one shared queue pair of the provider, and everything that must be known to keep it healthy.
 *
 *   memory   ┌ send frames ┬ bounce buffers ┬ stages for inline writes ┐     one registered span, each buffer bounceByteLength
 *   ledger   posted provider requests in posting order: frame or bulk chunk → retired by the completion of itself or of a later one
 *   credit   frames may be sent up to the peer's laneLimit; the last one only for acknowledgements with news, a few before it only
 *            for control (verbs-semantics H5b), so that both sides can always report what they consumed
 *
 * Invariants: never more requests posted than the send depth; never a frame without a posted bounce buffer at the peer, so the provider's
 * receiver-not-ready count stays 0; a one-sided chunk is never posted before a message of the same flow that precedes it.
 */

import { limits } from '../../protocol/limits.js'
import type { LaneParameters } from '../../protocol/link.js'
import { laneHeader, messageType, packKind, routeHeader } from '../../protocol/wire.js'
import type { Memory } from '../../shm/memory.js'
import { ringCapacity } from '../../shm/reference-ring.js'
import {
  type ProviderQueuePair,
  type RegisteredMemory,
  sendFlag,
  sendOpcode,
  WorkRequestBatch,
} from '../provider/provider.js'
import { BulkPace } from './bulk-pace.js'
import type { Flow } from './flow.js'
import type { LaneGroup } from './lane-group.js'
import type { LanePath } from './lane-path.js'
import { BULK_DEPTH, laneIdHigh, laneSizes, SIGNALED_CHUNK_BYTES } from './lane-sizes.js'
import type { SendRequest } from './request.js'
import type { Timer } from './timers.js'

export const creditTier = { data: 0, control: 1, acknowledgement: 2 } as const
export type CreditTier = (typeof creditTier)[keyof typeof creditTier]

export const ledgerKind = { frame: 1, write: 2, read: 3 } as const

const LANE_HEADER_BYTES = laneHeader.byteLength
const ROUTE_HEADER_BYTES = routeHeader.byteLength
const align8 = (byteLength: number): number => (byteLength + 7) & ~7

const BATCH = 64

/** A message that belongs to no flow: small, bounded in number, told once. */
export interface LooseMessage {
  readonly type: number
  readonly destinationNumber: number
  readonly destinationGeneration: number
  readonly sourceNumber: number
  readonly sourceGeneration: number
  readonly sequence: number
  readonly immediate: number
  readonly payloadByteLength: number
  readonly write: (memory: Memory, offset: number) => void
}
const LOOSE_MESSAGES = 65_536

export class Lane {
  readonly index: number
  readonly incarnation: number
  readonly job: number
  readonly peer: number
  readonly peerNode: string
  readonly group: LaneGroup
  readonly path: LanePath
  /** Its name at both ends: the opener's incarnation. */
  readonly shared: number
  readonly parameters: LaneParameters
  readonly queuePair: ProviderQueuePair
  readonly memory: Memory
  readonly registered: RegisteredMemory
  readonly bounceByteLength: number
  /** Most bytes of a frame we send: the smaller of both sides' bounce buffers. */
  frameByteLength: number
  readonly bounceCount: number
  readonly frameCount: number
  readonly sendDepth: number
  /** Completion queue pool slot this lane was accounted to. */
  readonly queueIndex: number

  state: 'created' | 'opening' | 'up' | 'closing' | 'failed' = 'created'
  onUp: ((failure: string | null) => void) | null = null
  initiator = false
  /** The provider takes sends. */
  mayPost = false
  /** Flows were left when frames or the turn's budget ended: nobody goes straight past them. */
  crowded = false
  /** On the engine's list of lanes to look at. */
  busy = false
  failing = false
  /** Runs while flows on it wait for the other end's word. */
  asking: Timer | null = null
  /** Settles when it is gone; null while nobody asked for that. */
  destruction: Promise<void> | null = null
  probeDue = false
  probeReplyDue = false

  readonly batch = new WorkRequestBatch(BATCH, BATCH * 4)
  readonly receiveBatch: WorkRequestBatch

  readonly #freeStages: number[] = Array.from({ length: BULK_DEPTH }, (_, stage) => stage)
  /** Frames: free ones on a stack, the open one, its fill. */
  readonly #freeFrames: Int32Array
  #freeFrameCount: number
  #openFrame = -1
  #openBase = 0
  #openUsed = 0
  frameStamp = 0
  /** The open frame holds more than acknowledgements. */
  #openHasNews = false

  /** Ledger. */
  readonly #ledgerMask: number
  readonly #ledgerKind: Uint8Array
  readonly #ledgerFrame: Int32Array
  readonly #ledgerBytes: Float64Array
  readonly #ledgerRequest: (SendRequest | null)[]
  #ledgerHead = 0
  #ledgerTail = 0
  #unsignaled = 0

  /** Credit. All positions are 32-bit serial numbers. */
  lastSequence = 0
  peerLimit: number
  peerAcknowledged = 0
  lastReceived = 0
  consumed = 0
  advertisedLimit: number
  /** Consumed frames that carried more than acknowledgements, since we last said so. */
  consumedNews = 0
  controlReserve: number

  /** Bulk. */
  readonly bulk: SendRequest[] = []
  readonly pace = new BulkPace()
  bulkCursor = 0
  /** A notice found no frame: bulk goes first in the next turn. */
  noticeStarved = false
  bulkPostedByteLength = 0
  bulkChunks = 0
  /** Writes since a frame was sent: only a frame that follows them proves, after a loss, that they were executed. */
  unprovenWrites = 0
  unprovenByteLength = 0
  readsOutstanding = 0

  /** Flows with something to send, in round-robin order. */
  #scheduledHead: Flow | null = null
  #scheduledTail: Flow | null = null
  /** Flows with standing control messages. */
  #controlHead: Flow | null = null
  #controlTail: Flow | null = null
  /** Flows with delivery or credit news. */
  #newsHead: Flow | null = null
  #newsTail: Flow | null = null
  /** Messages delivered since acknowledgements were last sent, and flows that have news. */
  newsMessages = 0
  newsAge = 0
  newsFlows = 0
  readonly #loose: LooseMessage[] = []
  #looseHead = 0
  /** Flows bound to this lane. */
  readonly flows = new Set<Flow>()

  framesSent = 0
  framesReceived = 0
  bytesSent = 0
  bytesReceived = 0
  row = -1

  constructor(of: {
    index: number
    incarnation: number
    job: number
    peer: number
    peerNode: string
    group: LaneGroup
    path: LanePath
    shared: number
    parameters: LaneParameters
    queuePair: ProviderQueuePair
    memory: Memory
    registered: RegisteredMemory
    queueIndex: number
  }) {
    this.index = of.index
    this.incarnation = of.incarnation
    this.job = of.job
    this.peer = of.peer
    this.peerNode = of.peerNode
    this.group = of.group
    this.path = of.path
    this.shared = of.shared
    this.parameters = of.parameters
    this.queuePair = of.queuePair
    this.memory = of.memory
    this.registered = of.registered
    this.queueIndex = of.queueIndex
    this.bounceByteLength = of.parameters.bounceByteLength
    this.frameByteLength = of.parameters.bounceByteLength
    this.bounceCount = of.parameters.bounceCount
    const sizes = laneSizes(of.parameters)
    this.frameCount = sizes.frameCount
    this.sendDepth = sizes.sendDepth
    this.receiveBatch = new WorkRequestBatch(this.bounceCount, this.bounceCount)
    this.#freeFrames = Int32Array.from({ length: this.frameCount }, (_, frame) => frame)
    this.#freeFrameCount = this.frameCount
    const ledgerSize = ringCapacity(this.sendDepth + 1)
    this.#ledgerMask = ledgerSize - 1
    this.#ledgerKind = new Uint8Array(ledgerSize)
    this.#ledgerFrame = new Int32Array(ledgerSize)
    this.#ledgerBytes = new Float64Array(ledgerSize)
    this.#ledgerRequest = new Array<SendRequest | null>(ledgerSize).fill(null)
    this.peerLimit = this.bounceCount
    this.advertisedLimit = this.bounceCount
    this.controlReserve = Math.min(4, this.bounceCount >> 2)
  }

  // ---- identities of provider requests: row and incarnation above, position or buffer below --------------------------------

  get sendIdHigh(): number {
    return laneIdHigh(this.index, this.incarnation, false)
  }
  get receiveIdHigh(): number {
    return laneIdHigh(this.index, this.incarnation, true)
  }

  bounceOffset(buffer: number): number {
    return (this.frameCount + buffer) * this.bounceByteLength
  }

  // ---- lists --------------------------------------------------------------------------------------------------------------

  schedule(flow: Flow): void {
    if (flow.scheduled) return
    flow.scheduled = true
    flow.nextScheduled = null
    if (this.#scheduledTail) this.#scheduledTail.nextScheduled = flow
    else this.#scheduledHead = flow
    this.#scheduledTail = flow
  }

  takeScheduled(): Flow | null {
    const flow = this.#scheduledHead
    if (!flow) return null
    this.#scheduledHead = flow.nextScheduled
    if (!this.#scheduledHead) this.#scheduledTail = null
    flow.nextScheduled = null
    flow.scheduled = false
    return flow
  }

  addControl(flow: Flow): void {
    if (flow.inControlList) return
    flow.inControlList = true
    flow.nextControl = null
    if (this.#controlTail) this.#controlTail.nextControl = flow
    else this.#controlHead = flow
    this.#controlTail = flow
  }

  takeControl(): Flow | null {
    const flow = this.#controlHead
    if (!flow) return null
    this.#controlHead = flow.nextControl
    if (!this.#controlHead) this.#controlTail = null
    flow.nextControl = null
    flow.inControlList = false
    return flow
  }

  addNews(flow: Flow): void {
    this.newsMessages++
    if (flow.inAcknowledgementList) return
    flow.inAcknowledgementList = true
    this.newsFlows++
    flow.nextAcknowledgement = null
    if (this.#newsTail) this.#newsTail.nextAcknowledgement = flow
    else this.#newsHead = flow
    this.#newsTail = flow
  }

  takeNews(): Flow | null {
    const flow = this.#newsHead
    if (!flow) return null
    this.#newsHead = flow.nextAcknowledgement
    if (!this.#newsHead) this.#newsTail = null
    flow.nextAcknowledgement = null
    flow.inAcknowledgementList = false
    this.newsFlows--
    return flow
  }

  get hasNews(): boolean {
    return this.#newsHead !== null
  }
  get nextNews(): Flow | null {
    return this.#newsHead
  }
  get hasScheduled(): boolean {
    return this.#scheduledHead !== null
  }
  get hasControl(): boolean {
    return this.#controlHead !== null || this.looseCount > 0 || this.probeDue || this.probeReplyDue
  }

  /** False: too many; the peer behaves badly or the lane is stuck. */
  addLoose(message: LooseMessage): boolean {
    if (this.looseCount >= LOOSE_MESSAGES) return false
    this.#loose.push(message)
    return true
  }

  get looseCount(): number {
    return this.#loose.length - this.#looseHead
  }

  get nextLoose(): LooseMessage | null {
    return this.#loose[this.#looseHead] ?? null
  }

  dropLoose(): void {
    this.#looseHead++
    if (this.#looseHead < this.#loose.length) return
    this.#loose.length = 0
    this.#looseHead = 0
  }

  // ---- frames -------------------------------------------------------------------------------------------------------------

  /** Frames that may still be sent. */
  get credit(): number {
    return (this.peerLimit - this.lastSequence) | 0
  }

  get ledgerRoom(): number {
    return this.sendDepth - ((this.#ledgerTail - this.#ledgerHead) | 0)
  }

  get outstanding(): number {
    return (this.#ledgerTail - this.#ledgerHead) | 0
  }

  /** Positions of an empty ledger go on from here; they run freely through 32 bits. */
  startLedgerAt(position: number): void {
    this.#ledgerHead = position | 0
    this.#ledgerTail = position | 0
  }

  /** Payload that one message can carry at most. */
  get payloadCapacity(): number {
    return this.frameByteLength - LANE_HEADER_BYTES - ROUTE_HEADER_BYTES
  }

  /** Bounce buffers of ours that are free again and that the peer does not know of. */
  get unreported(): number {
    return (this.consumed + this.bounceCount - this.advertisedLimit) | 0
  }

  /** What was agreed with the peer, before anything is sent: its bounce buffers may be fewer or smaller than ours. */
  agree(parameters: LaneParameters): void {
    Object.assign(this.parameters, parameters)
    this.frameByteLength = Math.min(this.bounceByteLength, parameters.bounceByteLength)
    this.peerLimit = Math.min(this.bounceCount, parameters.bounceCount)
    this.advertisedLimit = this.peerLimit
    this.controlReserve = Math.min(4, this.peerLimit >> 2)
  }

  /**
   * Room for a message of `payloadByteLength`; the byte offset of its route header in `memory`, or -1: no credit of that tier, no frame
   * or no room in the send queue. Nothing is lost by -1; the caller tries again in a later turn.
   */
  beginMessage(payloadByteLength: number, tier: CreditTier): number {
    if (!this.makeRoom(payloadByteLength, tier)) return -1
    const hadNews = this.#openHasNews
    const offset = this.takeRoom(payloadByteLength)
    if (tier === creditTier.acknowledgement) this.#openHasNews = hadNews
    return offset
  }

  /** True when the open frame has room for such a message; a new one may have been opened for it. */
  makeRoom(payloadByteLength: number, tier: CreditTier): boolean {
    const needed = align8(ROUTE_HEADER_BYTES + payloadByteLength)
    if (this.#openFrame >= 0 && this.#openUsed + needed > this.frameByteLength) this.closeFrame()
    return this.#openFrame >= 0 || this.#open(tier)
  }

  /** The room that was made, as byte offsets into the lane's memory. */
  get openStart(): number {
    return this.#openBase + this.#openUsed
  }

  get openEnd(): number {
    return this.#openBase + this.frameByteLength
  }

  /** The room that was made, for a message that is more than an acknowledgement. */
  takeRoom(payloadByteLength: number): number {
    const offset = this.#openBase + this.#openUsed
    this.#openUsed += align8(ROUTE_HEADER_BYTES + payloadByteLength)
    this.#openHasNews = true
    return offset
  }

  /** Bytes of payload that fit behind a header in the open frame; 0 when no frame is open. */
  get openRoom(): number {
    return this.#openFrame < 0 ? 0 : Math.max(0, this.frameByteLength - this.#openUsed - ROUTE_HEADER_BYTES)
  }

  /**
   * The last credit is for frames that give credit back, whatever else they carry: were it spent on anything else by both sides at once,
   * neither could ever report what it consumed.
   */
  #reserve(tier: CreditTier): number {
    if (tier === creditTier.data) return 1 + this.controlReserve
    return tier === creditTier.acknowledgement && this.unreported > 0 ? 0 : 1
  }

  #open(tier: CreditTier): boolean {
    if (
      this.credit <= this.#reserve(tier) ||
      this.#freeFrameCount === 0 ||
      this.ledgerRoom < 2 ||
      this.batch.count === BATCH
    )
      return false
    this.#openFrame = this.#freeFrames[--this.#freeFrameCount]!
    this.#openBase = this.#openFrame * this.bounceByteLength
    this.#openUsed = LANE_HEADER_BYTES
    this.#openHasNews = false
    this.lastSequence = (this.lastSequence + 1) | 0
    this.frameStamp++
    return true
  }

  /** Writes the lane header and puts the frame into the batch; what is appended later stands in another frame. */
  closeFrame(): void {
    if (this.#openFrame < 0) return
    const word = this.#openBase >>> 2
    const i32 = this.memory.i32
    this.advertisedLimit = (this.consumed + this.bounceCount) | 0
    this.consumedNews = 0
    i32[word + laneHeader.word.frame] = this.#openUsed | (this.#openHasNews ? 0 : 0x10000)
    i32[word + laneHeader.word.laneSequence] = this.lastSequence
    i32[word + laneHeader.word.laneAcknowledged] = this.lastReceived
    i32[word + laneHeader.word.laneLimit] = this.advertisedLimit
    this.#record(ledgerKind.frame, this.#openFrame, this.#openUsed, null)
    this.batch.begin((this.#ledgerTail - 1) >>> 0, this.sendIdHigh, sendOpcode.send, this.#signal(false), 0, 0)
    this.batch.addSge(this.memory.address + this.#openBase, this.#openUsed, this.registered.localKey)
    this.framesSent++
    this.unprovenWrites = 0
    this.unprovenByteLength = 0
    this.bytesSent += this.#openUsed
    this.#openFrame = -1
  }

  /** A stage for inline payload, or -1; given back when its chunk is retired. */
  takeStage(): number {
    return this.#freeStages.pop() ?? -1
  }

  stageOffset(stage: number): number {
    return (this.frameCount + this.bounceCount) * this.bounceByteLength + stage * limits.inlineByteLength
  }

  /** Posts a chunk of a one-sided transfer from `stage` or a region (`stage` -1); the caller checked `chunkRoom`. */
  addChunk(
    request: SendRequest,
    opcode: number,
    remoteAddress: number,
    remoteKey: number,
    address: number,
    byteLength: number,
    localKey: number,
    stage: number,
  ): void {
    const read = opcode === sendOpcode.read
    this.#record(read ? ledgerKind.read : ledgerKind.write, stage, byteLength, request)
    const flags = this.#signal(byteLength >= SIGNALED_CHUNK_BYTES)
    this.batch.begin((this.#ledgerTail - 1) >>> 0, this.sendIdHigh, opcode, flags, remoteAddress, remoteKey)
    this.batch.addSge(address, byteLength, localKey)
    this.bulkPostedByteLength += byteLength
    this.pace.bulkBytes += byteLength
    this.bulkChunks++
    if (read) this.readsOutstanding++
    else {
      this.unprovenWrites++
      this.unprovenByteLength += byteLength
    }
    request.chunksOutstanding++
    this.bytesSent += byteLength
  }

  get chunkRoom(): boolean {
    return this.bulkChunks < BULK_DEPTH && this.ledgerRoom > 2 && this.batch.count < BATCH - 1
  }

  #signal(always: boolean): number {
    this.#unsignaled++
    if (!always && this.#unsignaled < this.sendDepth >> 2) return 0
    this.#unsignaled = 0
    return sendFlag.signaled
  }

  #record(kind: number, frame: number, byteLength: number, request: SendRequest | null): void {
    const at = this.#ledgerTail & this.#ledgerMask
    this.#ledgerKind[at] = kind
    this.#ledgerFrame[at] = frame
    this.#ledgerBytes[at] = byteLength
    this.#ledgerRequest[at] = request
    this.#ledgerTail = (this.#ledgerTail + 1) | 0
  }

  /**
   * A success completion of `position` retires it and everything posted before it. `settled` is called for each chunk.
   * Returns how many were retired; -1 for a position that is not outstanding.
   */
  retire(position: number, settled: (request: SendRequest) => void): number {
    const count = (((position | 0) - this.#ledgerHead) | 0) + 1
    if (count <= 0 || count > this.outstanding) return -1
    for (let index = 0; index < count; index++) this.#retireHead(settled)
    return count
  }

  #retireHead(settled: (request: SendRequest) => void): void {
    const at = this.#ledgerHead & this.#ledgerMask
    this.#ledgerHead = (this.#ledgerHead + 1) | 0
    const kind = this.#ledgerKind[at]!
    if (kind === ledgerKind.frame) {
      this.#freeFrames[this.#freeFrameCount++] = this.#ledgerFrame[at]!
      return
    }
    this.bulkPostedByteLength -= this.#ledgerBytes[at]!
    this.bulkChunks--
    if (kind === ledgerKind.read) this.readsOutstanding--
    if (this.#ledgerFrame[at]! >= 0) this.#freeStages.push(this.#ledgerFrame[at]!)
    const request = this.#ledgerRequest[at]!
    this.#ledgerRequest[at] = null
    request.chunksOutstanding--
    settled(request)
  }

  /** Marks the last request of the batch signaled, so that everything posted is retired soon. */
  sealBatch(): void {
    if (this.batch.count === 0) return
    this.batch.flags[this.batch.count - 1]! |= sendFlag.signaled
    this.#unsignaled = 0
  }

  // ---- messages -----------------------------------------------------------------------------------------------------------

  writeLooseRoute(offset: number, message: LooseMessage): void {
    const i32 = this.memory.i32
    const word = offset >>> 2
    i32.fill(0, word, word + ROUTE_HEADER_BYTES / 4)
    i32[word + routeHeader.word.kind] = packKind(message.type, 0, ROUTE_HEADER_BYTES + message.payloadByteLength)
    i32[word + routeHeader.word.destinationNumber] = message.destinationNumber
    i32[word + routeHeader.word.destinationGeneration] = message.destinationGeneration
    i32[word + routeHeader.word.sourceNumber] = message.sourceNumber
    i32[word + routeHeader.word.sourceGeneration] = message.sourceGeneration
    i32[word + routeHeader.word.sequence] = message.sequence
    i32[word + routeHeader.word.immediate] = message.immediate
  }

  /** Sets the true length of an acknowledgements message, which was begun with room for more rows than it got. */
  finishAcknowledgements(offset: number, payloadByteLength: number): void {
    this.writeLooseRoute(offset, {
      type: messageType.acknowledgements,
      payloadByteLength,
      sequence: 0,
      immediate: 0,
      write: () => {},
      destinationNumber: 0,
      destinationGeneration: 0,
      sourceNumber: 0,
      sourceGeneration: 0,
    })
    this.#openUsed = offset - this.#openBase + align8(ROUTE_HEADER_BYTES + payloadByteLength)
  }

  /** An acknowledgements message without rows: only the lane header's numbers matter. Returns how many messages went. */
  reportConsumed(): number {
    if (this.#openFrame >= 0) return 0
    const offset = this.beginMessage(0, creditTier.acknowledgement)
    if (offset < 0) return 0
    this.finishAcknowledgements(offset, 0)
    return 1
  }

  payloadOffset(messageOffset: number): number {
    return messageOffset + ROUTE_HEADER_BYTES
  }
}
