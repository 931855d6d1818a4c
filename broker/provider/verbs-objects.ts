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
  /** Another one in a device that came back. */
  pointer: number
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

  /** Nothing of the device that went can come any more. */
  forgetDevice(): void {
    this.staged.count = 0
    this.isArmed = false
  }
}

/** Keys and pointer are those of the device that is there now: registering it again gives others. */
export class VerbsMemory implements RegisteredMemory {
  readonly domain: number
  readonly address: number
  readonly byteLength: number
  readonly access: number
  pointer = 0
  localKey = 0
  remoteKey = 0

  constructor(domain: number, address: number, byteLength: number, access: number) {
    this.domain = domain
    this.address = address
    this.byteLength = byteLength
    this.access = access
  }
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
  /** Its device went away under it: the library knows it no more. */
  isLost = false

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
