/**
 * The engine's private records of what clients posted. A slot is copied into one of these once, then checked, then used; the slot is
 * not read again except for inline payload (content only: its length was copied). Records are used again, those used lately first, so the
 * data path allocates nothing and finds them in the caches.
 */
import { opcode } from '../../protocol/opcodes.js'
import type { Status } from '../../protocol/statuses.js'
import type { Flow } from './flow.js'
import type { EngineQueuePair } from './queue-pair.js'
import type { Region } from './region.js'
import type { RemoteRegion } from './remote-region.js'

export const requestStage = {
  /** Taken from the ring, waiting in its flow. */
  waiting: 0,
  /** Large message announced to the peer, waiting for its grant. */
  announced: 1,
  /** Bulk bytes are being posted chunk by chunk. */
  moving: 2,
  /** Everything was handed to the provider (or copied); waiting for its outcome. */
  sent: 3,
  /** The outcome is known; waiting for its turn in the flow's order. */
  finished: 4,
  /** The peer had no receive for it (datagram): goes again, in its old place. */
  again: 5,
} as const

/** Entries behind the first one of a list, as columns. */
class MoreEntries {
  readonly regions: (Region | null)[] = []
  readonly offsets: number[] = []
  readonly lengths: number[] = []
}

/**
 * A scatter/gather list checked against the tables. Nearly every list has one entry, which lies in the list itself: what is touched for
 * each message decides its cost.
 */
export class ScatterGather {
  count = 0
  byteLength = 0
  #region: Region | null = null
  #offset = 0
  #length = 0
  #more: MoreEntries | null = null

  clear(): void {
    this.count = 0
    this.byteLength = 0
  }

  add(region: Region, offset: number, byteLength: number): void {
    if (this.count === 0) {
      this.#region = region
      this.#offset = offset
      this.#length = byteLength
    } else this.#addMore(region, offset, byteLength)
    this.count++
    this.byteLength += byteLength
  }

  #addMore(region: Region, offset: number, byteLength: number): void {
    this.#more ??= new MoreEntries()
    this.#more.regions[this.count] = region
    this.#more.offsets[this.count] = offset
    this.#more.lengths[this.count] = byteLength
  }

  region(entry: number): Region {
    return entry === 0 ? this.#region! : this.#more!.regions[entry]!
  }

  offset(entry: number): number {
    return entry === 0 ? this.#offset : this.#more!.offsets[entry]!
  }

  length(entry: number): number {
    return entry === 0 ? this.#length : this.#more!.lengths[entry]!
  }

  /** Every region still open; a closed one refuses new work. */
  get usable(): boolean {
    for (let entry = 0; entry < this.count; entry++) if (!this.region(entry).open) return false
    return true
  }

  retain(): void {
    for (let entry = 0; entry < this.count; entry++) this.region(entry).uses++
  }

  release(): void {
    for (let entry = 0; entry < this.count; entry++) this.region(entry).release()
  }
}

/** Where the peer wants the bytes of a granted write: device key, address and length of each entry. */
export interface Grant {
  readonly deviceKey: number
  readonly address: number
  readonly byteLength: number
}

/** What every message needs stands first, so that it lies in few cache lines. */
export class SendRequest {
  readonly queuePair: EngineQueuePair
  slot = -1
  /** Start of the slot in 32-bit words of the segment. */
  word = 0
  flow: Flow | null = null
  next: SendRequest | null = null
  retained = false
  /** True from the moment something of it may have reached the peer. */
  exposed = false
  generation = 0
  /** Ring position: the flow's sequence number. */
  sequence = 0
  opcode = 0
  flags = 0
  stage: number = requestStage.waiting
  status: Status = 0
  /** Refused by the checks at the drain; told in order. */
  refused: Status = 0
  byteLength = 0
  immediate = 0
  readonly local = new ScatterGather()
  inlineByteLength = 0
  /** Name of the lane it was posted on last; 0: on this node, -1: nowhere yet. */
  incarnation = -1
  frame = 0
  /** Progress of the transfer: bytes, and where in the local list and in the granted entries it stands. */
  moved = 0
  localEntry = 0
  localOffset = 0
  grantEntry = 0
  grantOffset = 0
  chunksOutstanding = 0
  /** All chunks are posted, the notice that follows them is not. */
  noticeDue = false
  /** All chunks of a write were posted, and the last frame begun by then. */
  wholePosted = false
  /** When it first could not go for lack of a posted receive at the peer; 0 = not waiting. */
  parkedSinceMs = 0
  remote: RemoteRegion | null = null
  remoteKey = 0
  remoteOffset = 0
  grants: readonly Grant[] | null = null
  destinationNode = 0
  destinationNumber = 0
  destinationGeneration = 0
  compare = 0n
  swap = 0n

  constructor(queuePair: EngineQueuePair) {
    this.queuePair = queuePair
  }

  begin(slot: number, word: number): void {
    this.slot = slot
    this.word = word
    this.next = null
    this.flow = null
    this.status = 0
    this.refused = 0
    this.exposed = false
    this.incarnation = -1
    this.retained = false
    this.chunksOutstanding = 0
    this.remote = null
    this.local.clear()
    this.inlineByteLength = 0
    this.startAnew()
  }

  /** A send, all of it in a frame of the lane `shared` already; it was copied, so only a lost lane needs its memory again. */
  hasLeft(flow: Flow, sequence: number, shared: number, frame: number): void {
    this.flow = flow
    this.sequence = sequence
    this.opcode = opcode.send
    this.immediate = 0
    this.moved = this.byteLength
    this.stage = requestStage.sent
    this.exposed = true
    this.retained = true
    this.incarnation = shared
    this.frame = frame
  }

  get finished(): boolean {
    return this.stage === requestStage.finished
  }

  /** Nothing of it has arrived: its payload goes again from the start. */
  rewind(): void {
    this.moved = 0
    this.localEntry = 0
    this.localOffset = 0
  }

  /** Waits again as if it had never left, except that it did: `exposed` stays. */
  startAnew(): void {
    this.rewind()
    this.stage = requestStage.waiting
    this.grantEntry = 0
    this.grantOffset = 0
    this.grants = null
    this.noticeDue = false
    this.parkedSinceMs = 0
    this.wholePosted = false
  }

  /** The local list is used up to so many bytes further on; at the end of an entry the next one begins. */
  advanceLocal(byteLength: number): void {
    this.localOffset += byteLength
    if (this.localOffset < this.local.length(this.localEntry)) return
    this.localEntry++
    this.localOffset = 0
  }

  /** The same in what the peer granted. */
  advanceGrant(byteLength: number): void {
    this.grantOffset += byteLength
    if (this.grantOffset < this.grants![this.grantEntry]!.byteLength) return
    this.grantEntry++
    this.grantOffset = 0
  }
}

export const receiveStage = {
  posted: 0,
  /** A message was matched to it; bytes are arriving. */
  bound: 1,
  finished: 2,
} as const

/** A receive that a message was matched to. */
export class ReceiveRequest {
  readonly queuePair: EngineQueuePair
  slot = -1
  /** Start of the slot in 32-bit words of the segment. */
  word = 0
  next: ReceiveRequest | null = null
  generation = 0
  /** Entries as posted; the slot keeps the number when the result is written beside it. */
  entries = 0
  readonly local = new ScatterGather()
  refused: Status = 0
  stage: number = receiveStage.posted
  status: Status = 0
  byteLength = 0
  operation = 0
  immediate = 0
  solicited = false
  sequence = 0
  retained = false
  /** Its buffer is open to the peer's writes until the notice arrives. */
  granted = false

  constructor(queuePair: EngineQueuePair) {
    this.queuePair = queuePair
  }

  begin(slot: number, word: number, generation: number): void {
    this.slot = slot
    this.word = word
    this.generation = generation
    this.next = null
    this.refused = 0
    this.retained = false
    this.local.clear()
    this.unbind()
  }

  /** As it was before a message was matched to it. */
  unbind(): void {
    if (this.retained) this.local.release()
    this.retained = false
    this.stage = receiveStage.posted
    this.status = 0
    this.byteLength = 0
    this.operation = 0
    this.immediate = 0
    this.solicited = false
    this.granted = false
  }
}

interface Linked<Item> {
  next: Item | null
}

/** First in, first out, linked through the items themselves: an item stands in one queue at a time. */
export class RequestQueue<Item extends Linked<Item>> {
  head: Item | null = null
  tail: Item | null = null
  size = 0
  /** Called once, when the last item leaves. */
  onEmpty: (() => void) | null = null

  push(item: Item): void {
    item.next = null
    if (this.tail === null) this.head = item
    else this.tail.next = item
    this.tail = item
    this.size++
  }

  /** Back to the front, for a request that must be sent again. */
  unshift(item: Item): void {
    item.next = this.head
    this.head = item
    this.tail ??= item
    this.size++
  }

  shift(): Item | null {
    const item = this.head
    if (item === null) return null
    this.head = item.next
    item.next = null
    this.size--
    if (this.head === null) this.#emptied()
    return item
  }

  #emptied(): void {
    this.tail = null
    const call = this.onEmpty
    this.onEmpty = null
    call?.()
  }
}
