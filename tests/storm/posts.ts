/** What a process posts: lists of a few requests of all kinds to its queue pairs in turn, at its rate, numbered and written down. */
import type { QueuePair, SendWorkRequest } from '../../client/index.js'
import { machineMs, recordType } from './journal.js'
import {
  columnOf,
  counterOffset,
  DATAGRAM,
  flagIndex,
  HEADER_BYTES,
  type Kind,
  kindNumber,
  LANDING_SLOTS,
  landingOffset,
  MOST_SEQUENCE,
  OWN_BYTES,
  OWN_SLOTS,
  PATTERN_OFFSET,
  packId,
  packImmediate,
  resultOffset,
  SMALL_BYTES,
  SMALL_SLOTS,
  swapOffset,
  writePayload,
} from './plan.js'
import { type Random, randomOf } from './random.js'
import type { Parts } from './worker.js'

const MOST_LIST = 6
/** The slot of an immediate that belongs to no landing. */
const NO_LANDING = 7

/** How often each kind is drawn. */
const draws: readonly (readonly [Kind, number])[] = [
  ['send', 8],
  ['send-with-immediate', 3],
  ['write', 3],
  ['write-with-immediate', 3],
  ['read', 3],
  ['compare-and-swap', 2],
  ['fetch-and-add', 3],
]
const drawn = draws.flatMap(([kind, count]) => Array<Kind>(count).fill(kind))

interface Line {
  readonly index: number
  readonly queuePair: QueuePair
  sequence: number
  landings: number
}

interface Draft {
  readonly request: SendWorkRequest
  readonly kind: number
  readonly sequence: number
  /** Slot + 1 that it keeps busy, 0: none. */
  readonly slot: number
  readonly expected: number
}

export class Posts {
  readonly #parts: Parts
  readonly #random: Random
  readonly #lines: Line[]
  readonly #inline = Buffer.alloc(SMALL_BYTES)
  #turn = 0
  #swaps = 0
  #drafts: Draft[] = []
  #dueMs = machineMs()

  constructor(parts: Parts) {
    this.#parts = parts
    this.#random = randomOf(parts.plan.seed * 7919 + parts.plan.process)
    this.#lines = [...parts.queuePairs].map(([index, queuePair]) => ({ index, queuePair, sequence: 0, landings: 0 }))
  }

  /** One list, when it is time for one. */
  post(): void {
    const nowMs = machineMs()
    if (nowMs < this.#dueMs) return
    const line = this.#lines[this.#turn++ % this.#lines.length]!
    const count = 1 + this.#random.below(MOST_LIST)
    // What a pause has missed is not made up for.
    this.#dueMs = Math.max(this.#dueMs, nowMs - 50) + (count * 1000) / this.#parts.plan.rate
    if (line.sequence + 2 * MOST_LIST > MOST_SEQUENCE) return
    const swaps = this.#swaps
    this.#drafts = []
    const firstSequence = line.sequence
    for (let number = 0; number < count; number++) this.#draft(line)
    this.#commit(line, firstSequence, swaps)
  }

  #commit(line: Line, first: number, swaps: number): void {
    const drafts = this.#drafts
    const { journal, plan, flags } = this.#parts
    const about = { queuePair: line.index, status: 0, process: plan.process, timeMs: machineMs() }
    for (const { kind, sequence, slot, expected } of drafts) {
      journal.add({ type: recordType.intent, ...about, kind, sequence, count: slot, value: expected })
    }
    journal.write()
    const accepted = line.queuePair.postSend(drafts.map(({ request }) => request))
    journal.add({ type: recordType.accepted, ...about, kind: 0, sequence: first, count: accepted, value: 0 })
    journal.write()
    for (const { slot } of drafts.slice(accepted)) {
      if (slot > 0) Atomics.store(flags, flagIndex(plan.process, slot - 1), 0)
    }
    const swap = kindNumber('compare-and-swap')
    this.#swaps = swaps + drafts.slice(0, accepted).filter(({ kind }) => kind === swap).length
  }

  #draft(line: Line): void {
    const kind = drawn[this.#random.below(drawn.length)]!
    if (kind === 'send' || kind === 'send-with-immediate') this.#message(line, kind, 0, 0)
    else if (kind === 'write' || kind === 'write-with-immediate') this.#write(line, kind)
    else this.#fetch(line, kind)
  }

  #add(line: Line, kind: Kind, slot: number, expected: number, request: SendWorkRequest): void {
    const { destination } = this
    const addressed = line.index === DATAGRAM ? { ...request, destination } : request
    this.#drafts.push({ request: addressed, kind: kindNumber(kind), sequence: line.sequence++, slot, expected })
  }

  get destination(): { node: string; number: number; generation: number } {
    return this.#parts.plan.peerDatagram
  }

  #id(line: Line, kind: Kind, slot: number): number {
    const { process } = this.#parts.plan
    return packId({ process, queuePair: line.index, kind: kindNumber(kind), slot, sequence: line.sequence })
  }

  #message(line: Line, kind: 'send' | 'send-with-immediate', noticeSlot: number, noticeSequence: number): void {
    const { ownBytes, own, plan } = this.#parts
    const slot = this.#random.below(3) === 0 ? this.#take(SMALL_SLOTS, OWN_SLOTS) : 0
    const byteLength = slot > 0 ? this.#length(OWN_BYTES) : this.#length(line.queuePair.maxInline)
    const bytes = slot > 0 ? ownBytes : this.#inline
    const offset = slot > 0 ? (slot - 1 - SMALL_SLOTS) * OWN_BYTES : 0
    const header = { process: plan.process, queuePair: line.index, kind: kindNumber(kind), sequence: line.sequence }
    writePayload(bytes, offset, { ...header, byteLength, noticeSlot, noticeSequence })
    const payload =
      slot > 0
        ? { local: [{ region: own, offset, length: byteLength }] }
        : { inline: Buffer.from(bytes.subarray(0, byteLength)) }
    const id = this.#id(line, kind, slot)
    if (kind === 'send') this.#add(line, kind, slot, 0, { id, opcode: kind, ...payload })
    else {
      const immediate = packImmediate(plan.process, NO_LANDING, line.sequence)
      this.#add(line, kind, slot, 0, { id, opcode: kind, immediate, ...payload })
    }
  }

  /** A plain write is told of by the message after it. On the datagram queue pair it may end as unknown. */
  #write(line: Line, kind: 'write' | 'write-with-immediate'): void {
    const { plan, bytes, home } = this.#parts
    const slot = this.#take(0, SMALL_SLOTS)
    if (slot === 0) {
      this.#message(line, 'send', 0, 0)
      return
    }
    const column = columnOf(line.index, kindNumber(kind))
    // Landings of the datagram queue pair and of the first one would be the same.
    const isDatagram = line.index === DATAGRAM
    if (isDatagram && kind === 'write-with-immediate') {
      Atomics.store(this.#parts.flags, flagIndex(plan.process, slot - 1), 0)
      this.#message(line, 'send', 0, 0)
      return
    }
    const landing = isDatagram ? NO_LANDING : line.landings++ % (LANDING_SLOTS - 1)
    const offset = resultOffset(plan.process, slot - 1)
    const byteLength = this.#length(SMALL_BYTES)
    const { sequence } = line
    const header = { process: plan.process, queuePair: line.index, kind: kindNumber(kind), sequence, byteLength }
    writePayload(bytes, offset, { ...header, noticeSlot: 0, noticeSequence: 0 })
    const local = [{ region: home, offset, length: byteLength }]
    const remote = { key: plan.remoteKey, offset: landingOffset(plan.process, column, landing) }
    const id = this.#id(line, kind, slot)
    const replayable = !isDatagram
    if (kind === 'write') {
      this.#add(line, kind, slot, 0, { id, opcode: kind, local, remote, replayable })
      if (!isDatagram) this.#message(line, 'send', landing + 1, sequence)
    } else {
      const immediate = packImmediate(plan.process, landing, sequence)
      this.#add(line, kind, slot, 0, { id, opcode: kind, local, remote, replayable, immediate })
    }
  }

  #fetch(line: Line, kind: 'read' | 'compare-and-swap' | 'fetch-and-add'): void {
    const { plan, home } = this.#parts
    // One queue pair compares and swaps: the order of two is nobody's promise.
    const other = kind === 'compare-and-swap' && line !== this.#lines[0]
    const slot = other ? 0 : this.#take(0, SMALL_SLOTS)
    if (slot === 0) {
      this.#message(line, 'send', 0, 0)
      return
    }
    const id = this.#id(line, kind, slot)
    const offset = resultOffset(plan.process, slot - 1)
    const key = plan.remoteKey
    const word = [{ region: home, offset, length: 8 }]
    if (kind === 'read') {
      const local = [{ region: home, offset, length: this.#length(SMALL_BYTES) }]
      this.#add(line, kind, slot, 0, { id, opcode: kind, local, remote: { key, offset: PATTERN_OFFSET } })
    } else if (kind === 'compare-and-swap') {
      const expected = this.#swaps++
      const [compare, swap] = [BigInt(expected), BigInt(expected + 1)]
      const remote = { key, offset: swapOffset(plan.process) }
      this.#add(line, kind, slot, expected, { id, opcode: kind, local: word, remote, compare, swap })
    } else {
      const remote = { key, offset: counterOffset(line.index) }
      this.#add(line, kind, slot, 0, { id, opcode: kind, local: word, remote, add: 1n })
    }
  }

  /** Mostly short. */
  #length(most: number): number {
    const range = this.#random.below(4) === 0 ? most : Math.min(most, 96)
    return HEADER_BYTES + this.#random.below(range - HEADER_BYTES + 1)
  }

  /** A free slot + 1 out of `count` from `first` on, now busy; 0: none is free. */
  #take(first: number, count: number): number {
    const { flags, plan } = this.#parts
    const start = this.#random.below(count)
    for (let looked = 0; looked < count; looked++) {
      const slot = first + ((start + looked) % count)
      const index = flagIndex(plan.process, slot)
      if (Atomics.load(flags, index) !== 0) continue
      Atomics.store(flags, index, 1)
      return slot + 1
    }
    return 0
  }
}
