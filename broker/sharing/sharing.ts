/**
 * The ways to other nodes: finds or makes the link, the domain of the job and the lanes that a use needs, keeps them while they are
 * needed, and lets them go when they are idle. One set of lanes for each (job, peer, traffic class), shared by all processes.
 *
 *   acquire ─► link? dial ─► domain? open ─► lanes? open, or ask the side that opens ─► the lane with the fewest users
 */
import { SharedVerbsError } from '../../protocol/errors.js'
import type { LinkMessage, LinkMessageBody } from '../../protocol/link.js'
import { toFailure } from '../control/failure.js'
import type { Peer } from '../peers/peer.js'
import { Peers, type PeersListener, type PeersOptions } from '../peers/peers.js'
import type { Job, JobIdentity } from '../sessions/job.js'
import type { QueuePair } from '../sessions/queue-pair.js'
import type { Lane } from './lane.js'
import type { LaneKeeper } from './lane-keeper.js'
import { LaneMaker, type LaneMakerOptions } from './lane-maker.js'
import { LaneOpener, laneRefusal } from './lane-opener.js'
import { LaneReaper } from './lane-reaper.js'
import { LaneSet, LaneUse } from './lane-set.js'
import type { PathUse } from './path-use.js'

export interface SharingOptions extends LaneMakerOptions, PeersOptions {
  readonly idleMs: number
  /** How long connections wait for a path that was lost. */
  readonly peerGraceMs: number
}

export interface PathRequest {
  readonly node: string
  readonly trafficClass: number
  readonly deadlineMs: number
  /** False when whoever asked has gone. */
  readonly isWanted: () => boolean
}

type LaneBody = { readonly job: string; readonly userId: number; readonly trafficClass: number }
type NamedLane = LaneBody & { readonly lane: number; readonly incarnation: number }

/** Failures that waiting does not mend: whoever waits hears of them at once. */
const finalCodes = new Set<string>([
  'peer-refused',
  'wrong-cluster-key',
  'limit-exceeded',
  'no-memory',
  'protocol-violation',
  'wrong-job-key',
  'invalid-argument',
  'access-denied',
  'internal-error',
])
/** A node that this one cannot find may find this one: only after this long an unknown name is taken for a mistake. */
const UNKNOWN_GRACE_MS = 2000

/** What had failed when somebody began to wait, and when that was: older failures are not his. */
interface WaitStart {
  readonly peer: number
  readonly set: number
  readonly nowMs: number
}

export class Sharing implements LaneKeeper, PeersListener {
  readonly peers: Peers
  readonly #options: SharingOptions
  readonly #maker: LaneMaker
  readonly #opener: LaneOpener
  readonly #reaper: LaneReaper
  readonly #sets = new Map<string, LaneSet>()
  /** Lanes that failed while there was no link to say so, by peer. */
  readonly #untold = new Map<Peer, Map<number, LinkMessageBody<'lane-failed'>>>()
  #stopped = false

  constructor(options: SharingOptions) {
    this.#options = options
    this.peers = new Peers(options, this)
    this.#maker = new LaneMaker(options)
    const { clock, idleMs } = options
    this.#opener = new LaneOpener({ clock, maker: this.#maker, keeper: this })
    this.#reaper = new LaneReaper({ clock, maker: this.#maker, keeper: this, idleMs })
    options.engine.on('lane-failed', ({ lane: row, incarnation, reason }) => {
      const lane = this.#maker.byRow(row)
      // A lane that is being opened hears of it as the answer to its own command.
      if (lane?.incarnation === incarnation && (lane.state === 'up' || lane.state === 'closing')) {
        this.#lost(lane, reason, true)
      }
    })
  }

  /** One for each provider queue pair that this node has for its jobs. */
  get keys(): string[] {
    return this.#maker.keys
  }

  /** Opens the link port and returns it; 0 without a cluster key. */
  listen(): Promise<number> {
    return this.peers.listen()
  }

  addPeer(name: string, address: string): void {
    this.peers.setAddress(name, address)
    for (const peer of this.peers.all) if (peer.node === name && this.isNeeded(peer)) peer.pursue()
  }

  /** A use of the way to a node. Fails with the peer's refusal at once, and with `timeout` or `peer-unreachable` at the deadline. */
  async acquire(job: Job, request: PathRequest): Promise<PathUse> {
    const peer = this.peers.get(request.node)
    const set = this.#set(job, peer, request.trafficClass)
    const nowMs = this.#options.clock.nowMs()
    const since = { peer: peer.failureSerial, set: set.failure?.serial ?? 0, nowMs }
    set.waiters++
    try {
      const look = (): PathUse | undefined => this.#look(set, request, since)
      const use = await peer.condition.until(look, request.deadlineMs)
      if (use) return use
      throw this.#late(set)
    } finally {
      set.waiters--
      this.#settle(set)
      this.peers.forgetStranger(peer)
    }
  }

  /** A use of a way that a peer chose: only the engine knows which lane it is. */
  join(queuePair: QueuePair, peerRow: number): PathUse {
    const peer = this.peers.byRow(peerRow)
    if (!peer) throw new SharedVerbsError('internal-error', `the engine named peer ${peerRow}, which is not known`)
    const sets = [...this.#sets.values()].filter((set) => set.job === queuePair.job && set.peer === peer)
    const set = sets.find((one) => one.trafficClass === queuePair.trafficClass) ?? sets[0]
    if (!set) return { peer: peer.row, node: peer.node, lane: null, release: () => {} }
    const use = new LaneUse(set, null, (of) => this.#settle(of))
    this.#reaper.watch(set)
    return use
  }

  /** A use that an earlier broker of this node left; null for a peer that is not known any more. */
  resume(queuePair: QueuePair, peerRow: number, index: number): PathUse | null {
    const peer = this.peers.byRow(peerRow)
    if (!peer) return null
    const set = this.#set(queuePair.job, peer, queuePair.trafficClass)
    set.suspended = set.up.length === 0
    const use = new LaneUse(set, index, (of) => this.#settle(of))
    this.#settle(set)
    return use
  }

  /** Datagrams of the job may go to the peer, also over lanes that come later. */
  async addDatagramPath(job: Job, peerRow: number, deadlineMs: number): Promise<void> {
    const peer = this.peers.byRow(peerRow)
    const set = peer && this.#sets.get(setKey(job, peer, 0))
    if (!set) throw new SharedVerbsError('path-lost', `the way to peer ${peerRow} was lost`)
    set.datagram = true
    const lane = await set.peer.condition.until(() => set.choose(1, true), deadlineMs)
    if (!lane) throw this.#late(set)
    await this.#tellDatagramPath(lane)
  }

  jobAppeared(job: Job): void {
    this.peers.jobAppeared(job)
  }

  /** What becomes of a job that an earlier broker left is known. */
  jobSettled(identity: JobIdentity): void {
    this.peers.jobSettled(identity)
  }

  /** Ends everything of a job; settles when none of its queue pairs is left. */
  async endJob(job: Job): Promise<void> {
    this.peers.jobEnded(job)
    const sets = [...this.#sets.values()].filter((set) => set.job === job)
    await Promise.all(sets.map((set) => this.#endSet(set, 'the job has ended')))
    for (const set of sets) this.#forget(set)
  }

  /** The next broker of this node goes on: peers are told, lanes go with the engine. */
  leave(kind: 'handover'): void {
    this.#stopped = true
    this.peers.sayGoodbye(kind, 'handover')
    for (const set of this.#sets.values()) set.cancelTimers()
    this.peers.close()
  }

  /** Says goodbye, destroys all lanes, ends all links. May be repeated. */
  async stop(kind: 'stop' | 'handover', reason: string): Promise<void> {
    this.#stopped = true
    this.peers.sayGoodbye(kind, reason)
    await Promise.all([...this.#sets.values()].map((set) => this.#endSet(set, reason)))
    this.peers.close()
  }

  // What peers tell.

  onLink(peer: Peer): void {
    for (const body of this.#untold.get(peer)?.values() ?? []) peer.send('lane-failed', body)
    this.#untold.delete(peer)
    for (const set of this.#ofPeer(peer)) {
      set.tryNow()
      this.pursue(set)
    }
  }

  onLinkLost(peer: Peer): void {
    const error = new SharedVerbsError('path-lost', `the link to node ${peer.node} was lost`)
    for (const set of this.#ofPeer(peer)) {
      set.asked = false
      set.cancelTimers()
      for (const lane of set.lanes.values()) lane.giveUp(error)
    }
    peer.condition.notify()
  }

  async onPeerLost(peer: Peer, reason: string, forGood: boolean): Promise<void> {
    this.#untold.delete(peer)
    const end = (set: LaneSet): Promise<void> => (forGood ? this.#giveUp(set, reason) : this.#endLanes(set, reason))
    await Promise.all(this.#ofPeer(peer).map(end))
  }

  onDomainChanged(peer: Peer): void {
    for (const set of this.#ofPeer(peer)) this.pursue(set)
  }

  onDomainClosed(peer: Peer, job: Job): void {
    for (const set of this.#ofPeer(peer)) {
      if (set.job === job) void this.#giveUp(set, `job ${job.name} has ended on node ${peer.node}`)
    }
  }

  isNeeded(peer: Peer): boolean {
    return !this.#stopped && this.#ofPeer(peer).some((set) => set.needed)
  }

  onMessage(peer: Peer, message: LinkMessage): void {
    switch (message.name) {
      case 'lane-want':
        this.#wanted(peer, message.body)
        break
      case 'lane-open':
        this.#offered(peer, message.body)
        break
      case 'lane-opened':
        this.#find(peer, message.body)?.opened.resolve(message.body)
        break
      case 'lane-refused':
        this.#refused(peer, message.body)
        break
      case 'lane-failed':
        this.#failedThere(peer, message.body)
        break
      case 'lane-reap':
        this.#askedToReap(peer, message.body)
        break
      case 'lane-reaped':
        this.#find(peer, message.body)?.reaped?.resolve(message.body.agreed)
        break
      default:
      // lane-ready says nothing that the lane's own probe has not said.
    }
  }

  // What opening and reaping tell.

  laneUp(lane: Lane): void {
    const { set } = lane
    const { node } = set.peer
    this.#options.observer.note('lane-up', `lane ${lane.index} of job ${set.job.name} to node ${node}`)
    set.succeeded()
    if (set.isComplete(set.peer.link?.lanes ?? 1)) {
      set.asked = false
      if (set.lost) for (const session of set.job.sessions) session.send('path-recovered', { node })
      set.lost = false
    }
    if (set.datagram) {
      this.#tellDatagramPath(lane).catch((error) => this.#options.observer.report(error, `datagrams to node ${node}`))
    }
    this.#settle(set)
  }

  laneLost(lane: Lane, reason: string, tellPeer: boolean): Promise<void> {
    return this.#lost(lane, reason, tellPeer)
  }

  setFailed(set: LaneSet, error: unknown): void {
    const failure = toFailure(error)
    this.#options.observer.report(failure, `lanes of job ${set.job.name} to node ${set.peer.node}`)
    set.failed(failure, this.#options.clock.nowMs(), this.#options.random)
    this.#settle(set)
  }

  /** Goes on with whatever a needed set lacks: a link, the domain, lanes. Does nothing for one that nobody needs. */
  pursue(set: LaneSet): void {
    try {
      if ((set.needed || set.peerWants) && !this.#stopped) this.#advance(set)
    } catch (error) {
      set.failed(toFailure(error), this.#options.clock.nowMs(), this.#options.random)
    }
    this.#reaper.watch(set)
    this.#watchGrace(set)
    if (set.empty) this.#forget(set)
  }

  /** Connections wait for a lane only so long. */
  #watchGrace(set: LaneSet): void {
    if (set.uses.size === 0 || set.isComplete(set.peer.link?.lanes ?? Number.POSITIVE_INFINITY)) set.suspended = false
    if (!set.suspended || set.closed || this.#stopped) {
      set.grace?.cancel()
      set.grace = null
      return
    }
    const { clock, peerGraceMs, observer } = this.#options
    set.grace ??= clock.after(peerGraceMs, () => {
      set.grace = null
      const reason = `no path to node ${set.peer.node} for ${peerGraceMs} ms`
      this.#abandon(set, reason).catch((error) => observer.report(error, `node ${set.peer.node}`))
    })
  }

  /** What hung on the set will not go on: lanes end, and what waits for them gets its verdicts. */
  async #giveUp(set: LaneSet, reason: string): Promise<void> {
    await this.#endLanes(set, reason)
    await this.#abandon(set, reason)
  }

  /** Lanes that are up stay: what is on them does not wait. */
  async #abandon(set: LaneSet, reason: string): Promise<void> {
    if (!set.suspended) return
    set.suspended = false
    set.grace?.cancel()
    set.grace = null
    const { engine, observer } = this.#options
    const { job, peer, trafficClass } = set
    this.#tellPathLost(set, reason)
    const path = { job: job.number, peer: peer.row, trafficClass, reason: reason.slice(0, 200) }
    const { queuePairs } = await engine.call('abandon-path', path)
    observer.note('path-abandoned', `job ${job.name} to node ${peer.node}: ${reason}; ${queuePairs} queue pairs`)
    this.#settle(set)
  }

  #tellPathLost(set: LaneSet, reason: string): void {
    if (set.lost || this.#stopped) return
    set.lost = true
    const { node } = set.peer
    for (const session of set.job.sessions) session.send('path-lost', { node, reason: reason.slice(0, 200) })
  }

  /** One look of a waiting connect. */
  #look(set: LaneSet, request: PathRequest, since: WaitStart): PathUse | undefined {
    if (this.#stopped) throw new SharedVerbsError('draining', `the broker stops; node ${request.node} is not sought`)
    if (!request.isWanted())
      throw new SharedVerbsError('closed', `the session left while node ${request.node} was sought`)
    const nowMs = this.#options.clock.nowMs()
    const waitedMs = nowMs - since.nowMs
    throwIfFinal(set.peer.failure, since.peer, waitedMs)
    throwIfFinal(set.failure, since.set, waitedMs)
    const lastChance = nowMs >= request.deadlineMs
    const { link } = set.peer
    if (!lastChance) this.#advance(set)
    if (set.reaping) return undefined
    const lane = set.choose(link?.lanes ?? 1, lastChance)
    return lane ? new LaneUse(set, lane.index, (of) => this.#settle(of)) : undefined
  }

  #advance(set: LaneSet): void {
    const { peer, job } = set
    const { link } = peer
    if (!link) peer.pursue()
    if (!link?.domains.want(job) || set.reaping || set.isComplete(link.lanes)) return
    const waitMs = set.notBeforeMs - this.#options.clock.nowMs()
    if (waitMs > 0) this.#retryLater(set, waitMs)
    else if (link.handshake.decides) this.#open(set)
    else if (!set.asked) {
      set.asked = true
      peer.send('lane-want', { job: job.name, userId: job.userId, trafficClass: set.trafficClass })
    }
  }

  #retryLater(set: LaneSet, waitMs: number): void {
    set.retry ??= this.#options.clock.after(waitMs, () => {
      set.retry = null
      this.pursue(set)
      set.peer.condition.notify()
    })
  }

  #open(set: LaneSet): void {
    const { link } = set.peer
    if (!link || set.opening || set.reaping || set.closed) return
    set.opening = this.#opener
      .openMissing(set, link)
      .then(
        () => undefined,
        (error) => error as unknown,
      )
      .then((error) => {
        set.opening = null
        set.peerWants = false
        if (error === undefined) this.#settle(set)
        else this.setFailed(set, error)
      })
  }

  /** Waiters look again; what is missing is pursued; idleness is watched. */
  #settle(set: LaneSet): void {
    set.peer.condition.notify()
    this.pursue(set)
  }

  #wanted(peer: Peer, body: LaneBody): void {
    const set = this.#setOf(peer, body)
    const { link } = peer
    if (!set || !link?.handshake.decides || !link.domains.isOpen(set.job)) return
    if (set.isComplete(link.lanes)) return
    set.peerWants = true
    this.#open(set)
  }

  #offered(peer: Peer, body: LinkMessageBody<'lane-open'>): void {
    const { link } = peer
    const set = this.#setOf(peer, body)
    if (!set || !link || link.handshake.decides || !link.domains.isOpen(set.job)) {
      const { job, userId, trafficClass, lane, incarnation } = body
      const message = `job ${job} is not open between the two nodes`
      peer.send('lane-refused', { job, userId, trafficClass, lane, incarnation, code: 'no-such-object', message })
      return
    }
    void this.#opener.answer(set, link, body)
  }

  #refused(peer: Peer, body: LinkMessageBody<'lane-refused'>): void {
    const error = laneRefusal(peer, body)
    const lane = this.#find(peer, body)
    const set = this.#knownSet(peer, body)
    lane?.giveUp(error)
    if (lane) void this.#lost(lane, error.message, false)
    else if (set?.asked) this.setFailed(set, error)
  }

  #failedThere(peer: Peer, body: LinkMessageBody<'lane-failed'>): void {
    const lane = this.#find(peer, body)
    const set = this.#knownSet(peer, body)
    if (lane) void this.#lost(lane, body.reason, false)
    else if (set?.asked) this.setFailed(set, new SharedVerbsError('path-lost', `node ${peer.node}: ${body.reason}`))
  }

  #askedToReap(peer: Peer, body: NamedLane): void {
    const lane = this.#find(peer, body)
    if (lane) void this.#reaper.answer(lane)
    // Whoever has no such lane has nothing against its end.
    else peer.send('lane-reaped', { ...body, agreed: true })
  }

  #lost(lane: Lane, reason: string, tellPeer: boolean): Promise<void> {
    if (lane.state === 'gone') return lane.removal ?? Promise.resolve()
    const { set } = lane
    const { node } = set.peer
    const wasUp = lane.state !== 'opening'
    this.#options.observer.note('lane-lost', `lane ${lane.index} of job ${set.job.name} to node ${node}: ${reason}`)
    if (tellPeer) this.#tellLost(lane, reason)
    lane.giveUp(new SharedVerbsError('path-lost', `lane ${lane.index} to node ${node} was lost: ${reason}`))
    const removal = this.#maker.destroy(lane, reason.slice(0, 200))
    if (wasUp) {
      set.suspended ||= set.uses.size > 0
      this.#tellPathLost(set, reason)
    }
    set.failed(new SharedVerbsError('path-lost', reason), this.#options.clock.nowMs(), this.#options.random)
    return removal.then(() => this.#settle(set))
  }

  #tellLost(lane: Lane, reason: string): void {
    const { peer } = lane.set
    const body = { ...lane.name, reason: reason.slice(0, 200) }
    if (peer.link) {
      peer.send('lane-failed', body)
      return
    }
    const untold = this.#untold.get(peer) ?? new Map<number, LinkMessageBody<'lane-failed'>>()
    untold.set(lane.shared, body)
    this.#untold.set(peer, untold)
  }

  async #endLanes(set: LaneSet, reason: string): Promise<void> {
    set.asked = false
    await Promise.all([...set.lanes.values()].map((lane) => this.#lost(lane, reason, false)))
    await Promise.all(set.leaving.values())
  }

  async #endSet(set: LaneSet, reason: string): Promise<void> {
    set.closed = true
    set.cancelTimers()
    this.#watchGrace(set)
    await this.#endLanes(set, reason)
    await set.opening
    set.cancelTimers()
    await this.#endLanes(set, reason)
  }

  async #tellDatagramPath(lane: Lane): Promise<void> {
    const { set } = lane
    await this.#options.engine.call('add-datagram-path', {
      job: set.job.number,
      peer: set.peer.row,
      lane: lane.row,
      trafficClass: set.trafficClass,
    })
  }

  /** What the deadline found missing. */
  #late(set: LaneSet): SharedVerbsError {
    const { peer, job } = set
    const { node } = peer
    if (!peer.link) {
      return peer.failure?.error ?? new SharedVerbsError('peer-unreachable', `node ${node} did not answer`, { node })
    }
    if (peer.link.domains.isMissing(job)) {
      const message = `job ${job.name} has no member on node ${node} yet; start its processes there or wait longer`
      return new SharedVerbsError('timeout', message, { node, job: job.name })
    }
    const why = set.failure ? `: ${set.failure.error.message}` : ''
    return new SharedVerbsError('timeout', `lanes to node ${node} did not come up in time${why}`, { node })
  }

  #ofPeer(peer: Peer): LaneSet[] {
    return [...this.#sets.values()].filter((set) => set.peer === peer)
  }

  #set(job: Job, peer: Peer, trafficClass: number): LaneSet {
    const key = setKey(job, peer, trafficClass)
    const known = this.#sets.get(key) ?? new LaneSet(job, peer, trafficClass)
    this.#sets.set(key, known)
    return known
  }

  #setOf(peer: Peer, { job: name, userId, trafficClass }: LaneBody): LaneSet | undefined {
    const job = this.#options.findJob({ name, userId })
    return job && this.#set(job, peer, trafficClass)
  }

  #forget(set: LaneSet): void {
    set.cancelTimers()
    set.grace?.cancel()
    set.grace = null
    const key = setKey(set.job, set.peer, set.trafficClass)
    // A late word about a set that was forgotten must not take its successor along.
    if (this.#sets.get(key) === set) this.#sets.delete(key)
  }

  #knownSet(peer: Peer, { job: name, userId, trafficClass }: LaneBody): LaneSet | undefined {
    const job = this.#options.findJob({ name, userId })
    return job && this.#sets.get(setKey(job, peer, trafficClass))
  }

  #find(peer: Peer, body: NamedLane): Lane | undefined {
    const lane = this.#knownSet(peer, body)?.lanes.get(body.lane)
    return lane?.shared === body.incarnation ? lane : undefined
  }
}

const setKey = (job: Job, peer: Peer, trafficClass: number): string => `${job.number} ${peer.row} ${trafficClass}`

function throwIfFinal(
  failure: { error: SharedVerbsError; serial: number } | null,
  since: number,
  waitedMs: number,
): void {
  if (!failure || failure.serial <= since) return
  const { error } = failure
  const mistaken = error.code === 'peer-unknown' && waitedMs >= UNKNOWN_GRACE_MS
  if (mistaken || finalCodes.has(error.code)) throw error
}
