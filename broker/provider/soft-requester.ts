/**
 * The initiator's half of a queue pair: turns posted requests into frames and answers into completions. It does no input
 * or output: frames go into the plan of `Output`, the queue pair sends them.
 *
 *   retired ───── unanswered ────────── next ──────────── posted
 *    completed     sent, no answer yet   frames not made   (positions of the send queue)
 *
 * Invariants:
 * - Requests become frames in the order of posting; a READ beyond the negotiated number stalls all that follow.
 * - An answer completes everything up to it; a READ only when its data is in place, and nothing overtakes it.
 * - After "receiver not ready" everything from the refused request on is made into frames again: the peer has dropped it.
 * - A request whose own memory is wrong fails when everything before it has been answered, so errors come in order.
 */

import { type Status, status } from '../../protocol/statuses.js'
import { copyBytes } from '../../shm/copy.js'
import { sendFlag, sendOpcode } from './provider.js'
import type { SoftCompletionQueue } from './soft-completion-queue.js'
import type { MemoryTable, SoftRegion } from './soft-memory.js'
import type { Output } from './soft-output.js'
import type { Placement } from './soft-placement.js'
import type { SendQueue } from './soft-send-queue.js'
import type { Trouble } from './soft-trouble.js'
import {
  CODE_RECEIVER_NOT_READY,
  EXTENDED_HEADER_BYTES,
  encodeExtension,
  encodeHeader,
  type Frame,
  frameFlag,
  frameType,
  frameWord,
  HEADER_BYTES,
  paddingOf,
  SEGMENT_BYTES,
} from './soft-wire.js'

/** Payloads up to this length are copied into the stream's buffer; longer ones are sent from where they are (measured). */
export const COPY_BYTES_MAX = 2 * 1024

const WHOLE = frameFlag.first | frameFlag.last
const SEND_WORD = frameWord(frameType.send, WHOLE)
const WRITE_WORD = frameWord(frameType.write, WHOLE | frameFlag.extended)
const READ_WORD = frameWord(frameType.read, WHOLE | frameFlag.extended)
const ENDLESS = 7
const TIMEOUT_UNIT_MS = 0.004096

export interface RequesterAttributes {
  readonly readsInitiated: number
  readonly timeoutExponent: number
  readonly retryCount: number
  readonly rnrRetryCount: number
}

export class Requester {
  readonly #queue: SendQueue
  readonly #table: MemoryTable
  readonly #domain: number
  readonly #number: number
  readonly #output: Output
  readonly #completions: SoftCompletionQueue
  readonly #trouble: Trouble
  /** Sequence of the request at position 0. */
  readonly #firstSequence: number
  next = 0
  unanswered = 0
  /** Bytes of the request at `next` that are in frames already. */
  #cut = 0
  /** Position behind the latest long message. */
  #lastLong = 0
  #readsOutstanding = 0
  #readArrived = 0
  /** The request at `next` cannot be sent: it fails with this when its turn comes. */
  #localFailure: Status = status.success
  #readsInitiated = 0
  #patienceMs = Number.POSITIVE_INFINITY
  #rnrRetryCount = ENDLESS
  #rnrRetriesLeft = ENDLESS
  #resumeMs = 0
  /** Since when the oldest request waits without a sign of life; -1 = from the next look at the clock on. */
  #waitingSinceMs = -1

  constructor(
    queue: SendQueue,
    table: MemoryTable,
    domain: number,
    number: number,
    output: Output,
    completions: SoftCompletionQueue,
    trouble: Trouble,
    packetSequence: number,
  ) {
    this.#queue = queue
    this.#table = table
    this.#domain = domain
    this.#number = number
    this.#output = output
    this.#completions = completions
    this.#trouble = trouble
    this.#firstSequence = firstSequence(packetSequence)
  }

  start(attributes: RequesterAttributes): void {
    this.#readsInitiated = attributes.readsInitiated
    const exponent = attributes.timeoutExponent
    this.#patienceMs =
      exponent === 0 ? Number.POSITIVE_INFINITY : TIMEOUT_UNIT_MS * 2 ** exponent * (attributes.retryCount + 1)
    this.#rnrRetryCount = attributes.rnrRetryCount
    this.#rnrRetriesLeft = attributes.rnrRetryCount
  }

  get hasUnanswered(): boolean {
    return this.unanswered !== this.#queue.posted
  }

  /** Whether `encode` could make a frame if the plan had room. */
  get canEncode(): boolean {
    if (this.next === this.#queue.posted || this.#resumeMs !== 0 || this.#localFailure !== status.success) return false
    return (
      this.#queue.opcode[this.next & this.#queue.mask] !== sendOpcode.read ||
      this.#readsOutstanding < this.#readsInitiated
    )
  }

  /** Whether the oldest request is a long message still being sent: its bytes leaving are a sign of life. */
  get isOldestUnderWay(): boolean {
    return this.#cut > 0 && this.next === this.unanswered
  }

  /** Whether a long message has left, or leaves, and is not answered. */
  get isMovingLong(): boolean {
    return ((this.#lastLong - this.unanswered) | 0) > 0
  }

  /** Makes frames while there are requests and room. Each carries `acknowledged` for the other direction. */
  encode(acknowledged: number): number {
    let frames = 0
    while (this.canEncode && this.#encodeNext(this.next & this.#queue.mask, acknowledged)) frames++
    return frames
  }

  #encodeNext(slot: number, acknowledged: number): boolean {
    const queue = this.#queue
    if (queue.opcode[slot] === sendOpcode.read) return this.#encodeRead(slot, acknowledged)
    if (queue.byteLength[slot]! <= COPY_BYTES_MAX) return this.#encodeCopied(slot, acknowledged)
    return this.#encodeCut(slot, acknowledged)
  }

  #encodeRead(slot: number, acknowledged: number): boolean {
    const at = this.#output.reserve(EXTENDED_HEADER_BYTES)
    if (at < 0) return false
    if (this.#queue.byteLength[slot]! > COPY_BYTES_MAX) this.#lastLong = (this.next + 1) | 0
    this.#encodeRemote(READ_WORD, at, slot, 0, acknowledged)
    this.#output.commit(EXTENDED_HEADER_BYTES)
    this.#readsOutstanding++
    this.next = (this.next + 1) | 0
    return true
  }

  #encodeCopied(slot: number, acknowledged: number): boolean {
    const queue = this.#queue
    const isSend = queue.opcode[slot] === sendOpcode.send
    const header = isSend ? HEADER_BYTES : EXTENDED_HEADER_BYTES
    const byteLength = queue.byteLength[slot]!
    const padding = paddingOf(byteLength)
    const whole = header + byteLength + padding
    const at = this.#output.reserve(whole)
    if (at < 0) return false
    // Padding first: the payload's end overwrites what of this word belongs to it.
    if (padding !== 0) this.#output.memory.f64[((at + whole) >> 3) - 1] = 0
    if (!this.#gather(slot, at + header)) return this.#failLocally(status.localProtectionError)
    if (isSend) encodeHeader(this.#output.memory, at, SEND_WORD, byteLength, this.#sequence(), acknowledged)
    else this.#encodeRemote(WRITE_WORD, at, slot, byteLength, acknowledged)
    this.#output.commit(whole)
    this.next = (this.next + 1) | 0
    return true
  }

  #encodeRemote(word: number, at: number, slot: number, payload: number, acknowledged: number): void {
    const queue = this.#queue
    encodeHeader(this.#output.memory, at, word, payload, this.#sequence(), acknowledged)
    const address = queue.remoteAddress[slot]!
    encodeExtension(this.#output.memory, at, queue.byteLength[slot]!, queue.remoteKey[slot]!, address)
  }

  #sequence(): number {
    return (this.#firstSequence + this.next) | 0
  }

  /** Copies the payload of a short request to byte `at` of the buffer; false when its memory is not what it says. */
  #gather(slot: number, at: number): boolean {
    const queue = this.#queue
    const target = this.#output.memory
    if ((queue.flags[slot]! & sendFlag.inline) !== 0) {
      copyBytes(target, at, queue.inline, queue.inlineAt(slot), queue.byteLength[slot]!)
      return true
    }
    const first = slot * queue.width
    const last = first + queue.entryCount[slot]!
    let to = at
    for (let entry = first; entry < last; entry++) {
      const byteLength = queue.entryLength[entry]!
      if (byteLength === 0) continue
      const region = this.#regionOf(entry)
      if (region === null) return false
      copyBytes(target, to, region.memory, queue.entryAddress[entry]! - region.address, byteLength)
      to += byteLength
    }
    return true
  }

  /** The region of an entry if key, domain and bounds hold now. */
  #regionOf(entry: number): SoftRegion | null {
    const queue = this.#queue
    const region = this.#table.byLocalKey(queue.entryKey[entry]!)
    if (region === null || region.domain !== this.#domain) return null
    const offset = queue.entryAddress[entry]! - region.address
    return offset >= 0 && offset + queue.entryLength[entry]! <= region.byteLength ? region : null
  }

  /** One segment of a long message: the header is written, the payload named where it is. */
  #encodeCut(slot: number, acknowledged: number): boolean {
    const queue = this.#queue
    const whole = queue.byteLength[slot]!
    const room = this.#output.directRoom(queue.width)
    const byteLength = Math.min(whole - this.#cut, SEGMENT_BYTES)
    if (byteLength > room) return false
    if (!this.#mayGather(slot)) return this.#failLocally(status.localProtectionError)
    this.#encodeCutHeader(slot, byteLength, acknowledged)
    this.#nameEntries(slot, byteLength)
    this.#lastLong = (this.next + 1) | 0
    this.#output.pad(paddingOf(byteLength))
    this.#cut += byteLength
    if (this.#cut === whole) {
      this.#cut = 0
      this.next = (this.next + 1) | 0
    }
    return true
  }

  #encodeCutHeader(slot: number, byteLength: number, acknowledged: number): void {
    const queue = this.#queue
    const isSend = queue.opcode[slot] === sendOpcode.send
    const whole = queue.byteLength[slot]!
    let flags: number = frameFlag.extended
    if (this.#cut === 0) flags |= frameFlag.first
    if (this.#cut + byteLength === whole) flags |= frameFlag.last
    const at = this.#output.reserve(EXTENDED_HEADER_BYTES)
    const word = frameWord(isSend ? frameType.send : frameType.write, flags)
    const address = isSend ? this.#cut : queue.remoteAddress[slot]! + this.#cut
    encodeHeader(this.#output.memory, at, word, byteLength, this.#sequence(), acknowledged)
    encodeExtension(this.#output.memory, at, whole, queue.remoteKey[slot]!, address)
    this.#output.commit(EXTENDED_HEADER_BYTES)
  }

  /** Looks at every entry again for each segment: at the price of a few loads for some hundred kilobytes. */
  #mayGather(slot: number): boolean {
    const queue = this.#queue
    const first = slot * queue.width
    for (let entry = first; entry < first + queue.entryCount[slot]!; entry++) {
      if (queue.entryLength[entry] !== 0 && this.#regionOf(entry) === null) return false
    }
    return true
  }

  /** Names `byteLength` bytes of the message from `#cut` on. */
  #nameEntries(slot: number, byteLength: number): void {
    const queue = this.#queue
    let skip = this.#cut
    let left = byteLength
    for (let entry = slot * queue.width; left > 0; entry++) {
      const length = queue.entryLength[entry]!
      if (skip < length) {
        const taken = Math.min(length - skip, left)
        this.#name(entry, skip, taken)
        left -= taken
        skip = 0
      } else {
        skip -= length
      }
    }
  }

  #name(entry: number, skip: number, byteLength: number): void {
    const address = this.#queue.entryAddress[entry]! + skip
    const region = this.#regionOf(entry)!
    this.#output.directFile(address, byteLength, region.file, region.fileOffset + (address - region.address))
  }

  #failLocally(why: Status): false {
    this.#localFailure = why
    this.#failIfDue()
    return false
  }

  #failIfDue(): void {
    if (this.#localFailure !== status.success && this.unanswered === this.next) {
      this.#trouble.requesterFailed(this.#localFailure)
    }
  }

  /** Everything before `sequence` has been executed by the peer. False: no peer of ours can say that. */
  acknowledge(sequence: number): boolean {
    const target = (sequence - this.#firstSequence) | 0
    let position = this.unanswered
    if (position === target) return true
    if (((target - position) | 0) < 0 || ((this.next - target) | 0) < 0) return false
    const queue = this.#queue
    while (position !== target) {
      const slot = position & queue.mask
      if (queue.opcode[slot] === sendOpcode.read) return false
      if ((queue.flags[slot]! & sendFlag.signaled) !== 0) this.#complete(position, slot)
      position = (position + 1) | 0
    }
    this.#answered(target)
    return true
  }

  #complete(position: number, slot: number): void {
    const queue = this.#queue
    const opcode = queue.opcode[slot]!
    this.#completions.push(queue, position, status.success, opcode, this.#number, queue.byteLength[slot]!)
  }

  #answered(position: number): void {
    this.unanswered = position
    this.#waitingSinceMs = -1
    this.#rnrRetriesLeft = this.#rnrRetryCount
    this.#failIfDue()
  }

  /** Data of the oldest read begins or goes on to arrive; false: nobody asked for it. */
  beginReadResponse(frame: Frame, placement: Placement): boolean {
    if (!this.acknowledge(frame.sequence) || this.unanswered === this.next) return false
    const queue = this.#queue
    const slot = this.unanswered & queue.mask
    if (((this.#firstSequence + this.unanswered) | 0) !== frame.sequence || queue.opcode[slot] !== sendOpcode.read)
      return false
    const isFirst = (frame.flags & frameFlag.first) !== 0
    if (isFirst !== (this.#readArrived === 0)) return false
    if (isFirst) placement.toEntries(queue, this.unanswered)
    this.#readArrived += frame.byteLength
    this.#waitingSinceMs = -1
    const isLast = (frame.flags & frameFlag.last) !== 0
    return isLast ? this.#readArrived === queue.byteLength[slot] : this.#readArrived < queue.byteLength[slot]!
  }

  /** The last data of the oldest read is in place. */
  finishRead(): void {
    const position = this.unanswered
    const slot = position & this.#queue.mask
    this.#readArrived = 0
    this.#readsOutstanding--
    if ((this.#queue.flags[slot]! & sendFlag.signaled) !== 0) this.#complete(position, slot)
    this.#answered((position + 1) | 0)
  }

  /** Data of a read could not be placed. */
  failRead(): void {
    this.#trouble.requesterFailed(status.localProtectionError)
  }

  /** The peer did not execute request `frame.sequence`; false: it never got such a request. */
  refused(frame: Frame, nowMs: number): boolean {
    if (!this.acknowledge(frame.sequence)) return false
    const isSent = this.unanswered !== this.next || this.#cut > 0
    if (((this.#firstSequence + this.unanswered) | 0) !== frame.sequence || !isSent) return false
    if (frame.code === CODE_RECEIVER_NOT_READY) this.#sendAgain(nowMs + frame.messageByteLength / 1000)
    else if (isRefusal(frame.code)) this.#trouble.requesterFailed(frame.code)
    else return false
    return true
  }

  #sendAgain(atMs: number): void {
    if (this.#rnrRetryCount !== ENDLESS && this.#rnrRetriesLeft-- === 0) {
      this.#trouble.requesterFailed(status.rnrRetryExceeded)
      return
    }
    this.next = this.unanswered
    this.#cut = 0
    this.#readsOutstanding = 0
    this.#localFailure = status.success
    this.#waitingSinceMs = -1
    this.#lastLong = this.next
    this.#resumeMs = Math.max(atMs, Number.MIN_VALUE)
  }

  /** Bytes of a long message left: the oldest request is alive. */
  touch(): void {
    this.#waitingSinceMs = -1
  }

  /** Ends a pause that is over and gives up on a peer that was silent for too long. */
  lookAtClock(nowMs: number): void {
    if (this.#resumeMs !== 0) {
      if (nowMs >= this.#resumeMs) this.#resumeMs = 0
      return
    }
    if (!this.hasUnanswered) this.#waitingSinceMs = -1
    else if (this.#waitingSinceMs < 0) this.#waitingSinceMs = nowMs
    else if (nowMs - this.#waitingSinceMs >= this.#patienceMs) this.#trouble.requesterFailed(status.retryExceeded)
  }

  nextTimerMs(nowMs: number): number {
    if (this.#resumeMs !== 0) return Math.max(0, this.#resumeMs - nowMs)
    if (!this.hasUnanswered) return Number.POSITIVE_INFINITY
    return this.#waitingSinceMs < 0 ? this.#patienceMs : Math.max(0, this.#waitingSinceMs + this.#patienceMs - nowMs)
  }

  /** Completes everything outstanding: the oldest with `cause`, the rest as flushed. */
  flush(cause: Status): void {
    const queue = this.#queue
    let why = cause
    while (this.unanswered !== queue.posted) {
      this.#completions.pushError(queue, this.unanswered, why, this.#number)
      this.unanswered = (this.unanswered + 1) | 0
      why = status.flushed
    }
    this.next = this.unanswered
    this.#lastLong = this.next
    this.#cut = 0
    this.#resumeMs = 0
    this.#localFailure = status.success
  }
}

/** Requests are numbered from a random start on, so that the wrap of the counter is met in ordinary runs too. */
export function firstSequence(packetSequence: number): number {
  return packetSequence << 8
}

/** Statuses that a responder may give; anything else in their place is garbage. */
function isRefusal(code: number): code is Status {
  return (
    code === status.remoteAccessError || code === status.remoteInvalidRequest || code === status.remoteOperationError
  )
}
