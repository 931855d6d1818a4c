/** Work requests as applications write them. Objects may be posted again; nothing of them is kept after a post. */
import type { QueuePairAddress } from '../protocol/address.js'
import type { SendOpcodeName } from '../protocol/opcodes.js'
import type { MemoryRegion } from './memory-region.js'

/**
 * A piece of local memory. `offset` and `length` are bytes inside the region, whole numbers below 2^32. Instead of the
 * handle, the region's `localKey` may be given. Bounds and keys are judged by the broker: what does not fit comes back
 * as an error completion.
 */
export type ScatterGatherEntry =
  | { readonly region: MemoryRegion; readonly offset: number; readonly length: number }
  | { readonly key: number; readonly offset: number; readonly length: number }

/** Memory of a peer: a region's `remoteKey` and a byte offset inside the region. */
export interface RemoteMemory {
  readonly key: number
  readonly offset: number
}

interface SendCommon {
  /** Comes back in the completion. A safe integer, yours to choose. */
  readonly id: number
  /** Waits for all earlier requests of this queue pair, deliveries included. Default false. */
  readonly fence?: boolean
  /** False: a success makes no completion (an error always does). Default true. */
  readonly signaled?: boolean
  /**
   * Datagram queue pairs only, and there required: whom to reach. Its node must have been resolved
   * (`session.resolve`).
   */
  readonly destination?: QueuePairAddress
}

interface Payload {
  /** At most four; gathered in order. Default: none. */
  readonly local?: readonly ScatterGatherEntry[]
  /**
   * Bytes copied when posted (the memory may be reused at once), at most the queue pair's `maxInline`: an array of its
   * own instead of `local`, or true to copy what `local` names, whose entries must then lie inside regions given by
   * handle.
   */
  readonly inline?: Uint8Array | boolean
}

interface Delivered {
  /** Wakes a receiver that waits with `solicitedOnly`. Default false. */
  readonly solicited?: boolean
}

interface Replayable {
  /** The write may be executed again after a failure of the path, instead of ending as `unknown`. Default false. */
  readonly replayable?: boolean
}

/** Into the memory of the peer's next posted receive. */
export type SendRequest = SendCommon & Payload & Delivered & { readonly opcode: 'send' }

export type SendWithImmediateRequest = SendCommon &
  Payload &
  Delivered & {
    readonly opcode: 'send-with-immediate'
    /** Unsigned 32 bits, delivered in the receiver's completion. */
    readonly immediate: number
  }

/** Into the peer's memory, without a receive. */
export type WriteRequest = SendCommon &
  Payload &
  Replayable & { readonly opcode: 'write'; readonly remote: RemoteMemory }

/** A write, then a completion of the peer's next posted receive. */
export type WriteWithImmediateRequest = SendCommon &
  Payload &
  Delivered &
  Replayable & {
    readonly opcode: 'write-with-immediate'
    readonly remote: RemoteMemory
    readonly immediate: number
  }

/** From the peer's memory into `local`. */
export type ReadRequest = SendCommon & {
  readonly opcode: 'read'
  readonly local?: readonly ScatterGatherEntry[]
  readonly remote: RemoteMemory
}

/**
 * Stores `swap` at the peer if it holds `compare` there. Eight bytes, aligned, little-endian, 64 bits signed or
 * unsigned; the original value arrives in `local`, one entry of eight bytes.
 */
export type CompareAndSwapRequest = SendCommon & {
  readonly opcode: 'compare-and-swap'
  readonly local: readonly ScatterGatherEntry[]
  readonly remote: RemoteMemory
  readonly compare: bigint
  readonly swap: bigint
}

/** Adds `add` at the peer, modulo 2^64; the original value arrives in `local`. */
export type FetchAndAddRequest = SendCommon & {
  readonly opcode: 'fetch-and-add'
  readonly local: readonly ScatterGatherEntry[]
  readonly remote: RemoteMemory
  readonly add: bigint
}

/** What `qp.postSend` takes. */
export type SendWorkRequest =
  | SendRequest
  | SendWithImmediateRequest
  | WriteRequest
  | WriteWithImmediateRequest
  | ReadRequest
  | CompareAndSwapRequest
  | FetchAndAddRequest

/** What `qp.postReceive` takes: memory for one message. */
export interface ReceiveWorkRequest {
  /** Comes back in the completion. A safe integer. */
  readonly id: number
  /** At most four; filled in order. The message must fit. */
  readonly local?: readonly ScatterGatherEntry[]
}

/** All fields of all kinds, as the encoder reads them. */
export interface SendFields {
  readonly id: number
  readonly opcode: SendOpcodeName
  readonly local?: readonly ScatterGatherEntry[]
  readonly inline?: Uint8Array | boolean
  readonly remote?: RemoteMemory
  readonly immediate?: number
  readonly compare?: bigint
  readonly swap?: bigint
  readonly add?: bigint
  readonly fence?: boolean
  readonly solicited?: boolean
  readonly signaled?: boolean
  readonly replayable?: boolean
  readonly destination?: QueuePairAddress
}

/** An entry, however its region is named. */
export interface EntryFields {
  readonly region?: MemoryRegion
  readonly key?: number
  readonly offset: number
  readonly length: number
}
