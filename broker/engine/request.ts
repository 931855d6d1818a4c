/**
 * The engine's private records of what clients posted. A slot is copied into one of these once, then checked, then used; the slot is
 * not read again except for inline payload (content only: its length was copied). One record a slot, made at first use and used again,
 * so the data path allocates nothing.
 */
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

const ENTRIES = 4

/** A scatter/gather list checked against the tables, as columns. */
export class ScatterGather {
  count = 0
  byteLength = 0
  readonly regions: (Region | null)[] = [null, null, null, null]
  readonly offsets: number[] = [0, 0, 0, 0]
  readonly lengths: number[] = [0, 0, 0, 0]

  clear(): void {
    this.count = 0
    this.byteLength = 0
    for (let index = 0; index < ENTRIES; index++) this.regions[index] = null
  }

  add(region: Region, offset: number, byteLength: number): void {
    this.regions[this.count] = region
    this.offsets[this.count] = offset
    this.lengths[this.count] = byteLength
    this.count++
    this.byteLength += byteLength
  }

  /** Every region still open; a closed one refuses new work. */
  get usable(): boolean {
    for (let index = 0; index < this.count; index++) if (!this.regions[index]!.open) return false
    return true
  }

  retain(): void {
    for (let index = 0; index < this.count; index++) this.regions[index]!.uses++
  }

  release(): void {
    for (let index = 0; index < this.count; index++) this.regions[index]!.release()
  }
}

/** Where in a scatter/gather list a transfer stands. */
export class Cursor {
  entry = 0
  offset = 0

  reset(): void {
    this.entry = 0
    this.offset = 0
  }
}

export class SendRequest {
  readonly queuePair: EngineQueuePair
  readonly slot: number
  flow: Flow | null = null
  next: SendRequest | null = null
  generation = 0
  /** Its slot was taken from the ring and has no verdict yet. */
  taken = false
  /** Ring position: the flow's sequence number. */
  sequence = 0
  opcode = 0
  flags = 0
  immediate = 0
  byteLength = 0
  readonly local = new ScatterGather()
  inlineByteLength = 0
  remoteKey = 0
  remoteOffset = 0
  compare = 0n
  swap = 0n
  destinationNode = 0
  destinationNumber = 0
  destinationGeneration = 0

  stage: number = requestStage.waiting
  status: Status = 0
  /** Refused by the checks at the drain; told in order. */
  refused: Status = 0
  /** True from the moment something of it may have reached the peer. */
  exposed = false
  /** Name of the lane it was posted on last; 0: on this node, -1: nowhere yet. */
  incarnation = -1
  /** All chunks of a write were posted, and the last frame begun by then. */
  wholePosted = false
  frame = 0
  retained = false
  /** Progress of a bulk transfer. */
  readonly localCursor = new Cursor()
  readonly remoteCursor = new Cursor()
  moved = 0
  chunksOutstanding = 0
  remote: RemoteRegion | null = null
  /** Destinations of a granted write: device key, address, length of each. */
  grantCount = 0
  readonly grantKeys: number[] = [0, 0, 0, 0]
  readonly grantAddresses: number[] = [0, 0, 0, 0]
  readonly grantLengths: number[] = [0, 0, 0, 0]
  /** All chunks are posted, the notice that follows them is not. */
  noticeDue = false
  /** When it first could not go for lack of a posted receive at the peer; 0 = not waiting. */
  parkedSinceMs = 0

  constructor(queuePair: EngineQueuePair, slot: number) {
    this.queuePair = queuePair
    this.slot = slot
  }

  begin(): void {
    this.taken = true
    this.next = null
    this.flow = null
    this.stage = requestStage.waiting
    this.status = 0
    this.refused = 0
    this.exposed = false
    this.incarnation = -1
    this.wholePosted = false
    this.retained = false
    this.moved = 0
    this.chunksOutstanding = 0
    this.remote = null
    this.grantCount = 0
    this.noticeDue = false
    this.parkedSinceMs = 0
    this.localCursor.reset()
    this.remoteCursor.reset()
    this.local.clear()
    this.inlineByteLength = 0
  }

  get finished(): boolean {
    return this.stage === requestStage.finished
  }

  /** Nothing of it has arrived: its payload goes again from the start. */
  rewind(): void {
    this.moved = 0
    this.localCursor.reset()
  }

  /** Waits again as if it had never left, except that it did: `exposed` stays. */
  startAnew(): void {
    this.rewind()
    this.stage = requestStage.waiting
    this.remoteCursor.reset()
    this.grantCount = 0
    this.noticeDue = false
    this.parkedSinceMs = 0
    this.wholePosted = false
  }
}

export const receiveStage = {
  posted: 0,
  /** A message was matched to it; bytes are arriving. */
  bound: 1,
  finished: 2,
} as const

export class ReceiveRequest {
  readonly queuePair: EngineQueuePair
  readonly slot: number
  next: ReceiveRequest | null = null
  generation = 0
  /** Its slot was taken from the ring and has no outcome yet. */
  taken = false
  position = 0
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

  constructor(queuePair: EngineQueuePair, slot: number) {
    this.queuePair = queuePair
    this.slot = slot
  }

  begin(): void {
    this.taken = true
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
  #tail: Item | null = null
  size = 0

  push(item: Item): void {
    item.next = null
    if (this.#tail) this.#tail.next = item
    else this.head = item
    this.#tail = item
    this.size++
  }

  /** Back to the front, for a request that must be sent again. */
  unshift(item: Item): void {
    item.next = this.head
    this.head = item
    this.#tail ??= item
    this.size++
  }

  /** Back to their places among the others; a cold path. */
  giveBack(items: readonly Item[], compare: (one: Item, other: Item) => number): void {
    if (items.length === 0) return
    const all = [...items]
    for (let item = this.shift(); item; item = this.shift()) all.push(item)
    for (const item of all.sort(compare)) this.push(item)
  }

  shift(): Item | null {
    const item = this.head
    if (!item) return null
    this.head = item.next
    if (!this.head) this.#tail = null
    item.next = null
    this.size--
    return item
  }

  clear(): void {
    this.head = null
    this.#tail = null
    this.size = 0
  }
}
