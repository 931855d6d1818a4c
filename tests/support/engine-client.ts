/** Clients of a hand-turned engine, played by writing slots and reading rings as the SDK does. */
import {
  completionEntry,
  completionQueueGeometry,
  completionQueueHeader,
  referenceQueuePair,
  referenceSide,
  referenceSlot,
} from '../../protocol/completion-queue-segment.js'
import {
  opcodeNames,
  outcomeStatus,
  packOperation,
  type SendOpcodeName,
  sendOpcodeOf,
  workRequestFlag,
} from '../../protocol/opcodes.js'
import {
  activityBit,
  type QueuePairGeometry,
  receiveSlot,
  scatterGatherEntry,
  sendSlot,
} from '../../protocol/queue-pair-segment.js'
import { type StatusName, statusName } from '../../protocol/statuses.js'
import { markActive } from '../../shm/activity.js'
import type { Mapping } from '../../shm/mapping.js'
import type { Memory } from '../../shm/memory.js'
import { append } from '../../shm/reference-ring.js'
import { claimFree, doneToFree, NO_CLAIM } from '../../shm/slot-state.js'
import type { EngineNode } from './engine-node.js'

export interface Entry {
  readonly region: TestRegion
  readonly offset: number
  readonly length: number
}
export interface TestRegion {
  readonly key: number
  readonly mapping: Mapping
}
export interface TestCompletion {
  readonly id: number
  readonly opcode: string
  readonly status: StatusName
  readonly byteLength: number
  readonly immediate: number
  readonly queuePair: number
  readonly source: number
  readonly sourceNode: number
}
export interface TestSend {
  readonly id: number
  readonly opcode: SendOpcodeName
  readonly local?: readonly Entry[]
  readonly inline?: Uint8Array
  readonly remote?: { key: number; offset: number }
  readonly immediate?: number
  readonly compare?: bigint
  readonly swap?: bigint
  readonly fence?: boolean
  readonly signaled?: boolean
  readonly solicited?: boolean
  readonly replayable?: boolean
  readonly destination?: { node: number; number: number; generation: number }
  /** Scribbles over the slot before it is committed, as a faulty or hostile client would. */
  readonly spoil?: (memory: Memory, slot: number) => void
}

const MEMBER = 1

export class TestQueuePair {
  readonly number: number
  readonly generation = 1
  readonly mapping: Mapping
  readonly geometry: QueuePairGeometry
  readonly node: EngineNode

  constructor(node: EngineNode, number: number, mapping: Mapping, geometry: QueuePairGeometry) {
    this.node = node
    this.number = number
    this.mapping = mapping
    this.geometry = geometry
  }

  /** Posts as many as find a slot; how many. */
  send(...requests: TestSend[]): number {
    const { words, memory } = this.mapping
    const slots = new Int32Array(requests.length)
    let count = 0
    for (const request of requests) {
      const slot = this.#claim(this.geometry.sendSlotsOffset, this.geometry.sendSlotByteLength, this.geometry.sendSlots)
      if (!slot) break
      const flags =
        (request.signaled === false ? 0 : workRequestFlag.signaled) |
        (request.fence ? workRequestFlag.fence : 0) |
        (request.inline ? workRequestFlag.inline : 0) |
        (request.solicited ? workRequestFlag.solicited : 0) |
        (request.replayable ? workRequestFlag.replayable : 0)
      sendSlot.write(memory, slot.offset, {
        generation: slot.generation,
        id: request.id,
        operation: packOperation(sendOpcodeOf[request.opcode], flags, request.local?.length ?? 0),
        immediate: request.immediate ?? 0,
        inlineByteLength: request.inline?.byteLength ?? 0,
        remoteKey: request.remote?.key ?? 0,
        remoteOffset: request.remote?.offset ?? 0,
        compare: request.compare ?? 0n,
        swap: request.swap ?? 0n,
        destinationNode: request.destination?.node ?? 0,
        destinationNumber: request.destination?.number ?? 0,
        destinationGeneration: request.destination?.generation ?? 0,
      })
      if (request.inline) memory.u8.set(request.inline, slot.offset + sendSlot.offset.furtherEntries)
      this.#entries(slot.offset, sendSlot.offset, request.local ?? [])
      request.spoil?.(memory, slot.offset)
      slots[count++] = slot.index
    }
    if (count > 0) {
      append(words, this.geometry.sendRingOffset / 4, this.geometry.sendRingCapacity, slots, count)
      markActive(this.node.activity.words, 0, activityBit(this.number, 0))
    }
    return count
  }

  slots(onSide: number): number {
    return onSide === 0 ? this.geometry.sendSlots : this.geometry.receiveSlots
  }

  receive(...requests: { id: number; local: readonly Entry[] }[]): number {
    const { words, memory } = this.mapping
    const slots = new Int32Array(requests.length)
    let count = 0
    for (const request of requests) {
      const slot = this.#claim(this.geometry.receiveSlotsOffset, receiveSlot.byteLength, this.geometry.receiveSlots)
      if (!slot) break
      receiveSlot.write(memory, slot.offset, {
        generation: slot.generation,
        id: request.id,
        operation: packOperation(0, 0, request.local.length),
      })
      this.#entries(slot.offset, receiveSlot.offset, request.local)
      slots[count++] = slot.index
    }
    if (count > 0) {
      append(words, this.geometry.receiveRingOffset / 4, this.geometry.receiveRingCapacity, slots, count)
      markActive(this.node.activity.words, 0, activityBit(this.number, 1))
    }
    return count
  }

  #claim(base: number, stride: number, slots: number): { index: number; offset: number; generation: number } | null {
    for (let index = 0; index < slots; index++) {
      const offset = base + index * stride
      const generation = claimFree(this.mapping.words, offset / 4, MEMBER)
      if (generation !== NO_CLAIM) return { index, offset, generation }
    }
    return null
  }

  #entries(slot: number, at: { firstEntry: number; furtherEntries: number }, entries: readonly Entry[]): void {
    entries.forEach((entry, index) => {
      const offset = index === 0 ? at.firstEntry : at.furtherEntries + (index - 1) * scatterGatherEntry.byteLength
      scatterGatherEntry.write(this.mapping.memory, slot + offset, {
        key: entry.region.key,
        offset: entry.offset,
        byteLength: entry.length,
      })
    })
  }
}

export class TestCompletionQueue {
  readonly number: number
  readonly mapping: Mapping
  readonly capacity: number
  readonly node: EngineNode

  constructor(node: EngineNode, number: number, mapping: Mapping, capacity: number) {
    this.node = node
    this.number = number
    this.mapping = mapping
    this.capacity = capacity
  }

  poll(maximum = 1000): TestCompletion[] {
    const { words, memory } = this.mapping
    const { entriesOffset } = completionQueueGeometry(this.capacity)
    const taken: TestCompletion[] = []
    let head = words.load(completionQueueHeader.word.head)
    // Bounded: tests also scribble over head and tail.
    for (let seen = 0; seen < this.capacity && taken.length < maximum; seen++) {
      if (head === words.load(completionQueueHeader.word.tail)) break
      const entry = completionEntry.read(
        memory,
        entriesOffset + (head & (this.capacity - 1)) * completionEntry.byteLength,
      )
      const queuePair = this.node.queuePairs.get(referenceQueuePair(entry.reference))
      // Tests also scribble over rings: a reference to nothing is skipped, as the client does.
      if (!queuePair || referenceSlot(entry.reference) >= queuePair.slots(referenceSide(entry.reference))) {
        head = (head + 1) | 0
        continue
      }
      const found = readSlot(
        queuePair,
        referenceSide(entry.reference),
        referenceSlot(entry.reference),
        entry.generation,
      )
      if (found) taken.push(found)
      head = (head + 1) | 0
    }
    words.store(completionQueueHeader.word.head, head)
    return taken
  }
}

function readReceive(memory: Memory, offset: number) {
  const slot = receiveSlot.read(memory, offset)
  return { ...slot, status: outcomeStatus(slot.operation) }
}

function readSlot(queuePair: TestQueuePair, side: number, index: number, generation: number): TestCompletion | null {
  const { geometry, mapping } = queuePair
  const send = side === 0
  const offset = send
    ? geometry.sendSlotsOffset + index * geometry.sendSlotByteLength
    : geometry.receiveSlotsOffset + index * receiveSlot.byteLength
  const slot = send
    ? { ...sendSlot.read(mapping.memory, offset), sourceNumber: 0, sourceNode: 0 }
    : readReceive(mapping.memory, offset)
  if (!doneToFree(mapping.words, offset / 4, generation)) return null
  return {
    id: slot.id,
    opcode: opcodeNames[(slot.operation & 0xff) as 1] ?? 'receive',
    status: statusName(slot.status),
    byteLength: slot.byteLength,
    immediate: slot.immediate,
    queuePair: queuePair.number,
    source: slot.sourceNumber,
    sourceNode: slot.sourceNode,
  }
}
