/**
 * Where the segments of an explored node lie in its one memory, and the client's and broker's views of them. Everything is as small as
 * the layouts allow: the queue pair has a few slots of one side, the completion ring two entries.
 */
import type { AttachmentParts, BrokerParts } from '../../client/attachment.js'
import type { QueuePairGrant, QueuePairSegment } from '../../client/queue-pair-segment.js'
import { brokerPage } from '../../protocol/broker-page.js'
import {
  completionQueueGeometry,
  completionQueueHeader,
  completionQueueMagic,
} from '../../protocol/completion-queue-segment.js'
import {
  queuePairGeometry,
  queuePairHeader,
  queuePairType,
  receiveSlot,
  sendSlot,
} from '../../protocol/queue-pair-segment.js'
import { abiVersion } from '../../protocol/version.js'
import { activityLayout } from '../../shm/activity.js'
import type { Mapping } from '../../shm/mapping.js'
import { Memory } from '../../shm/memory.js'
import { referenceRingLayout } from '../../shm/reference-ring.js'
import type { Self } from '../support/explorer-actor.js'
import { MEMBERS } from '../support/explorer-world.js'
import type { Code } from './load.js'

/** The only queue pair and the only completion queue. */
export const NUMBER = 1
const INLINE_BYTES = 64

export interface Shape {
  readonly sendSlots: number
  readonly receiveSlots: number
  /** A power of two, at least two. */
  readonly completions: number
}

export class Segments {
  readonly shape: Shape
  readonly geometry: ReturnType<typeof queuePairGeometry>
  readonly completionGeometry: ReturnType<typeof completionQueueGeometry>
  readonly queuePair: number
  readonly completionQueue: number
  readonly activity: number
  readonly page: number
  /** One bell a member; the engine's is member 0's. */
  readonly bells: number
  readonly words: number
  /** What the engine rings, by member. */
  readonly doorbells: number[]

  /** `base`: the word at which they begin. */
  constructor(shape: Shape, bellOf?: (segments: Segments, member: number) => number, base = 0) {
    this.shape = shape
    this.queuePair = base
    this.geometry = queuePairGeometry({ type: queuePairType.connected, inlineByteLength: INLINE_BYTES, ...shape })
    this.completionGeometry = completionQueueGeometry(shape.completions)
    this.completionQueue = base + lines(this.geometry.byteLength)
    this.activity = this.completionQueue + lines(this.completionGeometry.byteLength)
    this.page = this.activity + lines(activityLayout.byteLength)
    this.bells = this.page + lines(brokerPage.byteLength)
    this.words = this.bells + MEMBERS
    const ownBell = (_: Segments, member: number): number => this.bells + member
    this.doorbells = Array.from({ length: MEMBERS }, (_, member) => (bellOf ?? ownBell)(this, member))
  }

  sendSlot(slot: number): number {
    return this.queuePair + (this.geometry.sendSlotsOffset + slot * this.geometry.sendSlotByteLength) / 4
  }

  receiveSlot(slot: number): number {
    return this.queuePair + (this.geometry.receiveSlotsOffset + slot * receiveSlot.byteLength) / 4
  }

  get sendLock(): number {
    return this.queuePair + queuePairHeader.word.sendLock
  }

  get queuePairStateWord(): number {
    return this.queuePair + queuePairHeader.word.state
  }

  /** The engine's word in the broker page. */
  get sleeping(): number {
    return this.page + brokerPage.word.sleeping
  }

  get sendTail(): number {
    return this.queuePair + this.geometry.sendRingOffset / 4 + referenceRingLayout.word.tail
  }

  get sendHead(): number {
    return this.queuePair + this.geometry.sendRingOffset / 4 + referenceRingLayout.word.head
  }

  get receiveTail(): number {
    return this.queuePair + this.geometry.receiveRingOffset / 4 + referenceRingLayout.word.tail
  }

  get receiveHead(): number {
    return this.queuePair + this.geometry.receiveRingOffset / 4 + referenceRingLayout.word.head
  }

  /** Entry of the send ring at a position. */
  sendEntry(position: number): number {
    const entries = this.queuePair + (this.geometry.sendRingOffset + referenceRingLayout.byteLength) / 4
    return entries + (position & (this.geometry.sendRingCapacity - 1))
  }

  get completionTail(): number {
    return this.completionQueue + completionQueueHeader.word.tail
  }

  get completionHead(): number {
    return this.completionQueue + completionQueueHeader.word.head
  }

  /** Who is armed, up to the entries. */
  get armedRoot(): number {
    return this.completionQueue + completionQueueHeader.word.armedRoot
  }

  get completionEntries(): number {
    return this.completionQueue + this.completionGeometry.entriesOffset / 4
  }

  /** Names for traces. */
  nameOf(index: number): string {
    for (let slot = 0; slot < this.shape.sendSlots; slot++) {
      const at = index - this.sendSlot(slot)
      if (at >= 0 && at < sendSlot.byteLength / 4) return `send slot ${slot}+${at}`
    }
    for (let slot = 0; slot < this.shape.receiveSlots; slot++) {
      const at = index - this.receiveSlot(slot)
      if (at >= 0 && at < receiveSlot.byteLength / 4) return `receive slot ${slot}+${at}`
    }
    const known = new Map([
      [this.sendLock, 'send lock'],
      [this.sendTail, 'send tail'],
      [this.sendHead, 'send head'],
      [this.completionTail, 'completion tail'],
      [this.completionHead, 'completion head'],
    ])
    if (known.has(index)) return known.get(index)!
    if (index >= this.bells) return `bell ${index - this.bells}`
    if (index >= this.page) return `page+${index - this.page}`
    if (index >= this.activity) return `activity+${index - this.activity}`
    if (index >= this.completionEntries) return `completion entry+${index - this.completionEntries}`
    return index >= this.completionQueue
      ? `completion queue+${index - this.completionQueue}`
      : `queue pair+${index - this.queuePair}`
  }
}

const lines = (byteLength: number): number => Math.ceil(byteLength / 64) * 16

const mappings = new WeakMap<object, Mapping>()
const close = (): void => {}

/** What stands for a mapping: its words and plain memory are those of the explorer. */
export function mappingAt(self: Self, base: number): Mapping {
  const words = self.words(base)
  let mapping = mappings.get(words)
  if (mapping === undefined) {
    mapping = { words, memory: self.memory(base), closed: false, close } as unknown as Mapping
    mappings.set(words, mapping)
  }
  return mapping
}

export function grantOf({ shape }: Segments): QueuePairGrant {
  return {
    number: NUMBER,
    generation: 1,
    type: 'connected',
    sendSlots: shape.sendSlots,
    receiveSlots: shape.receiveSlots,
    inlineByteLength: INLINE_BYTES,
    sendCompletionQueue: NUMBER,
    receiveCompletionQueue: NUMBER,
    byteLength: 0,
  } as unknown as QueuePairGrant
}

/** A broker that never answers: nothing here may need an answer. */
const silent = { request: () => new Promise(() => {}) }

/** The real attachment of a member, over explored words. */
export function attach(
  code: Code,
  segments: Segments,
  self: Self,
  bell = segments.bells + self.member,
  memberGeneration = 1,
) {
  // Not all of these are the real things, but all of them are here: another one that is needed is an error of the types.
  const broker = {
    epoch: 1,
    control: silent,
    page: mappingAt(self, segments.page),
    engineDoorbell: new code.Doorbell(segments.bells),
  } satisfies Record<keyof BrokerParts, unknown>
  const parts = {
    grant: { member: self.member, memberGeneration, node: 'here' },
    activity: mappingAt(self, segments.activity),
    liveness: -1,
    token: undefined,
    monitor: self.liveness,
    doorbell: new code.Doorbell(bell),
    broker,
  } satisfies Record<keyof AttachmentParts, unknown>
  return new code.Attachment(parts as unknown as AttachmentParts)
}

/** The segment as a client has mapped it; its constructor is private, because applications get it by attaching a descriptor. */
export function openSegment(code: Code, segments: Segments, self: Self): QueuePairSegment {
  const given = [mappingAt(self, segments.queuePair), grantOf(segments), segments.geometry, false]
  return Reflect.construct(code.QueuePairSegment as unknown as new () => QueuePairSegment, given)
}

/** Identity words of the completion queue, which its clients check once when they map it. */
const identity = new Memory(new ArrayBuffer(completionQueueHeader.byteLength))
completionQueueHeader.write(identity, 0, {
  magic: completionQueueMagic,
  version: abiVersion,
  number: NUMBER,
  generation: 1,
})

/** The real completion queue of a client. */
export function openCompletionQueue(
  code: Code,
  segments: Segments,
  self: Self,
  attachment: InstanceType<Code['Attachment']>,
): InstanceType<Code['CompletionQueue']> {
  const { capacity } = segments.completionGeometry
  identity.u32[completionQueueHeader.word.capacity] = capacity
  const mapping = { words: self.words(segments.completionQueue), memory: identity, byteLength: 1e9, close: () => {} }
  code.explored.mapping = mapping
  return new code.CompletionQueue(attachment, { number: NUMBER, generation: 1, capacity, byteLength: 0 }, 0)
}
