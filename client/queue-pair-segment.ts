/**
 * A queue pair's segment as this process has mapped it: views and the index of everything hot paths touch, computed
 * once from the layouts. One per queue pair and session, shared by its handle (posting) and by the completion queues
 * (polling).
 */
import { side } from '../protocol/completion-queue-segment.js'
import type { RequestResult } from '../protocol/control.js'
import { SharedVerbsError } from '../protocol/errors.js'
import {
  type QueuePairGeometry,
  queuePairGeometry,
  queuePairHeader,
  queuePairMagic,
  queuePairState,
  queuePairType,
  receiveSlot,
  sendSlot,
} from '../protocol/queue-pair-segment.js'
import { abiVersion } from '../protocol/version.js'
import type { Mapping } from '../shm/mapping.js'
import type { Memory } from '../shm/memory.js'
import { SLOT_DONE, stateOf } from '../shm/slot-state.js'
import type { Words } from '../shm/words.js'
import { mapSegment } from './segments.js'

export type QueuePairGrant = RequestResult<'createQueuePair'>

/** One side of a queue pair: its slots, its ring and the words around them, as indices of 32-bit words. */
export interface SlotQueue {
  /** `side.send` or `side.receive`. */
  readonly side: number
  readonly slotCount: number
  /** State word of slot 0. */
  readonly slotBase: number
  readonly slotWords: number
  /** Offsets of fields inside a slot. */
  readonly generation: number
  readonly position: number
  /** Base of the reference ring. */
  readonly ring: number
  readonly ringCapacity: number
  readonly lock: number
}

const header = queuePairHeader.word

export class QueuePairSegment {
  readonly grant: QueuePairGrant
  readonly memory: Memory
  readonly words: Words
  readonly geometry: QueuePairGeometry
  readonly send: SlotQueue
  readonly receive: SlotQueue
  /** Opened only to read completions that a shared completion queue referred to; the application has no handle. */
  adopted: boolean
  readonly #mapping: Mapping

  private constructor(mapping: Mapping, grant: QueuePairGrant, geometry: QueuePairGeometry, adopted: boolean) {
    this.#mapping = mapping
    this.grant = grant
    this.geometry = geometry
    this.adopted = adopted
    this.memory = mapping.memory
    this.words = mapping.words
    this.send = sendQueue(geometry)
    this.receive = receiveQueue(geometry)
  }

  /**
   * Takes over the descriptor; on a refusal it is closed. Throws `segment-invalid` when the segment is not what was
   * granted.
   */
  static attach(fd: number | undefined, grant: QueuePairGrant, adopted: boolean): QueuePairSegment {
    const geometry = queuePairGeometry({ ...grant, type: queuePairType[grant.type] })
    const mapping = mapSegment(fd, grant.byteLength, true)
    try {
      checkHeader(mapping.memory, grant, geometry)
      return new QueuePairSegment(mapping, grant, geometry, adopted)
    } catch (error) {
      mapping.close()
      throw error
    }
  }

  get number(): number {
    return this.grant.number
  }

  /** For the next broker. */
  get descriptor(): number {
    return this.#mapping.fd
  }

  /** One of `queuePairState`, as the broker has written it last. */
  get state(): number {
    return this.words.load(header.state)
  }

  get brokerClosed(): boolean {
    return this.state === queuePairState.closed
  }

  /** True while a completion lies in a slot, referred to or not. */
  hasDone(): boolean {
    return this.#anyDone(this.send) || this.#anyDone(this.receive)
  }

  close(): void {
    this.#mapping.close()
  }

  #anyDone(queue: SlotQueue): boolean {
    for (let slot = 0; slot < queue.slotCount; slot++) {
      if (stateOf(this.words.load(queue.slotBase + slot * queue.slotWords)) === SLOT_DONE) return true
    }
    return false
  }
}

function checkHeader(memory: Memory, grant: QueuePairGrant, geometry: QueuePairGeometry): void {
  const found = queuePairHeader.read(memory, 0)
  const fits =
    found.magic === queuePairMagic &&
    found.version === abiVersion &&
    found.number === grant.number &&
    found.generation === grant.generation &&
    found.sendSlots === grant.sendSlots &&
    found.receiveSlots === grant.receiveSlots &&
    found.inlineByteLength === grant.inlineByteLength &&
    geometry.byteLength <= memory.byteLength
  if (fits) return
  throw new SharedVerbsError(
    'segment-invalid',
    `segment of queue pair ${grant.number} is not what was granted; are client and broker of one version?`,
    { granted: grant, found, byteLength: memory.byteLength, neededByteLength: geometry.byteLength },
  )
}

const sendQueue = (geometry: QueuePairGeometry): SlotQueue => ({
  side: side.send,
  slotCount: geometry.sendSlots,
  slotBase: geometry.sendSlotsOffset / 4 + sendSlot.word.state,
  slotWords: geometry.sendSlotByteLength / 4,
  generation: sendSlot.word.generation - sendSlot.word.state,
  position: sendSlot.word.position - sendSlot.word.state,
  ring: geometry.sendRingOffset / 4,
  ringCapacity: geometry.sendRingCapacity,
  lock: header.sendLock,
})

const receiveQueue = (geometry: QueuePairGeometry): SlotQueue => ({
  side: side.receive,
  slotCount: geometry.receiveSlots,
  slotBase: geometry.receiveSlotsOffset / 4 + receiveSlot.word.state,
  slotWords: geometry.receiveSlotByteLength / 4,
  generation: receiveSlot.word.generation - receiveSlot.word.state,
  position: receiveSlot.word.position - receiveSlot.word.state,
  ring: geometry.receiveRingOffset / 4,
  ringCapacity: geometry.receiveRingCapacity,
  lock: header.receiveLock,
})
