/**
 * Requests of one work queue that the device has not answered yet, by ordinal number.
 *
 *   retired ◄── tail … head ──► next to be posted        head − tail ≤ depth; both run freely and wrap at 2^32
 *
 * A completion retires its request and all before it: those were unsignalled and succeeded. The device is given the ordinal
 * as request id, so the caller's own id, opcode and slot are known even where a completion says nothing else. Devices round
 * queues up; the ledger keeps to the depth that was asked for.
 */
import { ringCapacity } from '../../shm/reference-ring.js'

export class VerbsLedger {
  readonly depth: number
  readonly idLow: Uint32Array
  readonly idHigh: Uint32Array
  readonly opcode: Uint8Array
  readonly #mask: number
  #head = 0
  #tail = 0

  constructor(depth: number) {
    this.depth = depth
    const capacity = ringCapacity(Math.max(2, depth))
    this.#mask = capacity - 1
    this.idLow = new Uint32Array(capacity)
    this.idHigh = new Uint32Array(capacity)
    this.opcode = new Uint8Array(capacity)
  }

  get room(): number {
    return this.depth - ((this.#head - this.#tail) | 0)
  }

  /** Ordinal of the new request. */
  push(idLow: number, idHigh: number, opcode: number): number {
    const ordinal = this.#head
    const at = ordinal & this.#mask
    this.idLow[at] = idLow
    this.idHigh[at] = idHigh
    this.opcode[at] = opcode
    this.#head = (ordinal + 1) | 0
    return ordinal
  }

  /** Takes back the last ones, which the device refused. */
  drop(count: number): void {
    this.#head = (this.#head - count) | 0
  }

  /** Where in the columns the completed request is, or -1 if it is not outstanding. */
  retire(ordinal: number): number {
    const distance = (ordinal - this.#tail) | 0
    if (distance < 0 || distance >= ((this.#head - this.#tail) | 0)) return -1
    this.#tail = (ordinal + 1) | 0
    return ordinal & this.#mask
  }
}
