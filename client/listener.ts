/**
 * A listener: for each connection to a service name makes a queue pair, lets the application post receives, accepts.
 *
 *   connection-request ─► create queue pair ─► onQueuePair(qp) ─► accept-connection ─► queue ─► accept(), for await
 *
 * Connections are accepted as they come, at most `backlog` ahead of the application; further ones wait at the broker.
 */
import type { SharedVerbsError } from '../protocol/errors.js'
import type { QueuePair } from './queue-pair.js'
import type { QueuePairOptions, Session } from './session.js'

export interface ListenOptions extends QueuePairOptions {
  readonly type?: 'connected'
  /** Connections that may wait for the application. Default 128. */
  readonly backlog?: number
  /**
   * Called with each new queue pair before its connection is accepted: post receives here. A rejection refuses the
   * connection.
   */
  readonly onQueuePair?: (queuePair: QueuePair) => void | Promise<void>
}

interface Waiter {
  resolve(queuePair: QueuePair | undefined): void
  reject(error: SharedVerbsError): void
}

export class Listener implements AsyncIterable<QueuePair> {
  readonly service: string
  /** @internal The broker has confirmed it. */
  registered = false
  readonly #session: Session
  readonly #options: ListenOptions
  readonly #backlog: number
  readonly #forget: () => void
  /** Connection requests that have no queue pair yet. */
  readonly #requests: number[] = []
  /** Connected, and not yet taken by the application. */
  readonly #ready: QueuePair[] = []
  readonly #waiters: Waiter[] = []
  #accepting = 0
  #ended: { readonly error: SharedVerbsError | undefined } | undefined
  #closing: Promise<void> | undefined

  /** @internal Applications call `session.listen`. */
  constructor(session: Session, service: string, backlog: number, options: ListenOptions, forget: () => void) {
    this.#session = session
    this.service = service
    this.#options = options
    this.#backlog = Math.max(1, backlog)
    this.#forget = forget
  }

  /**
   * The next connected queue pair; undefined once the listener is closed. Rejects with `broker-lost`. Keeps the
   * process alive.
   */
  async accept(): Promise<QueuePair | undefined> {
    const ready = this.#ready.shift()
    if (ready) {
      this.#work()
      return ready
    }
    if (this.#ended?.error) throw this.#ended.error
    if (this.#ended) return undefined
    const release = this.#session.attachment.hold()
    try {
      return await new Promise<QueuePair | undefined>((resolve, reject) => this.#waiters.push({ resolve, reject }))
    } finally {
      release()
    }
  }

  /** Yields connected queue pairs until the listener is closed. Leaving the loop does not close it. */
  async *[Symbol.asyncIterator](): AsyncGenerator<QueuePair, void, undefined> {
    for (let queuePair = await this.accept(); queuePair; queuePair = await this.accept()) yield queuePair
  }

  /** Frees the name; iterations end. Connected queue pairs that nobody took are closed. May be called again. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  /** @internal */
  connectionRequest(connection: number): void {
    this.#requests.push(connection)
    this.#work()
  }

  /** @internal Another broker: connections that waited at the old one are made again by whoever wanted them. */
  listenAgain(): void {
    this.#requests.length = 0
    if (!this.registered || this.#ended) return
    const body = { service: this.service, backlog: this.#backlog }
    this.#session.attachment.request('listen', body, { keepAlive: false }).catch((error) => this.end(error))
  }

  /** @internal The session ended. */
  end(error?: SharedVerbsError): void {
    if (this.#ended) return
    this.#ended = { error }
    this.#forget()
    for (const waiter of this.#waiters.splice(0)) {
      if (error) waiter.reject(error)
      else waiter.resolve(undefined)
    }
  }

  async #close(): Promise<void> {
    const { attachment } = this.#session
    const wasOpen = this.#ended === undefined
    this.end()
    if (wasOpen && !attachment.ended) await attachment.request('unlisten', { service: this.service })
    for (const connection of this.#requests.splice(0)) this.#reject(connection)
    await Promise.all(this.#ready.splice(0).map((queuePair) => queuePair.close()))
  }

  #work(): void {
    while (!this.#ended && this.#ready.length + this.#accepting < this.#backlog) {
      const connection = this.#requests.shift()
      if (connection === undefined) return
      this.#accepting++
      void this.#accept(connection).finally(() => {
        this.#accepting--
        this.#work()
      })
    }
  }

  async #accept(connection: number): Promise<void> {
    const { attachment } = this.#session
    let queuePair: QueuePair | undefined
    try {
      queuePair = await this.#session.createQueuePair({ ...this.#options, type: 'connected' })
      await this.#options.onQueuePair?.(queuePair)
      const { number, generation } = queuePair
      const body = { connection, number, generation }
      const { result } = await attachment.request('acceptConnection', body, { done: queuePair.whenConnected })
      queuePair.connectedTo(result.remote)
    } catch {
      // The peer went away, or a limit of ours was met: the peer is told, others go on.
      this.#reject(connection)
      queuePair?.close().catch(() => undefined)
      return
    }
    this.#deliver(queuePair)
  }

  #deliver(queuePair: QueuePair): void {
    if (this.#ended) {
      queuePair.close().catch(() => undefined)
      return
    }
    const waiter = this.#waiters.shift()
    if (waiter) waiter.resolve(queuePair)
    else this.#ready.push(queuePair)
  }

  #reject(connection: number): void {
    this.#session.attachment.request('rejectConnection', { connection }).catch(() => undefined)
  }
}
