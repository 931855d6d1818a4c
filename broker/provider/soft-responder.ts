/**
 * The responder's half of a queue pair: a state machine without sockets and clocks. A request goes in as a `Frame`, its
 * payload goes where `Placement` says, answers come out as frames of the plan and as the number that acknowledges.
 *
 *   answered ─────────────── expected ─────────►
 *   executed │ executed, but a read before them is not sent yet │ not executed
 *
 * Invariants:
 * - Requests are executed in the order of their sequence, each once, each wholly before the next begins.
 * - `answered` never passes a read whose data does not stand earlier in the stream.
 * - A refusal is the last word on its request: what was sent behind it is dropped unexecuted. After "receiver not ready" the
 *   refused request comes again; after any other refusal the queue pair is in error.
 * - A read of up to SNAPSHOT_BYTES is taken when it is executed. A longer one is taken while it is sent, and a later write
 *   may show in it, as verbs allow: who cares waits for the read (the broker does).
 */

import { type Status, status } from '../../protocol/statuses.js'
import { copyBytes } from '../../shm/copy.js'
import { ringCapacity } from '../../shm/reference-ring.js'
import type { ProviderCounters, ProviderEvent } from './provider.js'
import type { SoftCompletionQueue } from './soft-completion-queue.js'
import type { ExecutedRequest, QueuePairFaults } from './soft-faults.js'
import type { MemoryTable, SoftRegion } from './soft-memory.js'
import type { Output } from './soft-output.js'
import type { Placement } from './soft-placement.js'
import type { ReceiveQueue } from './soft-receive-queue.js'
import { firstSequence } from './soft-requester.js'
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

const SNAPSHOT_BYTES = 8 * 1024

const ACKNOWLEDGE_WORD = frameWord(frameType.acknowledge, 0)

/** What the input does with a request's payload. */
export type Admission = 'place' | 'discard' | 'violation'

/** A read that was executed and whose data is still to be sent. */
class PendingRead {
  sequence = 0
  region: SoftRegion | null = null
  offset = 0
  byteLength = 0
  sent = 0
}

export interface ResponderParts {
  readonly number: number
  readonly domain: number
  readonly table: MemoryTable
  readonly receives: ReceiveQueue
  readonly completions: SoftCompletionQueue
  readonly output: Output
  readonly trouble: Trouble
  readonly counters: ProviderCounters
  readonly faults: QueuePairFaults | null
}

export class Responder {
  readonly #parts: ResponderParts
  readonly #receives: ReceiveQueue
  readonly #trouble: Trouble
  readonly #faults: QueuePairFaults | null
  /** Sequence of the next request to execute. */
  #expected = 0
  /** What the last frame told the peer. */
  #told = 0
  /** The peer was not told yet of something whose completion it waits for. */
  isAwaited = false
  #isRefusing = false
  #refusalCode = -1
  #rnrTimerMicroseconds = 0
  /** Of the message that is arriving. */
  #arrived = 0
  #messageByteLength = 0
  #readsAccepted = 0
  #reads: PendingRead[] = [new PendingRead()]
  #readFirst = 0
  #readLast = 0
  /**
   * Reads answered into the plan whose data the socket has not taken yet: they still hold accepted places. Each by where in the stream of
   * sent bytes its data ends, because the peer may have all of it, and ask for more, while the plan is not sent to its end.
   */
  #readsInPlan = 0
  #firstInPlan = 0
  #dataEnds: Float64Array = new Float64Array(2)
  #sentByteLength = 0
  #executed = 0

  constructor(parts: ResponderParts) {
    this.#parts = parts
    this.#receives = parts.receives
    this.#trouble = parts.trouble
    this.#faults = parts.faults
  }

  start(remotePacketSequence: number, readsAccepted: number, rnrTimerMs: number): void {
    this.#expected = firstSequence(remotePacketSequence)
    this.#told = this.#expected
    this.#readsAccepted = readsAccepted
    this.#rnrTimerMicroseconds = Math.round(rnrTimerMs * 1000)
    this.#reads = Array.from({ length: ringCapacity(readsAccepted + 1) }, () => new PendingRead())
    this.#dataEnds = new Float64Array(this.#reads.length)
  }

  /** First sequence that is not answered yet; every frame carries it. */
  get answered(): number {
    if (this.#faults?.dropAcknowledgements === true) return this.#told
    return this.#readFirst === this.#readLast ? this.#expected : this.#read(this.#readFirst).sequence
  }

  /** Requests answered since the peer was told last. */
  get untold(): number {
    return (this.answered - this.#told) | 0
  }

  get hasAnswers(): boolean {
    return this.#faults?.dropAcknowledgements !== true && (this.#readFirst !== this.#readLast || this.#refusalCode >= 0)
  }

  /** Segments of a message have arrived, and others are still to come. */
  get isMidway(): boolean {
    return this.#arrived > 0
  }

  /** Requests executed on this connection. */
  get executed(): number {
    return this.#executed
  }

  /** A frame that carries `answered` stands in the plan. */
  told(): void {
    this.#told = this.answered
    this.isAwaited = false
  }

  /** The socket took so much of the plan. */
  planTaken(byteLength: number): void {
    this.#sentByteLength += byteLength
    while (this.#readsInPlan > 0 && this.#dataEnds[this.#firstInPlan]! <= this.#sentByteLength) {
      this.#firstInPlan = (this.#firstInPlan + 1) & (this.#dataEnds.length - 1)
      this.#readsInPlan--
    }
  }

  /** Decides on a request or on the next segment of one; on 'place' its payload follows and then `finish`. */
  admit(frame: Frame, placement: Placement): Admission {
    const isFirst = (frame.flags & frameFlag.first) !== 0
    if (this.#isRefusing) {
      if (frame.sequence !== this.#expected || !isFirst) return 'discard'
      this.#isRefusing = false
    }
    if (frame.sequence !== this.#expected || isFirst !== (this.#arrived === 0)) return 'violation'
    if (frame.type === frameType.read) return this.#admitRead(frame)
    if (isFirst) this.#messageByteLength = messageLength(frame)
    else if (messageLength(frame) !== this.#messageByteLength) return 'violation'
    const end = this.#arrived + frame.byteLength
    const isLast = (frame.flags & frameFlag.last) !== 0
    if (isLast ? end !== this.#messageByteLength : end >= this.#messageByteLength || frame.byteLength === 0)
      return 'violation'
    return frame.type === frameType.send
      ? this.#admitSend(isFirst, placement)
      : this.#admitWrite(frame, isFirst, placement)
  }

  #admitSend(isFirst: boolean, placement: Placement): Admission {
    if (!isFirst) return 'place'
    const receives = this.#receives
    if (!receives.hasReceive) return this.#refuseForNow()
    if (this.#messageByteLength > receives.byteLength[receives.next & receives.mask]!) {
      return this.#refuse(status.remoteInvalidRequest, status.localLengthError, null)
    }
    placement.toEntries(receives, receives.next)
    return 'place'
  }

  #admitWrite(frame: Frame, isFirst: boolean, placement: Placement): Admission {
    if (this.#messageByteLength === 0) {
      placement.toRegion(null, 0, 0)
      return 'place'
    }
    const region = this.#parts.table.byRemoteKey(frame.remoteKey)
    // The first segment answers for the whole range, as the first packet does on a device.
    const checked = isFirst ? this.#messageByteLength : frame.byteLength
    const allowed = region !== null && region.domain === this.#parts.domain && region.remoteWrite
    if (!allowed || frame.remoteAddress + checked > region.byteLength) return this.#refuseAccess()
    placement.toRegion(region, frame.remoteAddress, frame.byteLength)
    return 'place'
  }

  #admitRead(frame: Frame): Admission {
    const held = ((this.#readLast - this.#readFirst) | 0) + this.#readsInPlan
    if (held >= this.#readsAccepted)
      return this.#refuse(status.remoteInvalidRequest, status.success, 'queue-pair-error')
    const byteLength = frame.messageByteLength
    const region = byteLength === 0 ? null : this.#parts.table.byRemoteKey(frame.remoteKey)
    if (byteLength !== 0 && !this.#isReadable(region, frame.remoteAddress + byteLength)) return this.#refuseAccess()
    const read = this.#read(this.#readLast)
    read.sequence = this.#expected
    read.region = region
    read.offset = frame.remoteAddress
    read.byteLength = byteLength
    read.sent = 0
    this.#readLast = (this.#readLast + 1) | 0
    this.#execute(frame.type, byteLength)
    if (byteLength <= SNAPSHOT_BYTES && ((this.#readLast - this.#readFirst) | 0) === 1) this.answerReads()
    return 'discard'
  }

  #isReadable(region: SoftRegion | null, end: number): boolean {
    return region !== null && region.domain === this.#parts.domain && region.remoteRead && end <= region.byteLength
  }

  /** The payload of an admitted frame is in place. */
  finish(frame: Frame): void {
    this.#arrived += frame.byteLength
    if ((frame.flags & frameFlag.last) === 0) return
    this.#arrived = 0
    if (frame.type === frameType.send) {
      const receives = this.#receives
      const position = receives.next
      receives.next = (position + 1) | 0
      this.#parts.completions.pushReceived(receives, position, this.#parts.number, this.#messageByteLength)
    }
    this.#execute(frame.type, this.#messageByteLength)
  }

  #execute(type: number, byteLength: number): void {
    const sequence = this.#expected
    this.#expected = (sequence + 1) | 0
    const index = this.#executed++
    if (type !== frameType.send) this.isAwaited = true
    if (this.#faults !== null) this.#faults.onExecuted(executedRequest(this.#parts.number, index, type, byteLength))
  }

  /** The payload of an admitted frame may not go where it should: the memory changed under the request. */
  failPlacement(frame: Frame): void {
    if (frame.type === frameType.write) this.#refuseAccess()
    else this.#refuse(status.remoteOperationError, status.localProtectionError, null)
  }

  #refuseForNow(): Admission {
    this.#parts.counters.receiverNotReady++
    this.#isRefusing = true
    this.#refusalCode = CODE_RECEIVER_NOT_READY
    return 'discard'
  }

  #refuseAccess(): Admission {
    return this.#refuse(status.remoteAccessError, status.success, 'access-error')
  }

  #refuse(why: Status, receiveStatus: Status, event: ProviderEvent['kind'] | null): Admission {
    this.#isRefusing = true
    this.#arrived = 0
    this.#refusalCode = why
    this.#trouble.responderRefused(why, receiveStatus, event)
    return 'discard'
  }

  /** Puts data of reads, then a refusal, into the plan, as far as there is room. */
  answer(): void {
    this.answerReads()
    if (this.#faults?.dropAcknowledgements === true) return
    if (this.#refusalCode >= 0 && this.#readFirst === this.#readLast) this.#encodeRefusal()
  }

  answerReads(): void {
    if (this.#faults?.dropAcknowledgements === true) return
    while (this.#readFirst !== this.#readLast) {
      const read = this.#read(this.#readFirst)
      if (read.byteLength !== 0 && (!read.region!.alive || !read.region!.remoteRead)) {
        this.#loseRead()
        return
      }
      if (!this.#encodeResponse(read)) return
      if (read.sent < read.byteLength) continue
      read.region = null
      // The last data of a read acknowledges it; no frame is needed to say so again.
      this.#told = (read.sequence + 1) | 0
      this.#readFirst = (this.#readFirst + 1) | 0
      const at = (this.#firstInPlan + this.#readsInPlan++) & (this.#dataEnds.length - 1)
      this.#dataEnds[at] = this.#sentByteLength + this.#parts.output.pending - paddingOf(read.byteLength)
    }
  }

  /**
   * The memory of a read went away before its data was sent. It may only be refused if nothing after it was executed: a
   * refusal promises that. Otherwise the stream ends without a word.
   */
  #loseRead(): void {
    const read = this.#read(this.#readFirst)
    const isLastExecuted = ((read.sequence + 1) | 0) === this.#expected && this.#arrived === 0
    this.#readFirst = this.#readLast
    if (!isLastExecuted) {
      this.#trouble.streamBroke(false)
      return
    }
    this.#expected = read.sequence
    this.#refuseAccess()
  }

  #encodeResponse(read: PendingRead): boolean {
    return read.byteLength <= SNAPSHOT_BYTES ? this.#encodeCopied(read) : this.#encodeCut(read)
  }

  #encodeCopied(read: PendingRead): boolean {
    const output = this.#parts.output
    const { byteLength } = read
    const padding = paddingOf(byteLength)
    const whole = HEADER_BYTES + byteLength + padding
    const at = output.reserve(whole)
    if (at < 0) return false
    // Padding first: the payload's end overwrites what of this word belongs to it.
    if (padding !== 0) output.memory.f64[((at + whole) >> 3) - 1] = 0
    this.#encodeResponseHeader(at, read, frameFlag.first | frameFlag.last, byteLength)
    if (byteLength !== 0) copyBytes(output.memory, at + HEADER_BYTES, read.region!.memory, read.offset, byteLength)
    output.commit(whole)
    read.sent = byteLength
    return true
  }

  #encodeCut(read: PendingRead): boolean {
    const output = this.#parts.output
    const byteLength = Math.min(read.byteLength - read.sent, SEGMENT_BYTES)
    if (output.directRoom(1) < byteLength) return false
    const isLast = read.sent + byteLength === read.byteLength
    const flags = (read.sent === 0 ? frameFlag.first : 0) | (isLast ? frameFlag.last : 0)
    this.#encodeResponseHeader(output.reserve(HEADER_BYTES), read, flags, byteLength)
    output.commit(HEADER_BYTES)
    const { address, file, fileOffset } = read.region!
    const offset = read.offset + read.sent
    output.directFile(address + offset, byteLength, file, fileOffset + offset)
    output.pad(paddingOf(byteLength))
    read.sent += byteLength
    return true
  }

  #encodeResponseHeader(at: number, read: PendingRead, flags: number, byteLength: number): void {
    const word = frameWord(frameType.readResponse, flags)
    encodeHeader(this.#parts.output.memory, at, word, byteLength, read.sequence, this.answered)
    this.told()
  }

  #encodeRefusal(): void {
    const output = this.#parts.output
    const at = output.reserve(EXTENDED_HEADER_BYTES)
    if (at < 0) return
    const word = frameWord(frameType.refuse, frameFlag.extended, this.#refusalCode)
    encodeHeader(output.memory, at, word, 0, this.#expected, this.#expected)
    encodeExtension(output.memory, at, this.#rnrTimerMicroseconds, 0, 0)
    output.commit(EXTENDED_HEADER_BYTES)
    this.#told = this.#expected
    this.#refusalCode = -1
  }

  /** A frame that says nothing but `answered`. False when there is no room. */
  encodeAcknowledgement(): boolean {
    const output = this.#parts.output
    const at = output.reserve(HEADER_BYTES)
    if (at < 0) return false
    encodeHeader(output.memory, at, ACKNOWLEDGE_WORD, 0, 0, this.answered)
    output.commit(HEADER_BYTES)
    this.told()
    return true
  }

  /** Forgets unsent answers: the queue pair left the connected states without owing the peer a refusal. */
  dropAnswers(): void {
    for (const read of this.#reads) read.region = null
    this.#readFirst = this.#readLast
    this.#refusalCode = -1
  }

  #read(position: number): PendingRead {
    return this.#reads[position & (this.#reads.length - 1)]!
  }
}

function messageLength(frame: Frame): number {
  return (frame.flags & frameFlag.extended) !== 0 ? frame.messageByteLength : frame.byteLength
}

function executedRequest(queuePair: number, index: number, type: number, byteLength: number): ExecutedRequest {
  const opcode = type === frameType.send ? 'send' : type === frameType.write ? 'write' : 'read'
  return { queuePair, index, opcode, byteLength }
}
