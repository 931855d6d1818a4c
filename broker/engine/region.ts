/**
 * Memory regions of this node, as the engine checks them: every local entry of a work request and every remote access of a peer or of
 * the same node goes through this table before anything is posted.
 *
 * A region that is being closed refuses new uses; what already names it counts in `uses`, and the peers that resolved its key are asked
 * to stop (revoke handshake, remote-region.ts). Only when both are gone is it deregistered and the control plane may unmap it.
 */
import { keyGeneration, keySlot } from '../../protocol/keys.js'
import type { Memory } from '../../shm/memory.js'
import type { RegisteredMemory } from '../provider/provider.js'
import type { Lane } from './lane.js'
import type { LaneGroup } from './lane-group.js'

export class Region {
  readonly number: number
  readonly generation: number
  readonly job: number
  readonly memory: Memory
  readonly address: number
  readonly byteLength: number
  readonly rights: number
  registered: RegisteredMemory | null = null
  open = true
  /** Work requests, receives and granted writes that name it now. */
  uses = 0
  /** Peers that hold its device key, each with the lane that told it last; each must acknowledge the revocation. */
  readonly resolvers = new Map<LaneGroup, Lane>()
  /** Settles when it is gone; null while it is open. */
  removal: Promise<void> | null = null
  /** Called when the last use ended after the region was closed. */
  onIdle: (() => void) | null = null
  /** Drops the views of its pages, after it was deregistered. */
  onDrop: (() => void) | null = null

  constructor(of: {
    number: number
    generation: number
    job: number
    memory: Memory
    byteLength: number
    rights: number
  }) {
    this.number = of.number
    this.generation = of.generation
    this.job = of.job
    this.memory = of.memory
    this.address = of.memory.address
    this.byteLength = of.byteLength
    this.rights = of.rights
  }

  release(): void {
    this.uses--
    this.settle()
  }

  forget(group: LaneGroup): void {
    if (this.resolvers.delete(group)) this.settle()
  }

  settle(): void {
    if (this.open || this.uses !== 0 || this.resolvers.size !== 0 || !this.onIdle) return
    const done = this.onIdle
    this.onIdle = null
    done()
  }
}

export class RegionTable {
  readonly #rows: (Region | undefined)[] = []
  /** Keys of open regions: requests in a row mostly name one, or two in turn; taking a key apart costs more than comparing it. */
  #lastKey = -1
  #last: Region | null = null
  #otherKey = -1
  #other: Region | null = null

  set(region: Region): void {
    this.#rows[region.number] = region
  }

  /** It refuses new uses from here on. */
  close(region: Region): void {
    region.open = false
    this.#forgetKeys()
  }

  delete(region: Region): void {
    if (this.#rows[region.number] === region) this.#rows[region.number] = undefined
    this.#forgetKeys()
  }

  #forgetKeys(): void {
    this.#lastKey = -1
    this.#last = null
    this.#otherKey = -1
    this.#other = null
  }

  get(number: number): Region | undefined {
    return this.#rows[number]
  }

  *[Symbol.iterator](): IterableIterator<Region> {
    for (const region of this.#rows) if (region) yield region
  }

  /** The open region a key of this job names; null for unknown, closed, stale and foreign keys alike. */
  find(key: number, job: number): Region | null {
    const region = key === this.#lastKey ? this.#last! : key === this.#otherKey ? this.#other! : this.#lookUp(key)
    return region !== null && region.job === job ? region : null
  }

  #lookUp(key: number): Region | null {
    const region = this.#rows[keySlot(key)]
    if (region === undefined || !region.open || region.generation !== keyGeneration(key)) return null
    this.#otherKey = this.#lastKey
    this.#other = this.#last
    this.#lastKey = key
    this.#last = region
    return region
  }
}

/** Whether `byteLength` bytes at `offset` lie inside; written so that NaN and fractions fail. */
export function within(region: { byteLength: number }, offset: number, byteLength: number): boolean {
  return Number.isSafeInteger(offset) && offset >= 0 && byteLength >= 0 && offset + byteLength <= region.byteLength
}
