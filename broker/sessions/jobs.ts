/**
 * The jobs of this node, by user and name. The first member makes the job and gives it its key; whoever comes later must know it.
 * Jobs of the same name that belong to different users are different jobs.
 */
import { SharedVerbsError } from '../../protocol/errors.js'
import { fileIdentity } from '../../shm/mapping.js'
import type { Clock, Timer } from '../control/clock.js'
import { Job, type JobFiles, type JobIdentity } from './job.js'
import { type ObjectServices, tableFull } from './object-services.js'

export interface JobsOptions {
  readonly services: ObjectServices
  readonly clock: Clock
  /** How long a job without members keeps its lanes. */
  readonly idleMs: number
  /** Ends what belongs to the job elsewhere (lanes, domains) before the engine forgets it. */
  readonly beforeRemoval: (job: Job) => Promise<void>
  /** Of a job that an earlier broker left: settles when it goes on or is given up. */
  readonly left: (identity: JobIdentity) => Promise<void> | undefined
}

export const identityKey = ({ userId, name }: JobIdentity): string => `${userId} ${name}`

export class Jobs {
  readonly #options: JobsOptions
  readonly #byIdentity = new Map<string, Job>()
  readonly #byNumber = new Map<number, Job>()
  readonly #idle = new Map<Job, Timer>()

  constructor(options: JobsOptions) {
    this.#options = options
  }

  get all(): Job[] {
    return [...this.#byNumber.values()]
  }

  byNumber(number: number): Job | undefined {
    return this.#byNumber.get(number)
  }

  find(identity: JobIdentity): Job | undefined {
    return this.#byIdentity.get(identityKey(identity))
  }

  /** The job, made if need be. Throws `wrong-job-key` or `limit-exceeded`. */
  async join(identity: JobIdentity, key: string): Promise<Job> {
    for (;;) {
      const left = this.#options.left(identity)
      if (left) {
        await left
        continue
      }
      const known = this.find(identity)
      if (!known) return await this.#create(identity, key)
      if (!known.removal && known.hasKey(key)) {
        await known.ready
        if (!known.removal) return known
      } else if (!known.removal && known.members.size > 0) {
        throw new SharedVerbsError(
          'wrong-job-key',
          `job ${identity.name} of user ${identity.userId} has members that know another key; use the key of the job`,
          { job: identity.name, userId: identity.userId },
        )
      }
      // Nobody is left of those who knew the old key, or the job is going anyway.
      await this.remove(known)
    }
  }

  /** A member's row is free; the last one leaves the job idle. */
  memberLeft(job: Job): void {
    this.writeMembers(job)
    if (job.members.size > 0 || job.removal || this.#idle.has(job)) return
    const reap = (): void => {
      this.#idle.delete(job)
      if (job.members.size === 0) void this.remove(job)
    }
    this.#idle.set(job, this.#options.clock.after(this.#options.idleMs, reap))
  }

  memberJoined(job: Job): void {
    this.#idle.get(job)?.cancel()
    this.#idle.delete(job)
    this.writeMembers(job)
  }

  writeMembers(job: Job): void {
    if (this.#byNumber.get(job.number) === job) {
      this.#options.services.nodeFile.jobs.write(job.number, { members: job.members.size })
    }
  }

  remove(job: Job): Promise<void> {
    job.removal ??= this.#remove(job)
    return job.removal
  }

  /** A job that an earlier broker left, under its number; its row is as it was. */
  async revive(
    number: number,
    identity: JobIdentity,
    key: string,
    files: JobFiles,
    resumption: Promise<void>,
  ): Promise<Job> {
    const job = new Job(number, identity, key, files)
    job.resumption = resumption
    await this.#introduce(job)
    return job
  }

  async #create(identity: JobIdentity, key: string): Promise<Job> {
    const { nodeFile } = this.#options.services
    const number = nodeFile.jobs.reserve()
    if (number === undefined) throw tableFull('jobs', nodeFile.jobs.rows)
    const job = this.#make(number, identity, key)
    try {
      await this.#introduce(job)
    } catch (error) {
      nodeFile.jobs.free(number)
      throw error
    }
    nodeFile.jobs.fill(number, {
      state: 1,
      number,
      userId: job.userId,
      members: 0,
      name: job.name,
      livenessInode: fileIdentity(job.livenessDescriptor).inode,
      activityInode: job.activity.identity.inode,
      keyProof: job.keyProof,
    })
    return job
  }

  /** Known here from now on, and to the engine when this settles. Its row is the caller's. */
  async #introduce(job: Job): Promise<void> {
    this.#byIdentity.set(identityKey(job), job)
    this.#byNumber.set(job.number, job)
    const activity = { address: job.activity.address, byteLength: job.activity.byteLength }
    job.ready = this.#options.services.engine.call('add-job', { job: job.number, activity }).then(() => undefined)
    try {
      await job.ready
    } catch (error) {
      this.#forget(job)
      throw error
    }
  }

  #make(number: number, identity: JobIdentity, key: string): Job {
    try {
      return new Job(number, identity, key)
    } catch (error) {
      this.#options.services.nodeFile.jobs.free(number)
      throw error
    }
  }

  async #remove(job: Job): Promise<void> {
    const { engine, observer } = this.#options.services
    this.#idle.get(job)?.cancel()
    this.#idle.delete(job)
    try {
      await this.#options.beforeRemoval(job)
      await engine.call('remove-job', { job: job.number })
    } catch (error) {
      observer.report(error, `removing job ${job.name}`)
    }
    this.#forget(job)
    this.#options.services.nodeFile.jobs.free(job.number)
  }

  #forget(job: Job): void {
    this.#byIdentity.delete(identityKey(job))
    this.#byNumber.delete(job.number)
    job.close()
  }
}
