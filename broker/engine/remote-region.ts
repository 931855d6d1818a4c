/**
 * What this broker knows of a peer's regions: the cache behind `remote: { key, offset }`. One table for each (job, peer).
 *
 *   resolving ──resolved──► ready ──revoke──► revoked (no new use; acknowledged when the last posted request ended) ──► forgotten
 *
 * There is no negative entry: an unknown key fails the requests that waited for the answer and is asked again next time.
 */
import type { Lane } from './lane.js'

export class RemoteRegion {
  readonly key: number
  state: 'resolving' | 'ready' | 'revoked' = 'resolving'
  /** Device key and where the region starts on the device. */
  deviceKey = 0
  address = 0
  byteLength = 0
  rights = 0
  /** Posted requests that use the device key now. */
  uses = 0
  /** Lane of the question that has no answer yet, or of the revocation that is not acknowledged yet. */
  carrier: Lane | null = null
  /** The owner waits for our acknowledgement. */
  acknowledgementDue = false

  constructor(key: number) {
    this.key = key
  }
}
