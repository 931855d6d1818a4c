/**
 * What arrives on a queue pair's stream, taken apart in place.
 *
 *   header │ payload │ padding │ header │ payload │ …
 *
 * One `receive` brings many small frames into a scratch buffer that all queue pairs of the device share; their payloads are
 * copied to where they belong. The rest of a long payload is received straight into its place. Between two calls a queue
 * pair keeps only the beginning of a header (`stash`) or the number of payload bytes that are still to come.
 *
 * Alignment: frames begin at multiples of 8 of the stream, and what is received is put into the scratch buffer so that
 * they do so there too.
 */
import { EAGAIN, EINTR, isEstablished, receive } from '../../shm/libc.js'
import type { Memory } from '../../shm/memory.js'
import type { ProviderCounters } from './provider.js'
import type { QueuePairFaults } from './soft-faults.js'
import { FILE_BYTES_MIN } from './soft-output.js'
import type { Placement } from './soft-placement.js'
import type { Requester } from './soft-requester.js'
import type { Responder } from './soft-responder.js'
import type { Trouble } from './soft-trouble.js'
import { decodeFrame, EXTENDED_HEADER_BYTES, Frame, frameFlag, frameType, paddingOf } from './soft-wire.js'

export const SCRATCH_BYTES = 256 * 1024
/** Beyond the scratch buffer proper: the beginning of a header that is put in front. */
export const SCRATCH_MARGIN_BYTES = 64
/** From this many missing bytes on, a payload is received straight into its place. */
const DIRECT_BYTES = 16 * 1024
/**
 * Behind a long payload most likely comes another, also behind a small frame between them: then little is received into the scratch buffer,
 * and more again with each call that brought all it could.
 */
const BULK_SCRATCH_BYTES = 4 * 1024
const SCRATCH_GROWTH = 8

/** Where the payload of the current frame goes. */
const sink = { discard: 0, request: 1, read: 2 } as const

export class Input {
  readonly #scratch: Memory
  readonly #requester: Requester
  readonly #responder: Responder
  readonly #placement: Placement
  readonly #trouble: Trouble
  readonly #counters: ProviderCounters
  readonly #faults: QueuePairFaults | null
  readonly #frame = new Frame()
  readonly #stash = new Uint8Array(EXTENDED_HEADER_BYTES)
  #stashed = 0
  #fd = -1
  /** Payload and padding bytes of the current frame that are still to come. */
  #missing = 0
  #padding = 0
  #sink: number = sink.discard
  /** Bytes that a call brings into the scratch buffer at most, beyond the current payload. */
  #scratchBytes = SCRATCH_BYTES
  /** The last call brought less than it could, and nothing was heard since: nothing waits in the socket. */
  isDrained = true

  constructor(
    scratch: Memory,
    requester: Requester,
    responder: Responder,
    placement: Placement,
    trouble: Trouble,
    counters: ProviderCounters,
    faults: QueuePairFaults | null,
  ) {
    this.#scratch = scratch
    this.#requester = requester
    this.#responder = responder
    this.#placement = placement
    this.#trouble = trouble
    this.#counters = counters
    this.#faults = faults
  }

  /** In the middle of a long payload. */
  get isMidway(): boolean {
    return this.#missing >= DIRECT_BYTES
  }

  /** One call to the kernel and all that follows from it. Bytes received; 0 when there were none or trouble was noted. */
  receive(fd: number, nowMs: number): number {
    this.#fd = fd
    if (this.#missing >= DIRECT_BYTES && this.#sink !== sink.discard) {
      const span = Math.min(this.#placement.span(), this.#missing)
      if (span > 0) return this.#receiveInPlace(fd, span)
      this.#failPlacement()
      if (!this.#trouble.isNone) return 0
    }
    return this.#receiveFrames(fd, nowMs)
  }

  #receiveInPlace(fd: number, span: number): number {
    const allowed = this.#faults === null ? span : this.#uncutBytes(span)
    if (allowed === 0) return 0
    const placement = this.#placement
    const received = receive(fd, placement.region!.address + placement.offset, allowed, 0)
    if (!this.#hasReceived(received, allowed)) return 0
    if (this.#faults !== null) this.#countTowardsCut(received)
    placement.advance(received)
    this.#missing -= received
    if (this.#missing === 0) this.#finishFrame()
    return received
  }

  #receiveFrames(fd: number, nowMs: number): number {
    const lead = this.#lead()
    // A payload that is dropped goes through the scratch buffer too and may be longer than it.
    const wanted = Math.min(this.#missing + this.#scratchBytes, SCRATCH_BYTES, this.#scratch.byteLength - lead)
    const received = receive(fd, this.#scratch.address + lead, wanted, 0)
    if (!this.#hasReceived(received, wanted)) return 0
    const start = this.#stashed > 0 ? 0 : lead
    this.#stashed = 0
    if (received === wanted) this.#scratchBytes = Math.min(this.#scratchBytes * SCRATCH_GROWTH, SCRATCH_BYTES)
    this.#parse(start, lead + received, nowMs)
    return received
  }

  #hasReceived(received: number, wanted: number): boolean {
    this.#counters.systemCalls++
    this.isDrained = received < wanted
    if (received > 0) {
      this.#counters.bytesReceived += received
      return true
    }
    if (received !== -EAGAIN && received !== -EINTR) this.#trouble.streamBroke(false)
    return false
  }

  /** Where received bytes are put: behind a stashed header, or at the stream's own offset from a multiple of 8. */
  #lead(): number {
    if (this.#stashed === 0) return -(this.#missing + this.#padding) & 7
    for (let index = 0; index < this.#stashed; index++) this.#scratch.u8[index] = this.#stash[index]!
    return this.#stashed
  }

  #parse(start: number, end: number, nowMs: number): void {
    const frame = this.#frame
    const trouble = this.#trouble
    let at = start
    while (trouble.isNone) {
      at = this.#takePayload(at, end)
      if (this.#missing !== 0 || this.#padding !== 0 || !trouble.isNone) return
      const header = decodeFrame(this.#scratch, at, end - at, frame)
      if (header <= 0) {
        if (header < 0) trouble.streamBroke(true)
        else this.#stashRest(at, end)
        return
      }
      at += header
      this.#begin(frame, nowMs)
    }
  }

  /** Puts away what is there of the current frame's payload and padding; returns where the next byte stands. */
  #takePayload(start: number, end: number): number {
    let at = start
    if (this.#missing > 0) {
      const there = Math.min(this.#missing, end - at)
      if (this.#sink !== sink.discard && !this.#place(at, there)) return at
      at += there
      this.#missing -= there
      if (this.#missing > 0) return at
      this.#finishFrame()
    }
    const padding = Math.min(this.#padding, end - at)
    this.#padding -= padding
    return at + padding
  }

  #place(at: number, byteLength: number): boolean {
    const allowed = this.#faults === null ? byteLength : this.#uncutBytes(byteLength)
    if (!this.#placement.place(this.#scratch, at, allowed)) this.#failPlacement()
    if (this.#faults !== null) this.#countTowardsCut(allowed)
    if (allowed < byteLength) this.#trouble.streamBroke(false)
    return this.#trouble.isNone
  }

  #failPlacement(): void {
    if (this.#sink === sink.request) this.#responder.failPlacement(this.#frame)
    else this.#requester.failRead()
    this.#sink = sink.discard
  }

  #begin(frame: Frame, nowMs: number): void {
    this.#missing = frame.byteLength
    this.#padding = paddingOf(frame.byteLength)
    this.#sink = sink.discard
    if (frame.byteLength >= DIRECT_BYTES) this.#scratchBytes = BULK_SCRATCH_BYTES
    if (!this.#requester.acknowledge(frame.acknowledged)) this.#trouble.streamBroke(true)
    else if (frame.type <= frameType.read) this.#beginRequest(frame)
    else if (frame.type === frameType.readResponse) this.#beginResponse(frame)
    else if (frame.type === frameType.refuse && !this.#requester.refused(frame, nowMs)) this.#trouble.streamBroke(true)
  }

  #beginRequest(frame: Frame): void {
    const admission = this.#responder.admit(frame, this.#placement)
    if (admission === 'violation') {
      this.#trouble.streamBroke(true)
    } else if (admission === 'place') {
      this.#sink = sink.request
      if (this.#missing === 0) this.#finishFrame()
    } else {
      this.#lookForCut()
    }
  }

  #beginResponse(frame: Frame): void {
    if (!this.#requester.beginReadResponse(frame, this.#placement)) {
      this.#trouble.streamBroke(true)
      return
    }
    this.#sink = sink.read
    if (this.#missing === 0) this.#finishFrame()
  }

  #finishFrame(): void {
    const where = this.#sink
    this.#sink = sink.discard
    if (this.#frame.byteLength >= FILE_BYTES_MIN && !this.#isPeerThere()) {
      this.#trouble.streamBroke(false)
      return
    }
    if (where === sink.request) {
      this.#responder.finish(this.#frame)
      this.#lookForCut()
    } else if (where === sink.read && (this.#frame.flags & frameFlag.last) !== 0) {
      this.#requester.finishRead()
    }
  }

  /** Long payload may have come from pages that their owner has back since the peer's end went: only while that stands it is believed. */
  #isPeerThere(): boolean {
    this.#counters.systemCalls++
    return isEstablished(this.#fd)
  }

  #stashRest(at: number, end: number): void {
    this.#stashed = end - at
    for (let index = 0; index < this.#stashed; index++) this.#stash[index] = this.#scratch.u8[at + index]!
  }

  /** A fault hook ordered the end of the connection after the request that was just executed. */
  #lookForCut(): void {
    if (this.#faults?.isCut === true) this.#trouble.streamBroke(false)
  }

  /** How many of the next bytes may be placed before an ordered cut; the cut is made when none may. */
  #uncutBytes(byteLength: number): number {
    const order = this.#faults!.partialWriteThenCut
    if (this.#sink !== sink.request || order.request !== this.#responder.executed) return byteLength
    if (order.byteLength === 0) this.#trouble.streamBroke(false)
    return Math.min(byteLength, order.byteLength)
  }

  #countTowardsCut(byteLength: number): void {
    const { request, byteLength: left } = this.#faults!.partialWriteThenCut
    if (this.#sink !== sink.request || request !== this.#responder.executed) return
    this.#faults!.partialWriteThenCut = { request, byteLength: left - byteLength }
  }
}
