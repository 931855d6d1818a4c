/** How much a job and a user may have on this node. Met limits are refusals with numbers, never surprises later. */
import { limits as protocolLimits } from '../../protocol/limits.js'

export interface BrokerLimits {
  readonly sessionsPerJob: number
  readonly sessionsPerUser: number
  readonly queuePairsPerJob: number
  readonly queuePairsPerUser: number
  /** Bytes of all segments: regions, queue pairs, completion queues. */
  readonly registeredBytesPerJob: number
  readonly registeredBytesPerUser: number
}

const GIBIBYTE = 2 ** 30

export const defaultLimits: BrokerLimits = {
  sessionsPerJob: protocolLimits.members,
  sessionsPerUser: protocolLimits.members,
  queuePairsPerJob: protocolLimits.queuePairs,
  queuePairsPerUser: protocolLimits.queuePairs,
  registeredBytesPerJob: 64 * GIBIBYTE,
  registeredBytesPerUser: 128 * GIBIBYTE,
}

/** Bounds of one session and of those that have not said who they are. */
export const sessionBounds = {
  outstandingRequests: 64,
  rememberedReplies: 256,
  garbageMessages: 16,
  unattachedConnections: 64,
  attachTimeoutMs: 10_000,
  listeners: 64,
} as const
