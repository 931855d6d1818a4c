/** Flows whose lane is lost, by the path on which they wait. Bounded by the flows there are; `abandon-path` ends the wait. */
import type { Flow } from './flow.js'
import { type LanePath, pathName } from './lane-path.js'

interface Waiting {
  readonly path: LanePath
  readonly flows: Set<Flow>
}

/** What arrived over the last lane of a path: all that was posted before that frame was executed. */
export interface Predecessor {
  /** Name of the lane at both ends. */
  readonly shared: number
  readonly lastReceived: number
}

export class Suspensions {
  readonly #waiting = new Map<string, Waiting>()
  readonly #predecessors = new Map<string, Predecessor>()

  add(flow: Flow, path: LanePath): void {
    const name = pathName(path)
    let waiting = this.#waiting.get(name)
    if (!waiting) {
      waiting = { path, flows: new Set() }
      this.#waiting.set(name, waiting)
    }
    waiting.flows.add(flow)
  }

  delete(flow: Flow): void {
    for (const [name, { flows }] of this.#waiting) {
      if (!flows.delete(flow)) continue
      if (flows.size === 0) this.#waiting.delete(name)
      return
    }
  }

  /** Those that wait for a lane of this path. */
  on(path: LanePath): Flow[] {
    return [...(this.#waiting.get(pathName(path))?.flows ?? [])]
  }

  /** Those that wait for any way of a job to a peer; `trafficClass` null: for all. */
  towards(job: number, peer: number, trafficClass: number | null): Flow[] {
    return [...this.#waiting.values()]
      .filter(({ path }) => path.job === job && path.peer === peer)
      .filter(({ path }) => trafficClass === null || path.trafficClass === trafficClass)
      .flatMap(({ flows }) => [...flows])
  }

  get size(): number {
    let size = 0
    for (const { flows } of this.#waiting.values()) size += flows.size
    return size
  }

  remember(path: LanePath, predecessor: Predecessor): void {
    this.#predecessors.set(pathName(path), predecessor)
  }

  predecessorOf(path: LanePath): Predecessor | null {
    return this.#predecessors.get(pathName(path)) ?? null
  }

  /** The path will not be used again, or its other end has forgotten it. */
  forget(job: number, peer: number | null): void {
    for (const name of this.#predecessors.keys()) {
      const [ofJob, ofPeer] = name.split(' ').map(Number)
      if (ofJob === job && (peer === null || ofPeer === peer)) this.#predecessors.delete(name)
    }
  }
}
