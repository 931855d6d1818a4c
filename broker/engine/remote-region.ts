/**
 * What this broker knows of a peer's regions: the cache behind `remote: { key, offset }`. One table for each (job, peer).
 *
 *   resolving ──resolved──► ready ──revoke──► revoked (no new use; acknowledged when the last posted request ended) ──► forgotten
 *
 * There is no negative entry: an unknown key fails the requests that waited for the answer and is asked again next time.
 */
export class RemoteRegion {
  readonly key: number
  state: 'resolving' | 'ready' | 'revoked' | 'unknown' = 'resolving'
  /** Device key and where the region starts on the device. */
  deviceKey = 0
  address = 0
  byteLength = 0
  rights = 0
  /** Posted requests that use the device key now. */
  uses = 0
  /** The question was put into a frame of the present lane. */
  asked = false
  /** The owner waits for our acknowledgement. */
  acknowledgementDue = false

  constructor(key: number) {
    this.key = key
  }
}
