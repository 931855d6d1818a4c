/**
 * What an earlier broker of this node left, from its adoption to the moment in which it goes on (crash-consistency §2.6).
 *
 *   rows of the node file ─► left job ─ first `reattach` ─► revived: known to the engine, nothing runs
 *                               │                              │ each session presents its objects, then says `reattached`
 *                               │ nobody comes                 ▼ every member has, or is dead, or the grace is over: the barrier lifts
 *                               └─► rows free                  not presented → rows free ─► locks of the old broker freed
 *                                                              ─► engine resume-job ─► dead members swept ─► paths taken up ─► goes on
 *
 * Nothing of a job may run before: a message could be delivered to a queue pair whose poster has not come, and the sweep of a dead member
 * must find drained what it committed. Whoever wants something of the job meanwhile waits: its own sessions, new ones, other nodes.
 * Every step may be repeated, because this broker may die as well: rows are freed only after what they name is gone.
 */
import { SharedVerbsError } from '../../protocol/errors.js'
import { memberState } from '../../protocol/node-file.js'
import { closeDescriptor, processIdentity } from '../../shm/libc.js'
import { type ProcessWatch, watchProcess } from '../../shm/liveness.js'
import { Mapping } from '../../shm/mapping.js'
import { MAX_MEMBERS } from '../../shm/robust-lock.js'
import type { SeqpacketConnection } from '../../shm/seqpacket.js'
import type { Clock, Timer } from '../control/clock.js'
import { thisNode } from '../engine/commands.js'
import type { Regions } from '../memory/region.js'
import type { CompletionQueues } from './completion-queue.js'
import { activityByteLength, type Job, type JobIdentity, provesKey } from './job.js'
import { identityKey, type Jobs } from './jobs.js'
import { LeftJob, type LeftMember } from './left-job.js'
import type { ObjectServices } from './object-services.js'
import { checkEventfd, checkFile } from './presented.js'
import type { QueuePairs } from './queue-pair.js'
import type { Session } from './session.js'
import type { Sessions } from './sessions.js'
import { sweepLocks, sweepMember } from './sweep.js'

export interface RestartOptions {
  readonly services: ObjectServices
  readonly clock: Clock
  /** How long sessions that live may take to come back, from the start on. */
  readonly graceMs: number
  /** Device number of memory files on this machine. */
  readonly device: number
  readonly jobs: Jobs
  readonly sessions: Sessions
  readonly completionQueues: CompletionQueues
  readonly queuePairs: QueuePairs
  readonly regions: Regions
  /** The engine goes on with the job: its paths are to be taken up. */
  readonly onResumed: (job: Job) => void
  /** It goes on or is gone: whoever waits asks again. */
  readonly onSettled: (identity: JobIdentity) => void
}

/** What a session says of itself when it comes back. */
export interface Returning {
  readonly job: string
  readonly jobKey: string
  readonly member: number
  readonly memberGeneration: number
}

/** Tokens are asked this often; the death of a process is heard at once. */
const TOKEN_POLL_MS = 50

function deadAlready(died: () => void): ProcessWatch {
  const turn = setImmediate(died)
  return { close: () => clearImmediate(turn) }
}

const late = (what: string): SharedVerbsError =>
  new SharedVerbsError('stale-handle', `${what} is not awaited by this broker, or not any more; attach anew`)

export class Restart {
  readonly #options: RestartOptions
  readonly #jobs = new Map<string, LeftJob>()
  /** Members that live and are served by nobody, with the job that was theirs. */
  readonly #resting = new Map<LeftMember, LeftJob | null>()
  readonly #jobsFound: number
  #grace: Timer | null = null
  #tokens: Timer | null = null
  #sessionsBack = 0
  #reported = false

  constructor(options: RestartOptions) {
    this.#options = options
    const byNumber = this.#readJobs()
    this.#jobsFound = byNumber.size
    this.#readMembers(byNumber)
  }

  /** Members of earlier brokers that live and hold their numbers. */
  get resting(): number {
    return this.#resting.size
  }

  /** From now on sessions can come back. */
  start(): void {
    this.#grace = this.#options.clock.after(this.#options.graceMs, () => void this.#liftAll())
    this.#tokens = this.#options.clock.every(TOKEN_POLL_MS, () => this.#askTokens())
    for (const left of [...this.#jobs.values()]) this.#look(left)
    this.#rest()
  }

  /** Set until the job goes on or is given up. */
  left(identity: JobIdentity): Promise<void> | undefined {
    return this.#jobs.get(identityKey(identity))?.settled
  }

  /**
   * A session of an earlier broker. `descriptors`: liveness file, activity, doorbell; this function's in any case. Throws what the
   * session is refused for.
   */
  async reattach(asked: Returning, connection: SeqpacketConnection, descriptors: readonly number[]): Promise<Session> {
    const given = [...descriptors]
    let member: LeftMember | undefined
    try {
      const left = this.#jobs.get(identityKey({ userId: connection.peer.uid, name: asked.job }))
      if (!left || left.lifting) throw late(`job ${asked.job}`)
      member = this.#checkMember(left, asked, connection)
      this.#checkFiles(left, given)
      member.state = 'back'
      const job = await this.#revive(left, asked.jobKey, given)
      const doorbell = given.splice(0)[0] ?? -1
      return await this.#return(left, member, job, connection, doorbell)
    } catch (error) {
      for (const descriptor of given) closeDescriptor(descriptor)
      if (member?.state === 'back') member.state = 'missing'
      throw error
    }
  }

  /** Work for a session that presents its objects; the barrier does not lift under it. */
  async presenting<Result>(session: Session, work: () => Promise<Result>): Promise<Result> {
    const left = this.#awaited(session)
    const done = work()
    left.work.add(done)
    try {
      return await done
    } finally {
      left.work.delete(done)
    }
  }

  /** A session has presented everything; settles when its job goes on. */
  async reattached(session: Session): Promise<void> {
    const left = this.#awaited(session)
    this.#done(left, session)
    await left.settled
    if (!session.served) throw late(`member ${session.member}`)
  }

  /** Settles when nobody is awaited any more. */
  async whenSettled(): Promise<void> {
    await Promise.all([...this.#jobs.values()].map((left) => left.settled))
  }

  /** Waits for nobody any more: for a broker that stops. */
  async end(): Promise<void> {
    await this.#liftAll()
    this.abandon()
  }

  /** Forgets everybody. May be repeated. */
  abandon(): void {
    this.#grace?.cancel()
    this.#tokens?.cancel()
    const members = [...this.#jobs.values()].flatMap((left) => [...left.members.values()])
    for (const member of [...members, ...this.#resting.keys()]) member.watch?.close()
  }

  #readJobs(): Map<number, LeftJob> {
    const { jobs } = this.#options.services.nodeFile
    const byNumber = new Map<number, LeftJob>()
    for (const number of jobs.inUse()) {
      const left = new LeftJob(number, jobs.read(number))
      byNumber.set(number, left)
      this.#jobs.set(identityKey(left), left)
    }
    return byNumber
  }

  #readMembers(byNumber: ReadonlyMap<number, LeftJob>): void {
    const { members } = this.#options.services.nodeFile
    for (const row of members.inUse()) {
      const { state, job, generation, processId, processStartTime } = members.read(row)
      const left = byNumber.get(job) ?? null
      const awaited = left !== null && state === memberState.alive
      const member: LeftMember = { row, generation, state: awaited ? 'missing' : 'resting', watch: null }
      if (awaited) left.members.set(row, member)
      else this.#resting.set(member, left)
      const died = (): void => this.#died(member)
      const started = processIdentity(processId)?.startTime ?? processStartTime
      // Another process with the number of one that is dead.
      const replaced = processStartTime !== 0 && started !== processStartTime
      member.watch = replaced ? deadAlready(died) : watchProcess(processId, died)
    }
  }

  /** Identity as the kernel and the node file have it; the message alone proves nothing. */
  #checkMember(left: LeftJob, asked: Returning, { peer }: SeqpacketConnection): LeftMember {
    const { nodeFile } = this.#options.services
    const member = left.members.get(asked.member)
    if (member?.state !== 'missing') throw late(`member ${asked.member} of job ${left.name}`)
    const row = nodeFile.members.read(member.row)
    if (row.generation !== asked.memberGeneration || row.processId !== peer.pid || row.userId !== peer.uid) {
      const message = `process ${peer.pid} is not member ${asked.member} of job ${left.name}, generation ${asked.memberGeneration}`
      throw new SharedVerbsError('access-denied', message, { member: asked.member })
    }
    if (!provesKey(nodeFile.jobs.read(left.number).keyProof, asked.jobKey)) {
      throw new SharedVerbsError('wrong-job-key', `job ${left.name} has another key`, { job: left.name })
    }
    return member
  }

  #checkFiles(left: LeftJob, [liveness, activity, doorbell]: readonly number[]): void {
    const { livenessInode, activityInode } = this.#options.services.nodeFile.jobs.read(left.number)
    const { device } = this.#options
    checkFile(liveness ?? -1, { inode: livenessInode, byteLength: MAX_MEMBERS }, device)
    checkFile(activity ?? -1, { inode: activityInode, byteLength: activityByteLength }, device)
    checkEventfd(doorbell ?? -1)
  }

  /** The job of a left one, made once. Takes the first two descriptors. */
  async #revive(left: LeftJob, key: string, given: number[]): Promise<Job> {
    const [livenessDescriptor = -1, activity = -1] = given.splice(0, 2)
    if (left.reviving) {
      closeDescriptor(livenessDescriptor)
      closeDescriptor(activity)
      return left.reviving
    }
    const reviving = this.#reviveOnce(left, key, livenessDescriptor, activity)
    left.reviving = reviving
    try {
      left.job = await reviving
      return left.job
    } catch (error) {
      left.reviving = null
      throw error
    }
  }

  async #reviveOnce(left: LeftJob, key: string, livenessDescriptor: number, activity: number): Promise<Job> {
    let mapping: Mapping
    try {
      mapping = Mapping.attach(activity, { byteLength: activityByteLength, writable: true })
    } catch (error) {
      closeDescriptor(livenessDescriptor)
      closeDescriptor(activity)
      throw error
    }
    const files = { activity: mapping, livenessDescriptor }
    return await this.#options.jobs.revive(left.number, left, key, files, left.settled)
  }

  async #return(
    left: LeftJob,
    member: LeftMember,
    job: Job,
    connection: SeqpacketConnection,
    doorbell: number,
  ): Promise<Session> {
    if (left.lifting) {
      closeDescriptor(doorbell)
      throw late(`member ${member.row} of job ${left.name}`)
    }
    if (!job.monitor.alive(member.row)) {
      closeDescriptor(doorbell)
      throw new SharedVerbsError('access-denied', `member ${member.row} of job ${left.name} does not hold its token`)
    }
    const session = await this.#options.sessions.revive(job, member.row, connection, doorbell)
    member.watch?.close()
    member.watch = null
    session.onEnd = () => this.#done(left, session)
    this.#sessionsBack++
    return session
  }

  #awaited(session: Session): LeftJob {
    const left = this.#jobs.get(identityKey(session.job))
    const awaited = left && !left.lifting && left.members.get(session.member)?.state === 'back'
    if (awaited && session.served) return left
    throw late(`member ${session.member} of job ${session.job.name}`)
  }

  #done(left: LeftJob, session: Session): void {
    const member = left.members.get(session.member)
    if (member?.state !== 'back') return
    member.state = 'done'
    this.#look(left)
  }

  #died(member: LeftMember): void {
    member.watch?.close()
    member.watch = null
    if (this.#resting.has(member)) {
      void this.#bury(member)
      return
    }
    if (member.state !== 'missing') return
    member.state = 'dead'
    this.#options.services.nodeFile.members.write(member.row, { state: memberState.dying })
    for (const left of [...this.#jobs.values()]) if (left.members.get(member.row) === member) this.#look(left)
  }

  /** The token is dropped before the process is gone, and by a worker thread whose process goes on. */
  #askTokens(): void {
    for (const left of [...this.#jobs.values()]) {
      for (const member of left.job ? left.in('missing') : []) {
        if (left.job?.monitor.alive(member.row) === false) this.#died(member)
      }
    }
    for (const [member, left] of [...this.#resting]) {
      if (left?.job && !left.job.removal && !left.job.monitor.alive(member.row)) void this.#bury(member)
    }
  }

  #look(left: LeftJob): void {
    if (this.#grace && left.in('missing', 'back').length === 0) void this.#lift(left)
  }

  async #liftAll(): Promise<void> {
    await Promise.all([...this.#jobs.values()].map((left) => this.#lift(left)))
  }

  #lift(left: LeftJob): Promise<void> {
    left.lifting ??= this.#liftOnce(left)
    return left.lifting
  }

  async #liftOnce(left: LeftJob): Promise<void> {
    const { services, onSettled, jobs } = this.#options
    await Promise.allSettled([left.reviving, ...left.work])
    this.#leaveBehind(left)
    const { job } = left
    try {
      this.#dropObjects(left.number)
      if (job) await this.#resume(left, job)
      else services.nodeFile.jobs.free(left.number)
    } catch (error) {
      services.observer.report(error, `job ${left.name}`)
    }
    for (const member of left.in('dead')) services.nodeFile.members.free(member.row)
    this.#jobs.delete(identityKey(left))
    if (job) {
      job.resumption = null
      jobs.memberLeft(job)
    }
    left.settle()
    onSettled(left)
    this.#rest()
  }

  /** Those that live and have not come rest; those that came and did not finish are told that it is over. */
  #leaveBehind(left: LeftJob): void {
    const { nodeFile } = this.#options.services
    for (const member of left.in('missing')) {
      member.state = 'resting'
      left.members.delete(member.row)
      this.#resting.set(member, left)
      nodeFile.members.write(member.row, { state: memberState.detaching })
    }
    for (const member of left.in('back')) {
      member.state = 'done'
      const session = left.job?.members.get(member.row)
      session?.send('session-ended', { reason: 'it did not present what it had in time' })
      session?.hangUp()
    }
  }

  /** What no session holds any more. Queue pairs first: they name the others. */
  #dropObjects(job: number): void {
    const { services, queuePairs, completionQueues, regions } = this.#options
    const { nodeFile } = services
    const tables = [
      [nodeFile.queuePairs, queuePairs],
      [nodeFile.completionQueues, completionQueues],
      [nodeFile.regions, regions],
    ] as const
    for (const [table, registry] of tables) {
      for (const row of table.inUse()) if (table.read(row).job === job && !registry.has(row)) table.free(row)
    }
  }

  async #resume(left: LeftJob, job: Job): Promise<void> {
    const { services, queuePairs, onResumed } = this.#options
    const { engine, observer } = services
    sweepLocks(job, 0, queuePairs, services)
    const resumed = await engine.call('resume-job', { job: job.number })
    for (const { row: member, generation } of left.in('dead')) {
      await sweepMember({ member, generation, job }, queuePairs, services)
      observer.count('sessions-died')
    }
    const reason = 'the other end has not come back after the restart of the broker'
    await engine.call('abandon-path', { job: job.number, peer: thisNode, trafficClass: null, reason })
    const gone = left.in('dead').length
    const text = `job ${job.name}: ${job.sessions.length} sessions, ${resumed.queuePairs} queue pairs, ${gone} died`
    observer.note('job-resumed', text)
    onResumed(job)
  }

  async #bury(member: LeftMember): Promise<void> {
    const left = this.#resting.get(member)
    if (left === undefined) return
    this.#resting.delete(member)
    member.watch?.close()
    const { services, queuePairs } = this.#options
    const { row, generation } = member
    try {
      await left?.settled
      const job = left?.job
      if (job && !job.removal) await sweepMember({ member: row, generation, job }, queuePairs, services)
    } catch (error) {
      services.observer.report(error, `member ${row}`)
    }
    services.nodeFile.members.free(row)
    this.#rest()
  }

  /** When nobody is awaited any more, the time is told; when nobody rests either, nothing is asked any more. */
  #rest(): void {
    if (this.#jobs.size > 0 || !this.#grace) return
    this.#grace.cancel()
    if (this.#resting.size === 0) this.#tokens?.cancel()
    if (this.#reported) return
    this.#reported = true
    const { nodeFile, observer } = this.#options.services
    const resumedTimeMs = this.#options.clock.wallTimeMs()
    const blackoutMs = nodeFile.resumed(resumedTimeMs)
    const blackout = blackoutMs === null ? '' : `; handover, blackout ${blackoutMs.toFixed(1)} ms`
    if (this.#jobsFound === 0 && blackoutMs === null) return
    observer.note('restart-ended', `${this.#sessionsBack} sessions of ${this.#jobsFound} jobs are back${blackout}`)
  }
}
