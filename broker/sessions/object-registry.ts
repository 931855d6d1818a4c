/** Finds objects for sessions, with the checks that keep jobs apart, and ends them when nobody holds them. */
import { SharedVerbsError } from '../../protocol/errors.js'
import { closeDescriptor } from '../../shm/libc.js'
import { checkSegment } from './presented.js'
import type { Session } from './session.js'
import type { ObjectIdentity, SharedObject } from './shared-object.js'

/** What the rows of all kinds of objects have in common. */
export interface LeftRow {
  readonly state: number
  readonly job: number
  readonly member: number
  readonly generation: number
  readonly segmentInode: number
  readonly segmentByteLength: number
}

export abstract class ObjectRegistry<Kept extends SharedObject> {
  /** As people say it: 'queue pair'. */
  protected abstract readonly noun: string
  readonly #objects = new Map<number, Kept>()
  /** Shown again, and not known to the engine yet. */
  readonly #reviving = new Map<number, Promise<Kept>>()

  get all(): Kept[] {
    return [...this.#objects.values()]
  }

  byNumber(identity: ObjectIdentity): Kept | undefined {
    const found = this.#objects.get(identity.number)
    return found?.generation === identity.generation ? found : undefined
  }

  /** An object that the session may open: of its job, and still the one that was meant. */
  reachable(session: Session, wanted: ObjectIdentity, anyGeneration = false): Kept {
    const found = this.#objects.get(wanted.number)
    const what = `${this.noun} ${wanted.number}`
    if (!found || found.removal) {
      throw new SharedVerbsError('no-such-object', `no ${what} exists; it was closed or never made`, { ...wanted })
    }
    if (found.job !== session.job) {
      throw new SharedVerbsError('access-denied', `${what} belongs to another job; objects are shared inside a job`, {
        ...wanted,
      })
    }
    if (found.generation !== wanted.generation && !(anyGeneration && wanted.generation === 0)) {
      throw new SharedVerbsError(
        'stale-handle',
        `generation ${wanted.generation} of ${what} is gone, ${found.generation} lives now; get a new handle`,
        { ...wanted, living: found.generation },
      )
    }
    return found
  }

  /** An object that the session made or opened. */
  held(session: Session, wanted: ObjectIdentity): Kept {
    const found = this.reachable(session, wanted)
    if (found.isHeldBy(session)) return found
    throw new SharedVerbsError(
      'no-such-object',
      `${this.noun} ${wanted.number} is not open in this session; open it first`,
      { ...wanted },
    )
  }

  /** True if an object lives under the number, of whatever generation. */
  has(number: number): boolean {
    return this.#objects.has(number)
  }

  /**
   * What an earlier broker left, shown again by a session that has it mapped; several may show the same. The descriptor is this
   * function's in any case. Throws `no-such-object`, `access-denied`, `stale-handle`, `segment-invalid`, `limit-exceeded`.
   */
  async present(session: Session, wanted: ObjectIdentity, descriptor: number): Promise<Kept> {
    try {
      const row = this.#checkLeft(session, wanted)
      checkSegment(descriptor, { inode: row.segmentInode, byteLength: row.segmentByteLength }, session.job)
    } catch (error) {
      closeDescriptor(descriptor)
      throw error
    }
    const known = this.#objects.get(wanted.number)
    const reviving = this.#reviving.get(wanted.number)
    if (known || reviving) closeDescriptor(descriptor)
    const found = known ?? (await (reviving ?? this.#reviveOnce(session, wanted.number, descriptor)))
    // A session that had opened it twice shows it twice, and closes it twice.
    found.hold(session)
    return found
  }

  #checkLeft(session: Session, wanted: ObjectIdentity): LeftRow {
    const row = this.leftRow(wanted.number)
    const what = `${this.noun} ${wanted.number}`
    if (!row || row.state === 0) throw new SharedVerbsError('no-such-object', `no ${what} was left`, { ...wanted })
    if (row.job !== session.job.number) {
      throw new SharedVerbsError('access-denied', `${what} belongs to another job`, { ...wanted })
    }
    if (row.generation !== wanted.generation) {
      throw new SharedVerbsError('stale-handle', `generation ${wanted.generation} of ${what} is gone`, { ...wanted })
    }
    return row
  }

  #reviveOnce(session: Session, number: number, descriptor: number): Promise<Kept> {
    const creator = session.job.members.get(this.leftRow(number)?.member ?? 0) ?? session
    const revived = this.revive(creator, number, descriptor)
      .then((object) => {
        this.#objects.set(number, object)
        return object
      })
      .finally(() => this.#reviving.delete(number))
    this.#reviving.set(number, revived)
    return revived
  }

  /** The row under a number; undefined for a number that cannot be. */
  protected abstract leftRow(number: number): LeftRow | undefined

  /** Makes the object of a row anew over the segment, charges it and tells the engine. The descriptor is its in any case. */
  protected abstract revive(creator: Session, number: number, descriptor: number): Promise<Kept>

  /** Another hold for the session. */
  open(session: Session, wanted: ObjectIdentity, anyGeneration = false): Kept {
    const found = this.reachable(session, wanted, anyGeneration)
    found.hold(session)
    return found
  }

  /** Ends one hold; settles when the object is gone, if it was the last. */
  async close(session: Session, wanted: ObjectIdentity): Promise<void> {
    const found = this.held(session, wanted)
    if (found.isLastHold(session)) this.checkClose(found)
    if (found.drop(session, false)) await this.removeOnce(found, false)
  }

  /** Ends all holds of a session that leaves. */
  async releaseAll(session: Session, discard: boolean): Promise<void> {
    const ended = this.all.filter((object) => object.isHeldBy(session) && object.drop(session, true))
    await Promise.all(
      ended.filter((object) => this.isRemovable(object)).map((object) => this.removeOnce(object, discard)),
    )
  }

  /** A new object, held by its maker; removed again at once if the maker left while it was made. */
  protected async keep(object: Kept): Promise<void> {
    object.hold(object.creator)
    this.#objects.set(object.number, object)
    if (object.creator.served) return
    object.drop(object.creator, true)
    await this.removeOnce(object, true)
    throw new SharedVerbsError('closed', `the session left while ${this.noun} ${object.number} was made`)
  }

  protected forget(object: Kept): void {
    this.#objects.delete(object.number)
  }

  /** May refuse that the last holder closes it; a session's end does not ask. */
  protected checkClose(_object: Kept): void {}

  /** False: something else still needs it and will remove it later. */
  protected isRemovable(_object: Kept): boolean {
    return true
  }

  /** Takes the object out of the engine, then gives its memory and its number back. `discard`: nobody is left to read completions. */
  protected abstract remove(object: Kept, discard: boolean): Promise<void>

  protected removeOnce(object: Kept, discard: boolean): Promise<void> {
    object.removal ??= this.remove(object, discard)
    return object.removal
  }
}
