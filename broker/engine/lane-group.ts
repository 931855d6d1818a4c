/**
 * All lanes of one job to one peer. Remote keys are resolved once for the group; revocations and other messages that belong to no flow
 * go over whichever lane of it is up.
 */
import type { Flow } from './flow.js'
import type { Lane } from './lane.js'
import { RemoteRegion } from './remote-region.js'

export class LaneGroup {
  readonly job: number
  readonly peer: number
  readonly lanes = new Set<Lane>()
  readonly remoteRegions = new Map<number, RemoteRegion>()
  /** Requests in a row mostly name one region. */
  #last: RemoteRegion | null = null
  /** Flows that wait for an answer about a key. */
  readonly keyWaiters = new Set<Flow>()

  constructor(job: number, peer: number) {
    this.job = job
    this.peer = peer
  }

  /** Any lane that carries messages now. */
  get up(): Lane | null {
    for (const lane of this.lanes) if (lane.state === 'up') return lane
    return null
  }

  remoteRegion(key: number): RemoteRegion {
    if (this.#last?.key === key) return this.#last
    let region = this.remoteRegions.get(key)
    if (!region) {
      region = new RemoteRegion(key)
      this.remoteRegions.set(key, region)
    }
    this.#last = region
    return region
  }

  forgetRegions(): void {
    this.remoteRegions.clear()
    this.#last = null
  }

  forgetRegion(key: number): void {
    this.remoteRegions.delete(key)
    this.#last = null
  }
}
