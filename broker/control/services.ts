/**
 * Names that sessions listen on, one listener for each (job, name), and the connections that wait for a listener's answer. Waiting
 * ones are bounded in number by the backlog and in time; what is not answered is rejected.
 */
import type { EventBody } from '../../protocol/control.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import { rejectReason } from '../../protocol/wire.js'
import type { EngineEvents } from '../engine/commands.js'
import type { Observer } from '../observe/observer.js'
import type { Session } from '../sessions/session.js'
import type { Clock, Timer } from './clock.js'
import type { Engine } from './engine.js'
import { sessionBounds } from './limits.js'

interface Listener {
  readonly session: Session
  readonly service: string
  readonly backlog: number
  readonly pending: Set<number>
}

interface Pending {
  readonly listener: Listener
  readonly timer: Timer
}

export interface ServicesOptions {
  readonly engine: Engine
  readonly clock: Clock
  readonly observer: Observer
}

/** How long a listener may think. The dialler's own deadline is usually shorter. */
const ANSWER_TIMEOUT_MS = 60_000

const listenerKey = (job: number, service: string): string => `${job} ${service}`

export class Services {
  readonly #options: ServicesOptions
  readonly #listeners = new Map<string, Listener>()
  readonly #pending = new Map<number, Pending>()

  constructor(options: ServicesOptions) {
    this.#options = options
    options.engine.on('connection-request', (request) => this.#requested(request))
  }

  /** Throws `name-in-use` when anybody of the job listens there. */
  listen(session: Session, service: string, backlog: number): void {
    const key = listenerKey(session.job.number, service)
    const taken = this.#listeners.get(key)
    if (taken) {
      throw new SharedVerbsError(
        'name-in-use',
        `service ${service} of job ${session.job.name} is listened on by member ${taken.session.member} here; ` +
          'choose another name or stop that listener',
        { service, member: taken.session.member },
      )
    }
    const own = [...this.#listeners.values()].filter((listener) => listener.session === session).length
    if (own >= sessionBounds.listeners) {
      throw new SharedVerbsError(
        'limit-exceeded',
        `this session listens on ${own} services already, at most ${sessionBounds.listeners} are possible; stop one`,
        { used: own, maximum: sessionBounds.listeners },
      )
    }
    this.#listeners.set(key, { session, service, backlog: Math.max(1, backlog), pending: new Set() })
  }

  unlisten(session: Session, service: string): void {
    const listener = this.#listeners.get(listenerKey(session.job.number, service))
    if (listener?.session !== session) {
      throw new SharedVerbsError('no-such-object', `this session does not listen on ${service}`, { service })
    }
    this.#end(listener)
  }

  /** A session leaves. May be repeated. */
  drop(session: Session): void {
    for (const listener of [...this.#listeners.values()]) if (listener.session === session) this.#end(listener)
  }

  /** Hands a waiting connection to whoever answers it; a second answer finds nothing. */
  take(session: Session, connection: number): void {
    const pending = this.#pending.get(connection)
    if (pending?.listener.session !== session) {
      throw new SharedVerbsError(
        'no-such-object',
        `connection ${connection} does not wait for this session; it was answered, withdrawn, or took too long`,
        { connection },
      )
    }
    this.#forget(connection, pending)
  }

  #requested(request: EngineEvents['connection-request']): void {
    const listener = this.#listeners.get(listenerKey(request.job, request.service))
    if (!listener?.session.served) this.#reject(request.connection, rejectReason.noListener)
    else if (listener.pending.size >= listener.backlog) this.#reject(request.connection, rejectReason.busy)
    else this.#offer(request, listener)
  }

  #offer(request: EngineEvents['connection-request'], listener: Listener): void {
    const timer = this.#options.clock.after(ANSWER_TIMEOUT_MS, () => this.#expire(request.connection))
    this.#pending.set(request.connection, { listener, timer })
    listener.pending.add(request.connection)
    const body: EventBody<'connection-request'> = {
      connection: request.connection,
      service: request.service,
      remote: { node: request.peerNode, ...request.remote },
    }
    listener.session.send('connection-request', body)
  }

  #expire(connection: number): void {
    const pending = this.#pending.get(connection)
    if (!pending) return
    this.#forget(connection, pending)
    this.#reject(connection, rejectReason.timeout)
  }

  #end(listener: Listener): void {
    this.#listeners.delete(listenerKey(listener.session.job.number, listener.service))
    for (const connection of [...listener.pending]) {
      const pending = this.#pending.get(connection)
      if (pending) this.#forget(connection, pending)
      this.#reject(connection, rejectReason.noListener)
    }
  }

  #forget(connection: number, pending: Pending): void {
    pending.timer.cancel()
    pending.listener.pending.delete(connection)
    this.#pending.delete(connection)
  }

  #reject(connection: number, reason: number): void {
    const { engine, observer } = this.#options
    engine
      .call('reject-connection', { connection, reason })
      .catch((error) => observer.report(error, `rejecting connection ${connection}`))
  }
}
