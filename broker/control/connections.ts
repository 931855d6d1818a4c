/** Connects queue pairs, by number or by service, here or on another node, and finds the way to nodes for datagrams. */
import type { QueuePairAddress, ServiceAddress } from '../../protocol/address.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import { rejectReason } from '../../protocol/wire.js'
import { thisNode } from '../engine/commands.js'
import type { Job } from '../sessions/job.js'
import type { QueuePair, QueuePairs } from '../sessions/queue-pair.js'
import type { Session } from '../sessions/session.js'
import type { ObjectIdentity } from '../sessions/shared-object.js'
import { localUse, type PathUse } from '../sharing/path-use.js'
import type { Sharing } from '../sharing/sharing.js'
import type { Clock } from './clock.js'
import type { Engine } from './engine.js'
import type { Services } from './services.js'

export interface ConnectionsOptions {
  readonly node: string
  readonly engine: Engine
  readonly clock: Clock
  readonly queuePairs: QueuePairs
  readonly services: Services
  readonly sharing: Sharing
}

/** Datagrams go by one class; a queue pair's own class chooses the lanes of its connection. */
const DATAGRAM_TRAFFIC_CLASS = 0
const LOST_LANE_PAUSE_MS = 5

export class Connections {
  readonly #options: ConnectionsOptions
  /** Ways that sessions asked for, until they leave. */
  readonly #datagramUses = new Map<Session, Map<string, PathUse>>()

  constructor(options: ConnectionsOptions) {
    this.#options = options
    const lost = (identity: ObjectIdentity): void => {
      const queuePair = options.queuePairs.byNumber(identity)
      if (queuePair) options.queuePairs.clearConnection(queuePair)
    }
    options.engine.on('queue-pair-error', lost)
    options.engine.on('queue-pair-disconnected', lost)
  }

  async connect(
    session: Session,
    identity: ObjectIdentity,
    remote: QueuePairAddress | ServiceAddress,
    timeoutMs: number,
  ): Promise<QueuePairAddress> {
    const queuePair = this.#options.queuePairs.held(session, identity)
    checkConnectable(queuePair)
    queuePair.connecting = true
    try {
      const deadlineMs = this.#options.clock.nowMs() + timeoutMs
      for (;;) {
        const use = await this.#use(session, remote.node, queuePair.trafficClass, deadlineMs)
        const connected = await this.#tryOver(session, queuePair, use, remote, deadlineMs)
        if (connected) return connected
      }
    } finally {
      queuePair.connecting = false
    }
  }

  /** A job goes on that an earlier broker left: its connections use their ways again, so that these are rebuilt. */
  resume(job: Job): void {
    const { queuePairs, sharing, node } = this.#options
    for (const queuePair of queuePairs.ofJob(job.number)) {
      const connection = queuePairs.connectionOf(queuePair)
      if (!connection || queuePair.removal || queuePair.connection) continue
      const { peer, lane } = connection
      const use = peer === thisNode ? localUse(node) : sharing.resume(queuePair, peer, lane)
      if (use) queuePairs.setConnection(queuePair, use)
    }
    sharing.jobAppeared(job)
  }

  async disconnect(session: Session, identity: ObjectIdentity, timeoutMs: number): Promise<void> {
    const queuePair = this.#options.queuePairs.held(session, identity)
    const { number, generation } = queuePair
    await this.#options.engine.call('disconnect-queue-pair', { number, generation, timeoutMs })
    this.#options.queuePairs.clearConnection(queuePair)
  }

  async accept(session: Session, connection: number, identity: ObjectIdentity): Promise<QueuePairAddress> {
    const { queuePairs, services, engine, sharing } = this.#options
    const queuePair = queuePairs.held(session, identity)
    checkConnectable(queuePair)
    services.take(session, connection)
    queuePair.connecting = true
    try {
      const { number, generation } = queuePair
      const { peer, ...remote } = await engine.call('accept-connection', { connection, number, generation })
      const use = peer === thisNode ? localUse(this.#options.node) : sharing.join(queuePair, peer)
      queuePairs.setConnection(queuePair, use)
      return { node: use.node, ...remote }
    } finally {
      queuePair.connecting = false
    }
  }

  async reject(session: Session, connection: number): Promise<void> {
    this.#options.services.take(session, connection)
    await this.#options.engine.call('reject-connection', { connection, reason: rejectReason.refused })
  }

  /** Prepares the way for datagrams of the session's job and returns the node's index. */
  async resolveNode(session: Session, node: string, timeoutMs: number): Promise<number> {
    const uses = this.#datagramUses.get(session) ?? new Map<string, PathUse>()
    this.#datagramUses.set(session, uses)
    const deadlineMs = this.#options.clock.nowMs() + timeoutMs
    const use = uses.get(node) ?? (await this.#use(session, node, DATAGRAM_TRAFFIC_CLASS, deadlineMs))
    const known = uses.get(node)
    if (known !== undefined && known !== use) use.release()
    else uses.set(node, use)
    if (!session.served) this.leave(session)
    else if (use.peer === thisNode) await this.#addLocalPath(session)
    else await this.#options.sharing.addDatagramPath(session.job, use.peer, deadlineMs)
    return use.peer
  }

  /** A session leaves. May be repeated. */
  leave(session: Session): void {
    for (const use of this.#datagramUses.get(session)?.values() ?? []) use.release()
    this.#datagramUses.delete(session)
  }

  #use(session: Session, node: string, trafficClass: number, deadlineMs: number): Promise<PathUse> {
    if (node === this.#options.node) return Promise.resolve(localUse(node))
    const isWanted = (): boolean => session.served
    return this.#options.sharing.acquire(session.job, { node, trafficClass, deadlineMs, isWanted })
  }

  /** Undefined: the lane was lost meanwhile, and there is time to try another. */
  async #tryOver(
    session: Session,
    queuePair: QueuePair,
    use: PathUse,
    remote: QueuePairAddress | ServiceAddress,
    deadlineMs: number,
  ): Promise<QueuePairAddress | undefined> {
    try {
      return await this.#connectOver(queuePair, use, remote, deadlineMs)
    } catch (error) {
      const lost = error instanceof SharedVerbsError && error.code === 'path-lost'
      const again = lost && !queuePair.removal && session.served && this.#options.clock.nowMs() < deadlineMs
      if (!again) throw error
      // The engine may know of the loss a moment before the lane is given up here.
      await new Promise<void>((resolve) => this.#options.clock.after(LOST_LANE_PAUSE_MS, resolve))
      return undefined
    }
  }

  async #connectOver(
    queuePair: QueuePair,
    use: PathUse,
    remote: QueuePairAddress | ServiceAddress,
    deadlineMs: number,
  ): Promise<QueuePairAddress> {
    try {
      const found = await this.#options.engine.call('connect-queue-pair', {
        number: queuePair.number,
        generation: queuePair.generation,
        lane: use.lane,
        peer: use.peer,
        remote:
          'service' in remote ? { service: remote.service } : { number: remote.number, generation: remote.generation },
        timeoutMs: Math.max(0, deadlineMs - this.#options.clock.nowMs()),
      })
      this.#options.queuePairs.setConnection(queuePair, use)
      return { node: remote.node, number: found.number, generation: found.generation }
    } catch (error) {
      use.release()
      throw error
    }
  }

  async #addLocalPath(session: Session): Promise<void> {
    await this.#options.engine.call('add-datagram-path', {
      job: session.job.number,
      peer: thisNode,
      lane: null,
      trafficClass: DATAGRAM_TRAFFIC_CLASS,
    })
  }
}

function checkConnectable(queuePair: QueuePair): void {
  const what = `queue pair ${queuePair.number}`
  if (queuePair.type !== 'connected') {
    throw new SharedVerbsError('unsupported', `${what} is a datagram queue pair; name the destination in each request`)
  }
  if (queuePair.connecting) {
    throw new SharedVerbsError('busy', `${what} is being connected already; wait for that to end`)
  }
  if (queuePair.connection) {
    throw new SharedVerbsError('already-connected', `${what} is connected; disconnect it first or use another`)
  }
}
