/**
 * ABI version and fingerprint. The fingerprint is computed from every layout two processes share, so that a changed field cannot
 * be forgotten; attach compares both before any other byte is looked at.
 */
import { brokerPage, nodeNameRow } from './broker-page.js'
import { completionEntry, completionQueueHeader } from './completion-queue-segment.js'
import { nodeFileLayouts } from './node-file.js'
import {
  atomicRecord,
  flowRecord,
  queuePairHeader,
  receiveSlot,
  scatterGatherEntry,
  sendSlot,
} from './queue-pair-segment.js'
import { wireLayouts } from './wire.js'

export const abiVersion = 1
/** Versions of the brokers' link this build speaks. */
export const linkVersion = { minimum: 1, maximum: 1 } as const

export const clientLayouts = [
  brokerPage,
  nodeNameRow,
  queuePairHeader,
  sendSlot,
  receiveSlot,
  scatterGatherEntry,
  atomicRecord,
  flowRecord,
  completionQueueHeader,
  completionEntry,
] as const

const fingerprintOf = (layouts: readonly { signature(): string }[]): number =>
  fnv1a(layouts.map((one) => one.signature()).join('\n'))

/** Of everything a client and its broker share. 32 bits, unsigned. */
export const clientFingerprint = fingerprintOf(clientLayouts)
/** Of everything two brokers exchange on lanes. */
export const wireFingerprint = fingerprintOf(wireLayouts)
/** Of the node file. */
export const nodeFileFingerprint = fingerprintOf(nodeFileLayouts)

/** FNV-1a, 32 bits. */
function fnv1a(source: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < source.length; index++) {
    hash ^= source.charCodeAt(index)
    hash = Math.imul(hash, 0x01000193)
  }
  return hash >>> 0
}
