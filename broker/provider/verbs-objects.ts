/** Objects of an opened verbs device: what the library calls a pointer, with what this provider must remember beside it. */
import {
  CompletionBatch,
  type ProviderCompletionQueue,
  type ProviderQueuePair,
  type QueuePairAddress,
  type QueuePairLimits,
  type QueuePairState,
  type RegisteredMemory,
} from './provider.js'
import type { Gid } from './verbs-gid.js'
import { VerbsLedger } from './verbs-ledger.js'

/** Completions taken by the look before sleeping wait here for the next poll. */
const STAGED_MAX = 16

export class VerbsCompletionQueue implements ProviderCompletionQueue {
  readonly handle: number
  readonly pointer: number
  readonly capacity: number
  readonly staged = new CompletionBatch(STAGED_MAX)
  /** Work queues that complete here. */
  users = 0
  /** Asked for an event that has not come yet. */
  isArmed = false

  constructor(handle: number, pointer: number, capacity: number) {
    this.handle = handle
    this.pointer = pointer
    this.capacity = capacity
  }
}

export interface VerbsMemory extends RegisteredMemory {
  readonly pointer: number
  readonly domain: number
}

export interface QueuePairParts {
  readonly serial: number
  readonly pointer: number
  readonly domain: number
  readonly gid: Gid | null
  readonly address: QueuePairAddress
  readonly limits: QueuePairLimits
  readonly sendQueue: VerbsCompletionQueue
  readonly receiveQueue: VerbsCompletionQueue
}

export class VerbsQueuePair implements ProviderQueuePair {
  readonly parts: QueuePairParts
  readonly number: number
  readonly limits: QueuePairLimits
  readonly pointer: number
  readonly sends: VerbsLedger
  readonly receives: VerbsLedger
  /** As far as it is known here: the device may have gone to error by itself. */
  state: QueuePairState = 'init'

  constructor(parts: QueuePairParts) {
    this.parts = parts
    this.number = parts.address.number
    this.limits = parts.limits
    this.pointer = parts.pointer
    this.sends = new VerbsLedger(parts.limits.sendDepth)
    this.receives = new VerbsLedger(parts.limits.receiveDepth)
  }
}

/** Upper half of the request ids that the device is given: whose request, of which queue. */
const RECEIVE_BIT = 0x80000000
export const SERIAL_MAX = 0x3fffffff
export const sendOwner = (serial: number): number => serial
export const receiveOwner = (serial: number): number => (serial | RECEIVE_BIT) >>> 0
export const isReceiveOwner = (owner: number): boolean => owner >= RECEIVE_BIT
export const serialOf = (owner: number): number => owner & SERIAL_MAX
