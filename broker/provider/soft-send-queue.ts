/** Sends of a queue pair: the ledger of requests, with what only a send has. Inline payloads are kept here until retired. */
import type { Memory } from '../../shm/memory.js'
import type { WorkRequestBatch } from './provider.js'
import { Ledger } from './soft-ledger.js'

export class SendQueue extends Ledger {
  readonly opcode: Uint8Array
  readonly flags: Uint8Array
  readonly remoteAddress: Float64Array
  readonly remoteKey: Int32Array
  /** Inline payloads: `inlineStride` bytes (a multiple of 8) for each slot, from byte `inlineStart` of `inline` on. */
  readonly inline: Memory
  readonly #inlineStart: number
  readonly #inlineStride: number

  constructor(depth: number, width: number, inline: Memory, inlineStart: number, inlineStride: number) {
    super(depth, width)
    const capacity = this.mask + 1
    this.opcode = new Uint8Array(capacity)
    this.flags = new Uint8Array(capacity)
    this.remoteAddress = new Float64Array(capacity)
    this.remoteKey = new Int32Array(capacity)
    this.inline = inline
    this.#inlineStart = inlineStart
    this.#inlineStride = inlineStride
  }

  inlineAt(slot: number): number {
    return this.#inlineStart + slot * this.#inlineStride
  }

  writeSend(slot: number, batch: WorkRequestBatch, index: number, byteLength: number): void {
    this.write(slot, batch, index, byteLength)
    this.opcode[slot] = batch.opcode[index]!
    this.flags[slot] = batch.flags[index]!
    this.remoteAddress[slot] = batch.remoteAddress[index]!
    this.remoteKey[slot] = batch.remoteKey[index]!
  }
}
