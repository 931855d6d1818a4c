/**
 * One process of an exploration, as data: where it stands in its list of operations, and the log of what its accesses returned since
 * the operation began. Running the operation again with the log brings its code to exactly this point, so nothing else need be kept.
 * States are values: a step makes a new one.
 */

import type { Memory } from '../../shm/memory.js'
import type { LivenessOracle } from '../../shm/robust-lock.js'
import type { Words } from '../../shm/words.js'
import type { Log } from './explorer-log.js'
import { mix } from './explorer-seen.js'

/** What code can do to the world. Each is one indivisible step, except those that the search runs together (see `Granularity`). */
export const access = {
  load: 0,
  store: 1,
  compareExchange: 2,
  exchange: 3,
  add: 4,
  or: 5,
  and: 6,
  /** Sleeps while the word has a value. */
  wait: 7,
  wake: 8,
  /** Asks the kernel whether a member lives. */
  alive: 9,
  ring: 10,
  /** Sleeps until a bell was rung. */
  hear: 11,
  drain: 12,
  readPlain: 13,
  writePlain: 14,
  readWide: 15,
  writeWide: 16,
  /** The scenario's own knowledge: runs with the access before it. */
  note: 17,
  /** Sleeps until somebody else has changed a word that the operation looks at. */
  change: 18,
} as const
export type Access = (typeof access)[keyof typeof access]
export const accessNames = Object.keys(access)

/** What the search learns of an access that is about to happen. */
export interface Pending {
  readonly kind: number
  readonly index: number
  readonly first: number
  readonly second: number
}

/** What an operation sees of the explorer. Everything it learns through here is logged, so it must learn nothing elsewhere. */
export interface Self {
  readonly member: number
  /** Words of the segment that starts at word `base`. */
  words(base: number): Words
  /** The same memory for plain accesses. */
  memory(base: number): Memory
  readonly liveness: LivenessOracle
  /**
   * Runs once, with the access before it, and may read and write the world; returns what it returned then. What it looks at besides the
   * world follows from the log: another run's note, made with the same log, may be called in its place.
   */
  note(act: () => number): number
  /** Where the log stands; pass to `forget` when the code is back in the state it had there. */
  mark(): number
  forget(mark: number): void
  /** Sleeps until a word that the operation looks at has changed since the operation began or since the last call. */
  untilChanged(): void
}

/** Returned by an operation: begin it again, but only when a word that it looks at has changed. */
export const REST = -1

export interface Operation {
  readonly name: string
  /** It begins only in states where this holds. Reads the world, changes nothing. */
  readonly when?: () => boolean
  /** Words whose changes end a rest. Operations that never rest leave it out. */
  readonly looksAt?: (index: number) => boolean
  /** An access at which the code's own state is the same whenever it comes there: the log is cut back to the first time. */
  readonly loopsAt?: (kind: number, index: number) => boolean
  /** An access whose watcher looks at what the code keeps privately: the code runs there, even if it is known what it will do. */
  readonly liveAt?: (pending: Pending) => boolean
  /** Straight code. Returns the number of the next operation, nothing for the one behind it, or REST. */
  run(self: Self): number | undefined
}

export interface ActorSpec {
  readonly name: string
  /** Crash budgets and private words belong to roles. */
  readonly role: string
  /** Its liveness token; -1: none. */
  readonly member: number
  readonly operations: readonly Operation[]
  /** Operation with which the first process of this role begins; 0 unless said. */
  readonly startsAt?: number
  /** Operation from which on the process exists and can die; 0 unless said. */
  readonly livesFrom?: number
  /** After a crash another process of the same role begins here. Absent: it stays dead. */
  readonly restartsAt?: number
  /** Changes the scenario's knowledge at its death. */
  readonly died?: () => void
}

export const status = { running: 0, finished: 1, dead: 2, stopped: 3 } as const
export const sleep = { awake: 0, asleep: 1, woken: 2 } as const

/** Immutable, and written out field by field, because one is made for each step. */
export class ActorState {
  readonly operation: number
  readonly status: number
  readonly sleep: number
  /** Has nothing to do until something that it looks at changes. */
  readonly resting: boolean
  /** Something that it looks at has changed since it looked. */
  readonly stale: boolean
  readonly log: Log
  /** Null before the first access of an operation: what it will be is not known yet. */
  readonly pending: Pending | null
  readonly low: number
  readonly high: number

  constructor(
    operation: number,
    atStatus: number,
    asleep: number,
    resting: boolean,
    stale: boolean,
    log: Log,
    pending: Pending | null,
  ) {
    this.operation = operation
    this.status = atStatus
    this.sleep = asleep
    this.resting = resting
    this.stale = stale
    this.log = log
    this.pending = pending
    const flags = operation * 128 + atStatus * 32 + asleep * 8 + (resting ? 4 : 0) + (stale ? 2 : 0)
    const place = mix(flags, log.length)
    this.low = mix(log.low, place)
    this.high = mix(log.high, ~place)
  }

  /** The same process at the same place, with other flags. */
  flagged(atStatus: number, asleep: number, resting: boolean, stale: boolean): ActorState {
    return new ActorState(this.operation, atStatus, asleep, resting, stale, this.log, this.pending)
  }
}
