/**
 * What a queue pair still has to send: its stream, as a plan of pieces.
 *
 *   buffer   │ sent │ frames, small payloads copied in          │ free │
 *   plan     piece: buffer range ─ piece: payload in registered memory ─ … ─ tail: buffer range still open
 *
 * Small frames only lengthen the tail, and a plan without pieces leaves by one `send`. A large payload is named, not
 * copied: the tail becomes a piece, the payload another, and the plan leaves by one gathering call. The kernel may take
 * any part of it; the rest stays as it is. The buffer starts anew when everything has left, it never wraps.
 *
 * A payload of many pages in a file leaves by a call of its own that hands over the pages: nobody copies it but the receiver's kernel. What
 * stands in them is read when the peer takes it, which may be after this end has gone: see `lend` of soft-link.ts.
 */
import { EINTR, EIO, MSG_MORE, memoryCopy, send, sendFile, sendVector, storeAddress } from '../../shm/libc.js'
import type { Memory } from '../../shm/memory.js'
import { Arena } from './soft-arena.js'

export const OUTPUT_BYTES = 256 * 1024
const PIECES = 256
const VECTOR_BYTES = 16
const VECTOR_AT = OUTPUT_BYTES
const FILE_OFFSET_AT = VECTOR_AT + PIECES * VECTOR_BYTES
export const OUTPUT_PLAN_BYTES = FILE_OFFSET_AT + 8
/** From here on pages are handed over; shorter payloads are copied faster than their pages are counted (measured). */
export const FILE_BYTES_MIN = 64 * 1024
/** Of a piece that lies in no file. */
export const NO_FILE = -1

/** Named payload bytes that a plan holds at most: enough for a full socket buffer, little enough to copy on an error. */
export const DIRECT_BYTES_MAX = 1 << 20

export class Output {
  readonly memory: Memory
  /** Bytes of the buffer that are written. */
  end = 0
  /** Buffer bytes from here on belong to no piece. */
  #tail = 0
  #first = 0
  #count = 0
  #directBytes = 0
  #pieceBytes = 0
  /** Bytes of the latest call for pieces in memory. */
  #asked = 0
  readonly #address: Float64Array = new Float64Array(PIECES)
  readonly #byteLength: Int32Array = new Int32Array(PIECES)
  readonly #file: Int32Array = new Int32Array(PIECES)
  readonly #fileOffset: Float64Array = new Float64Array(PIECES)
  #spill: Arena | null = null
  /** Pages were handed over, or will be. */
  lends = false
  /** Calls to the kernel so far. */
  systemCalls = 0

  /** Takes the first OUTPUT_PLAN_BYTES of `memory`. */
  constructor(memory: Memory) {
    this.memory = memory
  }

  /** Bytes that are written or named and not yet sent. */
  get pending(): number {
    return this.#pieceBytes + this.end - this.#tail
  }

  /** Where `byteLength` bytes may be written, or -1: send first. The frame counts only once `commit` was called. */
  reserve(byteLength: number): number {
    return this.end + byteLength <= OUTPUT_BYTES ? this.end : -1
  }

  commit(byteLength: number): void {
    this.end += byteLength
  }

  /** How many payload bytes may be named now, in at most `pieces` pieces with a header and a padding around them. */
  directRoom(pieces: number): number {
    // One piece each for the frames before, the padding, and the frames after.
    if (this.#count + pieces + 3 > PIECES || this.end + 64 > OUTPUT_BYTES) return 0
    return DIRECT_BYTES_MAX - this.#directBytes
  }

  /** Names a payload; its memory must stay as it is until sent, or until `detach`. */
  direct(address: number, byteLength: number): void {
    this.#closeTail()
    this.#addPiece(address, byteLength, NO_FILE, 0)
    this.#directBytes += byteLength
  }

  /** The same of memory that is mapped from `offset` of a file (or NO_FILE): its pages may be read until the peer has answered. */
  directFile(address: number, byteLength: number, file: number, offset: number): void {
    if (file === NO_FILE || byteLength < FILE_BYTES_MIN) {
      this.direct(address, byteLength)
      return
    }
    this.#closeTail()
    this.#addPiece(address, byteLength, file, offset)
    this.#directBytes += byteLength
    this.lends = true
  }

  /** Adds zeroes behind a named payload. The buffer goes on at a multiple of 8, where the next frame can be written. */
  pad(byteLength: number): void {
    if (byteLength === 0) return
    this.memory.u8.fill(0, this.end, this.end + byteLength)
    this.end += byteLength
    this.#closeTail()
    this.end = (this.end + 7) & -8
    this.#tail = this.end
  }

  /** Sends what the socket takes: bytes, or a negative errno. */
  flush(fd: number): number {
    if (this.#count === 0) return this.#flushTail(fd)
    this.#closeTail()
    let sent = 0
    while (this.#count > 0) {
      const isFile = this.#file[this.#first]! !== NO_FILE
      const taken = isFile ? this.#sendPages(fd) : this.#sendMemory(fd)
      if (taken === -EINTR && sent > 0) continue
      if (taken <= 0) return sent > 0 ? sent : taken
      sent += taken
      this.#advance(taken)
      // Less than it could take: it is full. Of pages it may take less for other reasons, and is asked again.
      if (!isFile && taken < this.#asked) return sent
    }
    return sent
  }

  /** Pieces in memory up to the next one in a file, in one call. */
  #sendMemory(fd: number): number {
    this.systemCalls++
    const first = this.#first
    this.#asked = this.#byteLength[first]!
    let end = first + 1
    for (; end < this.#count && this.#file[end]! === NO_FILE; end++) this.#asked += this.#byteLength[end]!
    // A header leaves in one packet with the pages that follow.
    if (end === first + 1 && end < this.#count) return send(fd, this.#address[first]!, this.#asked, MSG_MORE)
    return sendVector(fd, this.memory.address + VECTOR_AT + first * VECTOR_BYTES, end - first)
  }

  #sendPages(fd: number): number {
    this.systemCalls++
    const first = this.#first
    storeAddress(this.memory.u32, FILE_OFFSET_AT >> 2, this.#fileOffset[first]!)
    const taken = sendFile(fd, this.#file[first]!, this.memory.address + FILE_OFFSET_AT, this.#byteLength[first]!)
    // The file ends before its mapping does.
    return taken === 0 ? -EIO : taken
  }

  /** Copies named payloads aside, so that their memory is its owner's again while the plan goes on. Rare. */
  detach(): void {
    if (this.#directBytes === 0) return
    const spill = new Arena(this.#pieceBytes)
    let at = 0
    for (let index = this.#first; index < this.#count; index++) {
      const byteLength = this.#byteLength[index]!
      memoryCopy(spill.memory.address + at, this.#address[index]!, byteLength)
      this.#setPiece(index, spill.memory.address + at, byteLength, NO_FILE, 0)
      at += byteLength
    }
    this.#spill?.close()
    this.#spill = spill
    this.#directBytes = 0
  }

  /** Whether a named payload lies in this range. */
  names(address: number, byteLength: number): boolean {
    for (let index = this.#first; index < this.#count; index++) {
      const start = this.#address[index]!
      if (start < address + byteLength && start + this.#byteLength[index]! > address) return true
    }
    return false
  }

  clear(): void {
    this.#reset()
  }

  #flushTail(fd: number): number {
    this.systemCalls++
    const sent = send(fd, this.memory.address + this.#tail, this.end - this.#tail, 0)
    if (sent > 0) {
      this.#tail += sent
      if (this.#tail === this.end) this.#reset()
    }
    return sent
  }

  #advance(sent: number): void {
    let left = sent
    this.#pieceBytes -= sent
    while (left > 0) {
      const byteLength = this.#byteLength[this.#first]!
      if (left < byteLength) {
        this.#cutFirst(left, byteLength)
        return
      }
      left -= byteLength
      this.#first++
    }
    if (this.#first === this.#count) this.#reset()
  }

  /** The first `taken` bytes of the first piece have left. */
  #cutFirst(taken: number, byteLength: number): void {
    const first = this.#first
    const offset = this.#fileOffset[first]! + taken
    this.#setPiece(first, this.#address[first]! + taken, byteLength - taken, this.#file[first]!, offset)
  }

  #closeTail(): void {
    const byteLength = this.end - this.#tail
    if (byteLength === 0) return
    this.#addPiece(this.memory.address + this.#tail, byteLength, NO_FILE, 0)
    this.#tail = this.end
  }

  #addPiece(address: number, byteLength: number, file: number, fileOffset: number): void {
    this.#setPiece(this.#count++, address, byteLength, file, fileOffset)
    this.#pieceBytes += byteLength
  }

  #setPiece(index: number, address: number, byteLength: number, file: number, fileOffset: number): void {
    this.#address[index] = address
    this.#byteLength[index] = byteLength
    this.#file[index] = file
    this.#fileOffset[index] = fileOffset
    const word = (VECTOR_AT + index * VECTOR_BYTES) >> 2
    storeAddress(this.memory.u32, word, address)
    storeAddress(this.memory.u32, word + 2, byteLength)
  }

  #reset(): void {
    this.end = 0
    this.#tail = 0
    this.#first = 0
    this.#count = 0
    this.#directBytes = 0
    this.#pieceBytes = 0
    if (this.#spill === null) return
    this.#spill.close()
    this.#spill = null
  }
}
