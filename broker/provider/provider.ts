/**
 * The provider contract: what the engine needs of a verbs device, and nothing else.
 *
 * A provider offers protection domains, registered memory, completion queues and reliable connected queue pairs with SEND,
 * WRITE and READ. Immediate data, solicited events, fences, atomics, invalidation and shared receive queues are not in it:
 * the broker builds them from routed messages (design §10).
 *
 * Two kinds of call:
 *   control   createQueuePair, registerMemory, …: take a `done` callback, because a device may need milliseconds. `done`
 *             runs on the engine's thread, at once or from a later `progress()`; it is called exactly once.
 *   data      postSend, postReceive, poll: synchronous, allocation-free, results are values, never exceptions.
 *
 * Everything lives on the engine's thread. Addresses are plain numbers of this process.
 */
import type { Status } from '../../protocol/statuses.js'

/** How an error of a control call is told; `code` is stable, `message` says what was attempted and the value. */
export interface ProviderFailure {
  readonly code: 'not-supported' | 'no-memory' | 'invalid' | 'limit' | 'device-gone' | 'permission' | 'unreachable'
  readonly message: string
}

export type Done<Result> = (failure: ProviderFailure | null, result: Result | null) => void

export interface DeviceCapabilities {
  readonly maxSendDepth: number
  readonly maxReceiveDepth: number
  readonly maxScatterGather: number
  readonly maxInlineByteLength: number
  readonly maxCompletionQueueDepth: number
  readonly maxMessageByteLength: number
  /** READs this device can have outstanding as initiator, and accept as responder, for each queue pair. */
  readonly maxReadsInitiated: number
  readonly maxReadsAccepted: number
  /** Chunk in which bulk transfers are best cut, bytes. */
  readonly preferredChunkByteLength: number
}

export interface PortState {
  readonly active: boolean
  readonly mtu: number
  readonly linkLayer: 'ethernet' | 'infiniband' | 'tcp'
  /** GID or host:port under which peers reach this port. */
  readonly address: string
}

/** What two ends tell each other of their queue pair; plain JSON, carried on the brokers' control link. */
export interface QueuePairAddress {
  readonly number: number
  /** First packet sequence number, random 24 bits. */
  readonly packetSequence: number
  /** Device's own part (host, port, token for soft; gid, lid, mtu for verbs). */
  readonly path: Readonly<Record<string, string | number>>
}

export interface QueuePairAttributes {
  /** READs I may have outstanding at the peer; already the minimum of both sides. */
  readonly readsInitiated: number
  readonly readsAccepted: number
  readonly pathMtu: number
  /** 4.096 µs × 2^timeout for each try, as in verbs. */
  readonly timeoutExponent: number
  /** 0..6; 7 is endless on some devices and refused here. */
  readonly retryCount: number
  /** 0..7; 7 = endless. */
  readonly rnrRetryCount: number
  readonly rnrTimerMs: number
  readonly trafficClass: number
}

export interface QueuePairLimits {
  readonly sendDepth: number
  readonly receiveDepth: number
  readonly scatterGather: number
  readonly inlineByteLength: number
}

export type QueuePairState = 'reset' | 'init' | 'ready-to-receive' | 'ready-to-send' | 'error'

export interface ProtectionDomain {
  readonly handle: number
}
export interface RegisteredMemory {
  readonly localKey: number
  readonly remoteKey: number
  readonly address: number
  readonly byteLength: number
}
export interface ProviderCompletionQueue {
  readonly handle: number
  /** At least what was asked for. */
  readonly capacity: number
}
export interface ProviderQueuePair {
  /** 24-bit number, unique on this device among living queue pairs and not soon re-used. */
  readonly number: number
  readonly limits: QueuePairLimits
}

/** What `address` is mapped from: an open descriptor of a file that nobody shrinks, and where in it. Open until it is deregistered. */
export interface MemoryFile {
  readonly descriptor: number
  readonly offset: number
}

export interface MemoryRights {
  readonly localWrite: boolean
  readonly remoteRead: boolean
  readonly remoteWrite: boolean
}

/** Asynchronous events, already acknowledged to the device when returned. */
export interface ProviderEvent {
  readonly kind:
    | 'queue-pair-error'
    | 'access-error'
    | 'completion-queue-error'
    | 'port-active'
    | 'port-error'
    | 'path-change'
    /** Soft only: nothing will be answered on this queue pair any more, which its requests learn by their timeout. */
    | 'connection-broken'
    | 'device-fatal'
  /** Queue pair number or completion queue handle, where it applies. */
  readonly subject: number
}

export const sendOpcode = { send: 0, write: 1, read: 2 } as const
export type SendOpcode = (typeof sendOpcode)[keyof typeof sendOpcode]
export const receiveOpcode = 128

export const sendFlag = { signaled: 1, inline: 2 } as const

/**
 * Work requests for one call of postSend or postReceive, as columns: filled again and again, never allocated on the way.
 * Scatter/gather entries of all requests stand one after another in the sge columns.
 */
export class WorkRequestBatch {
  count = 0
  sgeTotal = 0
  /** Why fewer than `count` requests were accepted: none, full, invalid (request at the accepted index is bad), dead. */
  refusal: 'none' | 'full' | 'invalid' | 'dead' = 'none'
  readonly idLow: Uint32Array
  readonly idHigh: Uint32Array
  readonly opcode: Uint8Array
  readonly flags: Uint8Array
  readonly remoteAddress: Float64Array
  readonly remoteKey: Uint32Array
  readonly sgeFirst: Uint32Array
  readonly sgeCount: Uint32Array
  readonly sgeAddress: Float64Array
  readonly sgeLength: Uint32Array
  readonly sgeKey: Uint32Array

  constructor(capacity: number, sgeCapacity = capacity * 4) {
    this.idLow = new Uint32Array(capacity)
    this.idHigh = new Uint32Array(capacity)
    this.opcode = new Uint8Array(capacity)
    this.flags = new Uint8Array(capacity)
    this.remoteAddress = new Float64Array(capacity)
    this.remoteKey = new Uint32Array(capacity)
    this.sgeFirst = new Uint32Array(capacity)
    this.sgeCount = new Uint32Array(capacity)
    this.sgeAddress = new Float64Array(sgeCapacity)
    this.sgeLength = new Uint32Array(sgeCapacity)
    this.sgeKey = new Uint32Array(sgeCapacity)
  }

  get capacity(): number {
    return this.idLow.length
  }

  clear(): void {
    this.count = 0
    this.sgeTotal = 0
    this.refusal = 'none'
  }

  /** Starts a request; entries follow by `addSge`. */
  begin(idLow: number, idHigh: number, opcode: number, flags: number, remoteAddress: number, remoteKey: number): void {
    const index = this.count++
    this.idLow[index] = idLow
    this.idHigh[index] = idHigh
    this.opcode[index] = opcode
    this.flags[index] = flags
    this.remoteAddress[index] = remoteAddress
    this.remoteKey[index] = remoteKey
    this.sgeFirst[index] = this.sgeTotal
    this.sgeCount[index] = 0
  }

  addSge(address: number, byteLength: number, localKey: number): void {
    const at = this.sgeTotal++
    this.sgeAddress[at] = address
    this.sgeLength[at] = byteLength
    this.sgeKey[at] = localKey
    this.sgeCount[this.count - 1]!++
  }
}

/**
 * Completions of one poll, as columns. On an error status only id, status and queuePair are valid: route by id, never by opcode.
 */
export class CompletionBatch {
  count = 0
  readonly idLow: Uint32Array
  readonly idHigh: Uint32Array
  readonly status: Uint8Array
  readonly opcode: Uint8Array
  readonly queuePair: Uint32Array
  readonly byteLength: Float64Array

  constructor(capacity: number) {
    this.idLow = new Uint32Array(capacity)
    this.idHigh = new Uint32Array(capacity)
    this.status = new Uint8Array(capacity)
    this.opcode = new Uint8Array(capacity)
    this.queuePair = new Uint32Array(capacity)
    this.byteLength = new Float64Array(capacity)
  }

  get capacity(): number {
    return this.idLow.length
  }

  push(idLow: number, idHigh: number, status: Status, opcode: number, queuePair: number, byteLength: number): void {
    const index = this.count++
    this.idLow[index] = idLow
    this.idHigh[index] = idHigh
    this.status[index] = status
    this.opcode[index] = opcode
    this.queuePair[index] = queuePair
    this.byteLength[index] = byteLength
  }
}

export interface ProviderCounters {
  queuePairs: number
  queuePairsCreated: number
  memoryRegions: number
  messagesSent: number
  bytesSent: number
  bytesReceived: number
  /** Times a message met no posted receive. The broker's credits keep this at 0. */
  receiverNotReady: number
  systemCalls: number
}

/** An opened device. */
export interface Device {
  readonly kind: 'soft' | 'verbs'
  readonly name: string
  readonly capabilities: DeviceCapabilities
  readonly counters: ProviderCounters

  port(): PortState

  allocateProtectionDomain(done: Done<ProtectionDomain>): void
  freeProtectionDomain(domain: ProtectionDomain, done: Done<true>): void
  /**
   * Registers mapped memory once; remote addresses count from 0 at `address` (iova 0). Deregister before unmapping. Told the `file`, a
   * provider without a device may hand over pages instead of copying them.
   */
  registerMemory(
    domain: ProtectionDomain,
    address: number,
    byteLength: number,
    rights: MemoryRights,
    done: Done<RegisteredMemory>,
    file?: MemoryFile,
  ): void
  deregisterMemory(memory: RegisteredMemory, done: Done<true>): void
  createCompletionQueue(capacity: number, done: Done<ProviderCompletionQueue>): void
  destroyCompletionQueue(queue: ProviderCompletionQueue, done: Done<true>): void

  /** State after it: init (receives may be posted). */
  createQueuePair(
    domain: ProtectionDomain,
    sendQueue: ProviderCompletionQueue,
    receiveQueue: ProviderCompletionQueue,
    limits: QueuePairLimits,
    done: Done<ProviderQueuePair>,
  ): void
  addressOf(queuePair: ProviderQueuePair): QueuePairAddress
  toReadyToReceive(
    queuePair: ProviderQueuePair,
    remote: QueuePairAddress,
    attributes: QueuePairAttributes,
    done: Done<true>,
  ): void
  toReadyToSend(queuePair: ProviderQueuePair, attributes: QueuePairAttributes, done: Done<true>): void
  /** Every outstanding request, signalled or not, then completes once with an error. */
  toError(queuePair: ProviderQueuePair, done: Done<true>): void
  stateOf(queuePair: ProviderQueuePair): QueuePairState
  /** Drops completions that were not polled yet. */
  destroyQueuePair(queuePair: ProviderQueuePair, done: Done<true>): void

  /** Returns how many requests were accepted, in order; `batch.refusal` says why not all. */
  postSend(queuePair: ProviderQueuePair, batch: WorkRequestBatch): number
  postReceive(queuePair: ProviderQueuePair, batch: WorkRequestBatch): number
  /** Appends up to the batch's free room; returns how many. */
  poll(queue: ProviderCompletionQueue, into: CompletionBatch): number

  /** Moves bytes, timers and control calls forward; returns how much was done (0 = nothing to do now). */
  progress(nowMs: number): number
  /** Bytes of a long message are under way: more is to be done within microseconds, so yielding is better than sleeping. */
  readonly owesBytes?: boolean
  /** Descriptors that become readable when something happens while everybody sleeps. */
  wakeDescriptors(): readonly number[]
  /** Arms completion queues and flushes acknowledgements; false = there is work now, do not sleep. */
  prepareSleep(): boolean
  /** Milliseconds until a timer of the device is due; Infinity if none. */
  nextTimerMs(nowMs: number): number
  /** Drains asynchronous events; the array is new only when there are any. */
  takeEvents(): readonly ProviderEvent[]
  /** Releases everything; must not block even after the device went away. */
  close(): void
}

/** What an operator chose of a device's path; null leaves it to the device or to who asks. Means nothing to `soft`. */
export interface PathChoice {
  readonly port: number | null
  /** Row of the port's table of GIDs. */
  readonly gidIndex: number | null
  /** At most this, a power of two from 256 to 4096. */
  readonly mtu: number | null
  /** For queue pairs that ask for none, 1 to 255. */
  readonly trafficClass: number
  readonly serviceLevel: number
}

export const noPathChoice: PathChoice = { port: null, gidIndex: null, mtu: null, trafficClass: 0, serviceLevel: 0 }

export interface DeviceDescription {
  readonly provider: 'soft' | 'verbs'
  readonly name: string
  readonly active: boolean
  readonly detail: string
}
