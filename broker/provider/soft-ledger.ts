/**
 * The ring in which a queue pair remembers requests that were posted and are not retired: one for sends, one for receives.
 *
 *   retired ──────────► handled ──────────► posted            positions run freely (int32), masked when used
 *   │ completed or silent │ outstanding       │ next free
 *
 * A slot is free again when a completion at or after it has been *polled*, as on hardware: who never asks for a completion
 * fills the queue. Each field is a column, so that a request is a handful of stores into typed arrays.
 */
import { ringCapacity } from '../../shm/reference-ring.js'
import type { WorkRequestBatch } from './provider.js'

export class Ledger {
  /** Requests that may be outstanding; the ring itself is the next power of two. */
  readonly depth: number
  readonly mask: number
  /** Scatter/gather entries reserved for each request. */
  readonly width: number
  posted = 0
  retired = 0
  readonly idLow: Uint32Array
  readonly idHigh: Uint32Array
  readonly byteLength: Int32Array
  readonly entryCount: Uint8Array
  readonly entryAddress: Float64Array
  readonly entryLength: Int32Array
  readonly entryKey: Uint32Array

  constructor(depth: number, width: number) {
    const capacity = ringCapacity(depth)
    this.depth = depth
    this.mask = capacity - 1
    this.width = width
    this.idLow = new Uint32Array(capacity)
    this.idHigh = new Uint32Array(capacity)
    this.byteLength = new Int32Array(capacity)
    this.entryCount = new Uint8Array(capacity)
    this.entryAddress = new Float64Array(capacity * width)
    this.entryLength = new Int32Array(capacity * width)
    this.entryKey = new Uint32Array(capacity * width)
  }

  get isFull(): boolean {
    return ((this.posted - this.retired) | 0) >= this.depth
  }

  /** A completion of `position` was polled: everything up to it is free. */
  retire(position: number): void {
    const next = (position + 1) | 0
    if (((next - this.retired) | 0) > 0) this.retired = next
  }

  /** Copies id and entries of a batch's request into the slot; its byte length was summed before. */
  write(slot: number, batch: WorkRequestBatch, index: number, byteLength: number): void {
    this.idLow[slot] = batch.idLow[index]!
    this.idHigh[slot] = batch.idHigh[index]!
    this.byteLength[slot] = byteLength
    const count = batch.sgeCount[index]!
    this.entryCount[slot] = count
    const first = batch.sgeFirst[index]!
    const base = slot * this.width
    for (let entry = 0; entry < count; entry++) {
      this.entryAddress[base + entry] = batch.sgeAddress[first + entry]!
      this.entryLength[base + entry] = batch.sgeLength[first + entry]!
      this.entryKey[base + entry] = batch.sgeKey[first + entry]!
    }
  }
}

/** Bytes that a batch's request names in all, or -1 when it names more than `limit` or has too many entries. */
export function requestByteLength(batch: WorkRequestBatch, index: number, width: number, limit: number): number {
  const count = batch.sgeCount[index]!
  if (count > width) return -1
  const first = batch.sgeFirst[index]!
  let sum = 0
  for (let entry = first; entry < first + count; entry++) sum += batch.sgeLength[entry]!
  return sum <= limit ? sum : -1
}
