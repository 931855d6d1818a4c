/**
 * What completion queues, queue pairs and memory regions have in common: a number with a generation, a segment, a job, and holders.
 * An object lives until its last holder closes it, leaves or dies. A session that opened it twice holds it twice.
 */
import type { Mapping } from '../../shm/mapping.js'
import type { Job } from './job.js'
import type { Session } from './session.js'

export interface ObjectIdentity {
  readonly number: number
  readonly generation: number
}

export abstract class SharedObject implements ObjectIdentity {
  readonly number: number
  readonly generation: number
  readonly job: Job
  readonly mapping: Mapping
  /** Who made it; shown, and nothing depends on it. */
  readonly creator: Session
  /** Set while and after it is removed: nobody may begin anything with it. */
  removal: Promise<void> | null = null
  readonly #holders = new Map<Session, number>()

  constructor(identity: ObjectIdentity & { readonly creator: Session; readonly mapping: Mapping }) {
    this.number = identity.number
    this.generation = identity.generation
    this.creator = identity.creator
    this.job = identity.creator.job
    this.mapping = identity.mapping
  }

  get holders(): Session[] {
    return [...this.#holders.keys()]
  }

  isHeldBy(session: Session): boolean {
    return this.#holders.has(session)
  }

  isLastHold(session: Session): boolean {
    return this.#holders.size === 1 && this.#holders.get(session) === 1
  }

  hold(session: Session): void {
    this.#holders.set(session, (this.#holders.get(session) ?? 0) + 1)
  }

  /** One hold less; `all` ends every hold of the session. True if nobody holds it any more. */
  drop(session: Session, all: boolean): boolean {
    const holds = this.#holders.get(session) ?? 0
    if (all || holds <= 1) this.#holders.delete(session)
    else this.#holders.set(session, holds - 1)
    return this.#holders.size === 0
  }
}
