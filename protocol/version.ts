/**
 * ABI version and fingerprints. A fingerprint is computed from every layout two processes share, and from the facts beside them that
 * both must know alike: where areas lie, what numbers mean. So a change cannot be forgotten; attach and hello compare before any other
 * byte is looked at. What the mechanism packs into words (locks, slot states, activity) is not in it: raise `abiVersion` for those.
 */
import { referenceRingLayout } from '../shm/reference-ring.js'
import {
  brokerPage,
  brokerPageGeometry,
  brokerPageMagic,
  brokerState,
  brokerStateNames,
  nodeNameRow,
} from './broker-page.js'
import {
  completionEntry,
  completionQueueGeometry,
  completionQueueHeader,
  completionQueueMagic,
  packReference,
  side,
} from './completion-queue-segment.js'
import { packKey } from './keys.js'
import {
  counterNames,
  laneStateNames,
  memberState,
  memberStateNames,
  nodeFileGeometry,
  nodeFileLayouts,
  nodeFileMagic,
  peerStateNames,
} from './node-file.js'
import { opcode, packOperation, packOutcome, workRequestFlag } from './opcodes.js'
import {
  activityBit,
  atomicRecord,
  flowRecord,
  queuePairGeometry,
  queuePairHeader,
  queuePairMagic,
  queuePairState,
  queuePairStateNames,
  queuePairType,
  receiveSlot,
  scatterGatherEntry,
  sendSlot,
} from './queue-pair-segment.js'
import { status } from './statuses.js'
import {
  connectByService,
  frameFlag,
  messageFlag,
  messageType,
  packKind,
  regionRight,
  rejectReason,
  wireLayouts,
} from './wire.js'

export const abiVersion = 1
/** Versions of the brokers' link this build speaks. */
export const linkVersion = { minimum: 1, maximum: 1 } as const

export const clientLayouts = [
  brokerPage,
  nodeNameRow,
  queuePairHeader,
  referenceRingLayout,
  sendSlot,
  receiveSlot,
  scatterGatherEntry,
  atomicRecord,
  flowRecord,
  completionQueueHeader,
  completionEntry,
] as const

/** Odd numbers, so that each of them and each rounding shows. */
const exampleQueuePair = { sendSlots: 5, receiveSlots: 9, inlineByteLength: 100 }

export const clientFacts = {
  magic: [brokerPageMagic, queuePairMagic, completionQueueMagic],
  brokerPage: brokerPageGeometry,
  brokerState,
  connected: queuePairGeometry({ type: queuePairType.connected, ...exampleQueuePair }),
  datagram: queuePairGeometry({ type: queuePairType.datagram, ...exampleQueuePair }),
  completionQueue: completionQueueGeometry(5),
  queuePairType,
  queuePairState,
  side,
  opcode,
  workRequestFlag,
  status,
  packed: [
    packReference(1, side.receive, 2),
    packOperation(1, 2, 3),
    packOutcome(1, 2, 3),
    packKey(1, 2),
    activityBit(1, side.receive),
  ],
} as const

export const wireFacts = {
  frameFlag,
  messageType,
  messageFlag,
  packed: [packKind(1, 2, 3), packKey(1, 2)],
  connectByService,
  rejectReason,
  regionRight,
  opcode,
  status,
} as const

export const nodeFileFacts = {
  magic: nodeFileMagic,
  geometry: nodeFileGeometry,
  counterNames,
  memberState,
  stateNames: [brokerStateNames, memberStateNames, queuePairStateNames, peerStateNames, laneStateNames],
} as const

/** 32 bits, unsigned. */
export const fingerprintOf = (layouts: readonly { signature(): string }[], facts: object): number =>
  fnv1a([...layouts.map((one) => one.signature()), JSON.stringify(facts)].join('\n'))

/** Of everything a client and its broker share. */
export const clientFingerprint = fingerprintOf(clientLayouts, clientFacts)
/** Of everything two brokers exchange on lanes. */
export const wireFingerprint = fingerprintOf(wireLayouts, wireFacts)
/** Of the node file. */
export const nodeFileFingerprint = fingerprintOf(nodeFileLayouts, nodeFileFacts)

/** FNV-1a, 32 bits. */
function fnv1a(source: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < source.length; index++) {
    hash ^= source.charCodeAt(index)
    hash = Math.imul(hash, 0x01000193)
  }
  return hash >>> 0
}
