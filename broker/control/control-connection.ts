/**
 * One connection of a client: envelopes in, replies out. Every message is checked by the codec before anybody looks at it; requests
 * under way and garbage are both bounded; the same request id is answered the same way again.
 */
import { decodeClientMessage, encodeFailure, encodeReply, requestIdOf } from '../../protocol/codec.js'
import type { CheckedBody, RequestName } from '../../protocol/control.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import type { CloseReason, SeqpacketConnection } from '../../shm/seqpacket.js'
import type { Session } from '../sessions/session.js'
import { draining } from '../sessions/sessions.js'
import { attach } from './attach-request.js'
import type { Timer } from './clock.js'
import type { ControlPlane } from './control-plane.js'
import { toFailure } from './failure.js'
import { handlers, servedWhileDraining } from './handlers.js'
import { sessionBounds } from './limits.js'
import { ReplyMemory } from './reply-memory.js'
import type { Answer, Handler, SessionRequestName } from './request-handler.js'

/** Under this a message is refused that does not even say which request it is; clients number theirs from 1. */
const noRequest = 0

const noDescriptors = (): readonly number[] => []

export class ControlConnection {
  session: Session | null = null
  readonly #connection: SeqpacketConnection
  readonly #plane: ControlPlane
  readonly #replies = new ReplyMemory()
  readonly #attachTimer: Timer
  readonly #onEnd: () => void
  #attaching = false
  #outstanding = 0
  #garbage = 0

  constructor(plane: ControlPlane, connection: SeqpacketConnection, onEnd: () => void) {
    this.#plane = plane
    this.#connection = connection
    this.#onEnd = onEnd
    this.#attachTimer = plane.clock.after(sessionBounds.attachTimeoutMs, () => connection.close())
    connection.start({
      onMessage: (message) => this.#receive(message),
      onClose: (reason) => this.#closed(reason),
    })
  }

  get attached(): boolean {
    return this.session !== null
  }

  close(): void {
    this.#connection.close()
  }

  #receive(message: Uint8Array): void {
    this.#plane.observer.count('control-requests')
    try {
      const { id, name, body } = decodeClientMessage(message)
      this.#request(id, name, body)
    } catch (error) {
      this.#refuseGarbage(Math.max(noRequest, requestIdOf(message)), toFailure(error))
    }
  }

  #request(id: number, name: RequestName, body: unknown): void {
    if ((name === 'attach') === (this.attached || this.#attaching)) {
      const message = name === 'attach' ? 'attach came twice' : `${name} came before attach; attach first`
      throw new SharedVerbsError('protocol-violation', message)
    }
    if (this.#outstanding >= sessionBounds.outstandingRequests) this.#refuseMore(id)
    else if (!this.#replies.begin(id)) this.#repeat(id)
    else {
      this.#outstanding++
      void this.#answer(id, name, body).finally(() => this.#outstanding--)
    }
  }

  async #answer(id: number, name: RequestName, body: unknown): Promise<void> {
    try {
      const answer = name === 'attach' ? await this.#attach(body) : await this.#handle(name, body)
      const descriptors = answer.descriptors ?? noDescriptors
      const message = encodeReply(id, answer.result)
      this.#replies.end(id, { message, descriptors })
      this.#connection.send(message, descriptors() ?? [])
    } catch (error) {
      this.#fail(id, name, error)
    }
  }

  async #attach(body: unknown): Promise<Answer<'attach'>> {
    this.#attaching = true
    try {
      const { session, answer } = await attach(this.#plane, this.#connection, body as CheckedBody<'attach'>)
      this.session = session
      this.#attachTimer.cancel()
      // The client may have gone while its session was made.
      if (!this.#connection.open) this.#hungUp(session)
      return answer
    } finally {
      this.#attaching = false
    }
  }

  async #handle<Name extends SessionRequestName>(name: Name, body: unknown): Promise<Answer<Name>> {
    const { session } = this
    if (!session?.served) throw new SharedVerbsError('closed', `${name} refused: this session has been detached`)
    if (this.#plane.draining && !servedWhileDraining.has(name)) throw draining(name)
    // The codec has checked the body against the definition of exactly this request.
    const handler = handlers[name] as unknown as Handler<Name>
    return await handler(this.#plane, session, body as CheckedBody<Name>)
  }

  #fail(id: number, name: RequestName, error: unknown): void {
    const failure = toFailure(error)
    this.#plane.observer.count('control-refusals')
    if (failure.category === 'internal') this.#plane.observer.report(error, name)
    const message = encodeFailure(id, failure)
    this.#replies.end(id, { message, descriptors: noDescriptors })
    this.#connection.send(message)
  }

  #repeat(id: number): void {
    const again = this.#replies.repeat(id)
    if (again) this.#connection.send(again.message, again.descriptors)
  }

  #refuseMore(id: number): void {
    const maximum = sessionBounds.outstandingRequests
    const message = `request ${id} refused: ${maximum} requests of this session are under way; wait for some to end`
    this.#plane.observer.count('control-refusals')
    this.#connection.send(encodeFailure(id, new SharedVerbsError('limit-exceeded', message, { maximum })))
  }

  /** Told, counted, and after too much of it the connection ends. */
  #refuseGarbage(id: number, failure: SharedVerbsError): void {
    this.#plane.observer.count('control-refusals')
    const who = `process ${this.#connection.peer.pid}`
    this.#plane.observer.report(failure, who)
    this.#connection.send(encodeFailure(id, failure))
    this.#garbage++
    if (this.#garbage < sessionBounds.garbageMessages) return
    this.#plane.observer.note('session-cut-off', `${who} sent ${this.#garbage} messages that make no sense`)
    this.#connection.close()
  }

  #closed(reason: CloseReason): void {
    this.#attachTimer.cancel()
    if (reason === 'send-queue-full') {
      this.#plane.observer.note('session-cut-off', `process ${this.#connection.peer.pid} does not read`)
    }
    if (this.session) this.#hungUp(this.session)
    this.#onEnd()
  }

  #hungUp(session: Session): void {
    const { sessions, observer } = this.#plane
    sessions.hungUp(session).catch((error) => observer.report(error, `member ${session.member}`))
  }
}
