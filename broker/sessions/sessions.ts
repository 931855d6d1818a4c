/**
 * The sessions of this node, from attach to the last trace.
 *
 *   attach ─► alive ─┬─ detach or hang-up ─► objects removed ─► detaching ─┬─ token gone or process dead ─► swept ─► row free
 *                    └─ process dead ──────► swept ─► objects removed ─────┘
 *
 * A member of a job that an earlier broker left comes back by `revive` under its number (restart.ts); whatever ends it before the job goes
 * on takes effect when the job does, because nothing may be swept before what was committed is taken.
 *
 * A closed socket is no death: the process may be inside a critical section of a queue pair it shares. So its number rests, and its
 * locks are left alone, until the kernel says that its token or its process is gone.
 */
import { SharedVerbsError } from '../../protocol/errors.js'
import { type memberRow, memberState } from '../../protocol/node-file.js'
import { processIdentity } from '../../shm/libc.js'
import { type ProcessWatch, watchProcess, watchProcessDescriptor } from '../../shm/liveness.js'
import type { SeqpacketConnection } from '../../shm/seqpacket.js'
import type { Clock, Timer } from '../control/clock.js'
import type { Regions } from '../memory/region.js'
import type { RowOf } from '../observe/table.js'
import type { CompletionQueues } from './completion-queue.js'
import type { Job } from './job.js'
import type { Jobs } from './jobs.js'
import { type ObjectServices, tableFull } from './object-services.js'
import type { QueuePairs } from './queue-pair.js'
import { Session } from './session.js'
import { sweepMember } from './sweep.js'

export interface SessionsOptions {
  readonly services: ObjectServices
  readonly clock: Clock
  readonly jobs: Jobs
  readonly completionQueues: CompletionQueues
  readonly queuePairs: QueuePairs
  readonly regions: Regions
  /** Ends what a session has elsewhere: services, pending connections, datagram paths. */
  readonly onLeave: (session: Session) => void
}

/** Generations of members have 20 bits in a lock's word. */
const MEMBER_GENERATIONS = 2 ** 20
/** How often tokens of those who left are asked for. */
const LINGER_POLL_MS = 250
/** A killed process closes its socket a moment before the kernel calls it dead; waiting that long lets the sweep come first. */
const HANG_UP_GRACE_MS = 20

export class Sessions {
  readonly #options: SessionsOptions
  readonly #lingering = new Set<Session>()
  #lingerTimer: Timer | undefined

  constructor(options: SessionsOptions) {
    this.#options = options
  }

  /** Those that are served. */
  get all(): Session[] {
    return this.#options.jobs.all.flatMap((job) => job.sessions)
  }

  /** Rows that are not free: sessions, those that left and may still hold locks, and members of an earlier broker. */
  get rowsInUse(): number {
    return this.#options.services.nodeFile.members.used
  }

  /** A new member of the job. Throws `limit-exceeded`. */
  async attach(job: Job, name: string, connection: SeqpacketConnection): Promise<Session> {
    const { services } = this.#options
    services.accounts.charge({ job: job.number, userId: job.userId }, { sessions: 1 })
    const member = services.nodeFile.members.reserve()
    if (member === undefined) {
      services.accounts.refund({ job: job.number, userId: job.userId }, { sessions: 1 })
      throw tableFull('members', services.nodeFile.members.rows)
    }
    const generation = this.#bumpGeneration(member)
    const session = new Session({ member, generation, job, name, connection })
    this.#writeRow(session)
    await this.#enter(session, connection)
    return session
  }

  /** A member that an earlier broker left, under its number and with its own doorbell, which is the session's in any case. */
  async revive(job: Job, row: number, connection: SeqpacketConnection, doorbell: number): Promise<Session> {
    const { generation, name } = this.#options.services.nodeFile.members.read(row)
    const session = new Session({ member: row, generation, job, name, connection, doorbell })
    try {
      this.#options.services.accounts.charge({ job: job.number, userId: job.userId }, { sessions: 1 })
    } catch (error) {
      session.close()
      throw error
    }
    await this.#enter(session, connection)
    return session
  }

  async #enter(session: Session, connection: SeqpacketConnection): Promise<void> {
    const { services, jobs } = this.#options
    const { job, member } = session
    job.members.set(member, session)
    jobs.memberJoined(job)
    try {
      await services.engine.call('add-member', { job: job.number, member, doorbell: session.doorbell })
    } catch (error) {
      session.served = false
      this.#freeRow(session)
      throw error
    }
    session.watch = watch(connection, () => this.#died(session))
    services.observer.count('sessions-attached')
  }

  /** Orderly end: settles when the session's objects are gone. `discard`: nobody will read its completions. May be repeated. */
  async leave(session: Session, discard: boolean): Promise<void> {
    if (session.job.resumption) await this.#untilResumed(session)
    session.end.objects ??= this.#releaseObjects(session, discard)
    await session.end.objects
    this.#linger(session)
  }

  /** The broker ends it: its client is told that no other broker will know it. Settles when its objects are gone. */
  async endSession(session: Session, reason: string): Promise<void> {
    session.send('session-ended', { reason })
    await this.leave(session, false)
  }

  /** The socket closed: a detach, unless the kernel says that it was more. */
  async hungUp(session: Session): Promise<void> {
    if (session.served) {
      session.served = false
      if (session.job.resumption) await this.#untilResumed(session)
      await new Promise<void>((resolve) => this.#options.clock.after(HANG_UP_GRACE_MS, resolve))
      if (this.#isGone(session)) await this.#sweep(session)
    }
    await this.leave(session, true)
  }

  /** Gives up waiting for those who left: at the end of the broker. True if somebody may still use a number. */
  abandonLingering(): boolean {
    this.lookAtLingering()
    this.#lingerTimer?.cancel()
    for (const session of this.#lingering) session.close()
    return this.#lingering.size > 0
  }

  /** Deaths are the next broker's business. */
  unwatch(): void {
    for (const job of this.#options.jobs.all) {
      for (const session of job.members.values()) {
        session.watch?.close()
        session.watch = null
      }
    }
  }

  /** Forgets all sessions and changes nothing of theirs: the next broker goes on with them. */
  abandonAll(): void {
    this.#lingerTimer?.cancel()
    for (const job of this.#options.jobs.all) {
      for (const session of job.members.values()) session.close()
      job.close()
    }
  }

  /** Sessions whose rows are not free yet. */
  get left(): number {
    return this.#options.jobs.all.reduce((sum, job) => sum + job.members.size, 0)
  }

  async #untilResumed(session: Session): Promise<void> {
    session.onEnd?.()
    await session.job.resumption
  }

  #died(session: Session): void {
    session.processDied = true
    const { observer, nodeFile } = this.#options.services
    nodeFile.members.write(session.member, { state: memberState.dying })
    observer.count('sessions-died')
    observer.note('session-died', `process ${session.peer.pid}, member ${session.member} of job ${session.job.name}`)
    session.hangUp()
    const steps = async (): Promise<void> => {
      if (session.job.resumption) await this.#untilResumed(session)
      await this.#sweep(session)
      await this.leave(session, true)
    }
    steps().catch((error) => observer.report(error, `member ${session.member}`))
  }

  #isGone(session: Session): boolean {
    return session.processDied || !session.job.monitor.alive(session.member)
  }

  #sweep(session: Session): Promise<void> {
    session.end.sweep ??= sweepMember(session, this.#options.queuePairs, this.#options.services)
    return session.end.sweep
  }

  async #releaseObjects(session: Session, discard: boolean): Promise<void> {
    const { queuePairs, completionQueues, regions, onLeave, services } = this.#options
    session.served = false
    if (!session.processDied) services.nodeFile.members.write(session.member, { state: memberState.detaching })
    onLeave(session)
    // In this order, because each may name the next; what fails is reported and must not keep the rest alive.
    for (const registry of [queuePairs, completionQueues, regions]) {
      await registry
        .releaseAll(session, discard)
        .catch((error) => services.observer.report(error, `member ${session.member}`))
    }
  }

  #linger(session: Session): void {
    if (session.end.row) return
    this.#lingering.add(session)
    this.#lingerTimer ??= this.#options.clock.every(LINGER_POLL_MS, () => this.lookAtLingering())
    this.lookAtLingering()
  }

  /** Ends those of the departed whose token or process is gone. */
  lookAtLingering(): void {
    for (const session of this.#lingering) {
      if (!this.#isGone(session)) continue
      this.#lingering.delete(session)
      session.end.row ??= this.#finish(session)
    }
    if (this.#lingering.size > 0) return
    this.#lingerTimer?.cancel()
    this.#lingerTimer = undefined
  }

  async #finish(session: Session): Promise<void> {
    const { engine, observer } = this.#options.services
    try {
      await this.#sweep(session)
      await engine.call('remove-member', { job: session.job.number, member: session.member })
    } catch (error) {
      observer.report(error, `member ${session.member}`)
    }
    this.#freeRow(session)
  }

  #freeRow(session: Session): void {
    const { services, jobs } = this.#options
    session.close()
    services.nodeFile.members.free(session.member)
    session.job.members.delete(session.member)
    services.accounts.refund({ job: session.job.number, userId: session.job.userId }, { sessions: 1 })
    jobs.memberLeft(session.job)
  }

  #bumpGeneration(member: number): number {
    const { nodeFile } = this.#options.services
    const generation = nodeFile.generationAfter(nodeFile.members.read(member).generation, MEMBER_GENERATIONS)
    nodeFile.members.write(member, { generation })
    return generation
  }

  #writeRow(session: Session): void {
    const row: RowOf<typeof memberRow> = {
      state: memberState.alive,
      job: session.job.number,
      member: session.member,
      generation: session.generation,
      processId: session.peer.pid,
      userId: session.peer.uid,
      attachedTimeMs: this.#options.clock.wallTimeMs(),
      queuePairs: 0,
      regions: 0,
      registeredByteLength: 0,
      processStartTime: processIdentity(session.peer.pid)?.startTime ?? 0,
      name: session.name,
    }
    this.#options.services.nodeFile.members.fill(session.member, row)
  }
}

/** By the kernel's own descriptor of the peer where it has one: a pid may name a stranger by now. */
function watch(connection: SeqpacketConnection, onDeath: () => void): ProcessWatch {
  const descriptor = connection.peerProcess()
  return descriptor >= 0 ? watchProcessDescriptor(descriptor, onDeath) : watchProcess(connection.peer.pid, onDeath)
}

export function draining(what: string): SharedVerbsError {
  return new SharedVerbsError('draining', `${what} refused: the broker is draining and takes nothing new`)
}
