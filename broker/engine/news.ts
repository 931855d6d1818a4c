/** What a flow tells its peer of the reverse direction, in every header and in acknowledgements: absolute numbers, so old ones do no harm. */
import type { Flow } from './flow.js'

/**
 * Sequence up to which this flow tells its peer "delivered". A message that arrived but failed is told by a message of its own first, so
 * the number stays below the first untold failure, however far completions have come.
 */
export function tellDelivered(flow: Flow): number {
  const failed = flow.failedSequences.length > 0
  const before = failed ? (flow.failedSequences[0]! - 1) | 0 : flow.lastDelivered
  const told = ((before - flow.lastDelivered) | 0) < 0 ? before : flow.lastDelivered
  flow.acknowledgementDue = told !== flow.lastDelivered
  return told
}

/** How many messages the peer may have sent on this flow in all; only connected flows have such credit. */
export function tellLimit(flow: Flow): number {
  const limit = flow.limit
  flow.advertisedLimit = limit
  return limit
}
