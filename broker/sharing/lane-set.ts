/** The lanes of one job to one peer in one traffic class, and who uses them. */
import type { SharedVerbsError } from '../../protocol/errors.js'
import type { Timer } from '../control/clock.js'
import type { Peer } from '../peers/peer.js'
import type { Job } from '../sessions/job.js'
import type { Lane } from './lane.js'
import type { PathUse } from './path-use.js'

const FIRST_BACKOFF_MS = 100
const LONGEST_BACKOFF_MS = 5000

export class LaneSet {
  readonly job: Job
  readonly peer: Peer
  readonly trafficClass: number
  readonly lanes = new Map<number, Lane>()
  /** Removals under way, by lane: a key is free again when its provider queue pair is gone. */
  readonly leaving = new Map<number, Promise<void>>()
  readonly uses = new Set<LaneUse>()
  /** Connects that wait for a lane. */
  waiters = 0
  /** Datagrams of the job go this way. */
  datagram = false
  /** This side is opening lanes. */
  opening: Promise<void> | null = null
  /** The peer was asked to open lanes. */
  asked = false
  /** The peer asked this side to open lanes. */
  peerWants = false
  /** Lanes of the peer that are being answered. */
  answering = 0
  /** The job has ended: nothing begins any more. */
  closed = false
  reaping = false
  /** The job was told that the path is lost. */
  lost = false
  /** Connections wait on it: a lane was lost, or an earlier broker left them. */
  suspended = false
  /** Runs while they wait and no lane is up. */
  grace: Timer | null = null
  idle: Timer | null = null
  retry: Timer | null = null
  notBeforeMs = 0
  failure: { readonly error: SharedVerbsError; readonly serial: number } | null = null
  #backoffMs = FIRST_BACKOFF_MS

  constructor(job: Job, peer: Peer, trafficClass: number) {
    this.job = job
    this.peer = peer
    this.trafficClass = trafficClass
  }

  get needed(): boolean {
    return this.uses.size > 0 || this.waiters > 0
  }

  get empty(): boolean {
    const quiet = this.opening === null && this.answering === 0 && !this.peerWants
    return quiet && !this.needed && this.lanes.size === 0 && this.leaving.size === 0
  }

  get up(): Lane[] {
    return [...this.lanes.values()].filter((lane) => lane.state === 'up')
  }

  /** All lanes that both sides want are there. */
  isComplete(wanted: number): boolean {
    return this.up.length >= wanted
  }

  /** The lane with the fewest users; none while better ones are on the way, unless it is the last chance. */
  choose(wanted: number, lastChance: boolean): Lane | undefined {
    const { up } = this
    const growing = this.opening !== null || this.asked
    if (up.length < wanted && growing && !lastChance) return undefined
    const load = (lane: Lane): number => [...this.uses].filter((use) => use.index === lane.index).length
    return up.reduce<Lane | undefined>(
      (best, lane) => (best === undefined || load(lane) < load(best) ? lane : best),
      undefined,
    )
  }

  /** Remembers why, with a number that only grows, and when it may be tried again. */
  failed(error: SharedVerbsError, nowMs: number, random: () => number): void {
    this.asked = false
    this.failure = { error, serial: (this.failure?.serial ?? 0) + 1 }
    this.notBeforeMs = nowMs + this.#backoffMs * (0.5 + random() / 2)
    this.#backoffMs = Math.min(LONGEST_BACKOFF_MS, this.#backoffMs * 2)
  }

  succeeded(): void {
    this.#backoffMs = FIRST_BACKOFF_MS
    this.tryNow()
  }

  /** What kept it from being tried is over. */
  tryNow(): void {
    this.notBeforeMs = 0
    this.retry?.cancel()
    this.retry = null
  }

  cancelTimers(): void {
    this.idle?.cancel()
    this.idle = null
    this.retry?.cancel()
    this.retry = null
  }
}

export class LaneUse implements PathUse {
  readonly set: LaneSet
  /** Lane of the set; null when only the engine knows which. */
  readonly index: number | null
  readonly #onRelease: (set: LaneSet) => void

  constructor(set: LaneSet, index: number | null, onRelease: (set: LaneSet) => void) {
    this.set = set
    this.index = index
    this.#onRelease = onRelease
    set.uses.add(this)
  }

  get peer(): number {
    return this.set.peer.row
  }

  get node(): string {
    return this.set.peer.node
  }

  get lane(): number | null {
    return this.index === null ? null : (this.set.lanes.get(this.index)?.row ?? null)
  }

  release(): void {
    if (this.set.uses.delete(this)) this.#onRelease(this.set)
  }
}
