/**
 * A completion queue: a ring of columns, filled by the queue pairs and emptied by `poll`.
 * When it is full the completion is lost and an event says so (as Soft-RoCE does): whoever sizes it for all outstanding
 * requests, signalled or not, never sees that.
 */

import { type Status, status } from '../../protocol/statuses.js'
import { ringCapacity } from '../../shm/reference-ring.js'
import { type CompletionBatch, type ProviderCompletionQueue, receiveOpcode } from './provider.js'
import type { Ledger } from './soft-ledger.js'

/** What an error completion shows in fields that verbs leave undefined, when a test asks for it. */
const POISON_OPCODE = 0xa5
const POISON_BYTE_LENGTH = 0xdeadbeef

export class SoftCompletionQueue implements ProviderCompletionQueue {
  readonly handle: number
  readonly capacity: number
  /** Queue pairs that complete here, counted once for sends and once for receives. */
  users = 0
  /** Set by a fault hook: the next completion finds no room. */
  overrunNext = false
  readonly #mask: number
  readonly #poison: boolean
  readonly #onOverrun: (handle: number) => void
  #head = 0
  #tail = 0
  /** An overrun is told once; telling starts anew when the queue has been emptied. */
  #overrunTold = false
  readonly #ledger: (Ledger | null)[]
  readonly #position: Int32Array
  readonly #idLow: Uint32Array
  readonly #idHigh: Uint32Array
  readonly #status: Uint8Array
  readonly #opcode: Uint8Array
  readonly #queuePair: Uint32Array
  readonly #byteLength: Float64Array

  constructor(handle: number, capacity: number, poison: boolean, onOverrun: (handle: number) => void) {
    const slots = ringCapacity(capacity)
    this.handle = handle
    this.capacity = capacity
    this.#mask = slots - 1
    this.#poison = poison
    this.#onOverrun = onOverrun
    this.#ledger = new Array<Ledger | null>(slots).fill(null)
    this.#position = new Int32Array(slots)
    this.#idLow = new Uint32Array(slots)
    this.#idHigh = new Uint32Array(slots)
    this.#status = new Uint8Array(slots)
    this.#opcode = new Uint8Array(slots)
    this.#queuePair = new Uint32Array(slots)
    this.#byteLength = new Float64Array(slots)
  }

  get isEmpty(): boolean {
    return this.#head === this.#tail
  }

  /** Completes the request at `position` of a ledger; polling it retires the request and all before it. */
  push(ledger: Ledger, position: number, status: Status, opcode: number, queuePair: number, byteLength: number): void {
    const tail = this.#tail
    if (((tail - this.#head) | 0) >= this.capacity || this.overrunNext) {
      this.#overrun()
      return
    }
    const from = position & ledger.mask
    const slot = tail & this.#mask
    this.#tail = (tail + 1) | 0
    this.#ledger[slot] = ledger
    this.#position[slot] = position
    this.#idLow[slot] = ledger.idLow[from]!
    this.#idHigh[slot] = ledger.idHigh[from]!
    this.#status[slot] = status
    this.#opcode[slot] = opcode
    this.#queuePair[slot] = queuePair
    this.#byteLength[slot] = byteLength
  }

  /** An error completion: id, status and queue pair are all that it says. */
  pushError(ledger: Ledger, position: number, status: Status, queuePair: number): void {
    const opcode = this.#poison ? POISON_OPCODE : 0
    this.push(ledger, position, status, opcode, queuePair, this.#poison ? POISON_BYTE_LENGTH : 0)
  }

  pushReceived(ledger: Ledger, position: number, queuePair: number, byteLength: number): void {
    this.push(ledger, position, status.success, receiveOpcode, queuePair, byteLength)
  }

  poll(into: CompletionBatch): number {
    let head = this.#head
    const room = into.capacity - into.count
    const count = Math.min(room, (this.#tail - head) | 0)
    for (let index = 0; index < count; index++) {
      const slot = head & this.#mask
      const to = into.count++
      into.idLow[to] = this.#idLow[slot]!
      into.idHigh[to] = this.#idHigh[slot]!
      into.status[to] = this.#status[slot]!
      into.opcode[to] = this.#opcode[slot]!
      into.queuePair[to] = this.#queuePair[slot]!
      into.byteLength[to] = this.#byteLength[slot]!
      this.#ledger[slot]!.retire(this.#position[slot]!)
      head = (head + 1) | 0
    }
    this.#head = head
    if (this.#overrunTold && head === this.#tail) this.#overrunTold = false
    return count
  }

  /** Drops what a destroyed queue pair left behind; the others keep their order. */
  purge(ledger: Ledger): void {
    let kept = this.#head
    for (let from = this.#head; from !== this.#tail; from = (from + 1) | 0) {
      if (this.#ledger[from & this.#mask] === ledger) continue
      if (kept !== from) this.#move(from & this.#mask, kept & this.#mask)
      kept = (kept + 1) | 0
    }
    this.#tail = kept
    // Slots that were polled long ago still name the ledger, and would keep its columns from being collected.
    for (let slot = 0; slot <= this.#mask; slot++) if (this.#ledger[slot] === ledger) this.#ledger[slot] = null
  }

  #move(from: number, to: number): void {
    this.#ledger[to] = this.#ledger[from]!
    this.#position[to] = this.#position[from]!
    this.#idLow[to] = this.#idLow[from]!
    this.#idHigh[to] = this.#idHigh[from]!
    this.#status[to] = this.#status[from]!
    this.#opcode[to] = this.#opcode[from]!
    this.#queuePair[to] = this.#queuePair[from]!
    this.#byteLength[to] = this.#byteLength[from]!
  }

  #overrun(): void {
    this.overrunNext = false
    if (this.#overrunTold) return
    this.#overrunTold = true
    this.#onOverrun(this.handle)
  }
}
