/**
 * Where the payload that is arriving goes: a range of a region (write), or the entries of a posted request (send, read).
 *
 * Keys, bounds and rights are looked at again for each span, at the time it is filled: a region that was deregistered in
 * the middle of a message ends it.
 */
import { copyBytes, copyInOrder } from '../../shm/copy.js'
import type { Memory } from '../../shm/memory.js'
import type { Ledger } from './soft-ledger.js'
import type { MemoryTable, SoftRegion } from './soft-memory.js'

export class Placement {
  readonly #table: MemoryTable
  readonly #domain: number
  /** The span that `room` bytes may be written to. */
  region: SoftRegion | null = null
  offset = 0
  #room = 0
  #ledger: Ledger | null = null
  #entry = 0
  #entryEnd = 0

  constructor(table: MemoryTable, domain: number) {
    this.#table = table
    this.#domain = domain
  }

  /** A range that was checked when the request began. */
  toRegion(region: SoftRegion | null, offset: number, byteLength: number): void {
    this.region = region
    this.offset = offset
    this.#room = byteLength
    this.#ledger = null
  }

  /** The entries of the request at `position`, in order. */
  toEntries(ledger: Ledger, position: number): void {
    const slot = position & ledger.mask
    this.#ledger = ledger
    this.#entry = slot * ledger.width
    this.#entryEnd = this.#entry + ledger.entryCount[slot]!
    this.region = null
    this.#room = 0
  }

  /** Bytes that may go to `region` at `offset` now; 0 when a key, bound or right forbids it. */
  span(): number {
    while (this.#room === 0) if (!this.#nextEntry()) return 0
    return this.region?.alive === true ? this.#room : 0
  }

  advance(byteLength: number): void {
    this.offset += byteLength
    this.#room -= byteLength
  }

  /** Copies payload into place; false when it may not go there. */
  place(from: Memory, at: number, byteLength: number): boolean {
    let left = byteLength
    let source = at
    while (left > 0) {
      const span = Math.min(this.span(), left)
      if (span === 0) return false
      // A write may be watched at its last byte; a send or a read tells by its completion.
      if (this.#ledger === null) copyInOrder(this.region!.memory, this.offset, from, source, span)
      else copyBytes(this.region!.memory, this.offset, from, source, span)
      this.advance(span)
      source += span
      left -= span
    }
    return true
  }

  #nextEntry(): boolean {
    const ledger = this.#ledger
    if (ledger === null || this.#entry === this.#entryEnd) return false
    const entry = this.#entry++
    const region = this.#table.byLocalKey(ledger.entryKey[entry]!)
    const byteLength = ledger.entryLength[entry]!
    if (byteLength === 0) return true
    if (region === null || region.domain !== this.#domain || !region.localWrite) return false
    const offset = ledger.entryAddress[entry]! - region.address
    if (!(offset >= 0 && offset + byteLength <= region.byteLength)) return false
    this.region = region
    this.offset = offset
    this.#room = byteLength
    return true
  }
}
