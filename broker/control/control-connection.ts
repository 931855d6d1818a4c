/**
 * One connection of a client: envelopes in, replies out. Every message is checked by the codec before anybody looks at it; requests
 * under way and garbage are both bounded; the same request id is answered the same way again.
 */
import { decodeClientMessage, encodeFailure, encodeReply, requestIdOf } from '../../protocol/codec.js'
import { type CheckedBody, type RequestName, requests } from '../../protocol/control.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import { closeDescriptor } from '../../shm/libc.js'
import { type CloseReason, ReceivedDescriptors, type SeqpacketConnection } from '../../shm/seqpacket.js'
import type { Session } from '../sessions/session.js'
import { draining } from '../sessions/sessions.js'
import { attach } from './attach-request.js'
import type { Timer } from './clock.js'
import type { ControlPlane } from './control-plane.js'
import { toFailure } from './failure.js'
import { handlers, servedBeforeResumption, servedWhileDraining } from './handlers.js'
import { handover } from './handover-request.js'
import { sessionBounds } from './limits.js'
import { reattach } from './reattach-requests.js'
import { ReplyMemory } from './reply-memory.js'
import type { Answer, Handler, OpeningName, SessionRequestName } from './request-handler.js'

/** Under this a message is refused that does not even say which request it is; clients number theirs from 1. */
const noRequest = 0

const isOpening = (name: RequestName): name is OpeningName =>
  name === 'attach' || name === 'reattach' || name === 'handover'

const noDescriptors = (): readonly number[] => []

export class ControlConnection {
  session: Session | null = null
  readonly #connection: SeqpacketConnection
  readonly #plane: ControlPlane
  readonly #replies = new ReplyMemory()
  readonly #attachTimer: Timer
  readonly #onEnd: () => void
  #opening = false
  #outstanding = 0
  #garbage = 0
  #postponed = 0

  constructor(plane: ControlPlane, connection: SeqpacketConnection, onEnd: () => void) {
    this.#plane = plane
    this.#connection = connection
    this.#onEnd = onEnd
    this.#attachTimer = plane.clock.after(sessionBounds.attachTimeoutMs, () => connection.close())
    connection.start({
      onMessage: (message, descriptors) => this.#receive(message, descriptors),
      onClose: (reason) => this.#closed(reason),
    })
  }

  get attached(): boolean {
    return this.session !== null
  }

  close(): void {
    this.#connection.close()
  }

  #receive(message: Uint8Array, descriptors: ReceivedDescriptors): void {
    if (this.#plane.pause) {
      this.#postpone(this.#plane.pause, message, new ReceivedDescriptors(descriptors.takeAll()))
      return
    }
    this.#plane.observer.count('control-requests')
    try {
      const { id, name, body } = decodeClientMessage(message)
      const { presented } = requests[name]
      if (descriptors.count !== presented.length) {
        const text = `${requests[name].name} came with ${descriptors.count} descriptors, ${presented.length} belong to it`
        throw new SharedVerbsError('malformed-message', text)
      }
      this.#request(id, name, body, descriptors)
    } catch (error) {
      this.#refuseGarbage(Math.max(noRequest, requestIdOf(message)), toFailure(error))
    }
  }

  /** If this broker does not go on, the client asks the next one again. */
  #postpone(pause: Promise<boolean>, message: Uint8Array, descriptors: ReceivedDescriptors): void {
    if (this.#postponed >= sessionBounds.outstandingRequests) {
      descriptors.close()
      this.#connection.close()
      return
    }
    this.#postponed++
    void pause.then((goesOn) => {
      this.#postponed--
      if (goesOn) this.#receive(message, descriptors)
      descriptors.close()
    })
  }

  #request(id: number, name: RequestName, body: unknown, descriptors: ReceivedDescriptors): void {
    if (isOpening(name) === (this.attached || this.#opening)) {
      const message = isOpening(name) ? `${name} came twice` : `${name} came before attach; attach first`
      throw new SharedVerbsError('protocol-violation', message)
    }
    if (this.#outstanding >= sessionBounds.outstandingRequests) this.#refuseMore(id)
    else if (!this.#replies.begin(id)) this.#repeat(id)
    else {
      this.#outstanding++
      void this.#answer(id, name, body, descriptors.takeAll()).finally(() => this.#outstanding--)
    }
  }

  async #answer(id: number, name: RequestName, body: unknown, presented: readonly number[]): Promise<void> {
    try {
      const answer = isOpening(name)
        ? await this.#begin(name, body, presented)
        : await this.#handle(name, body, presented)
      const descriptors = answer.descriptors ?? noDescriptors
      const message = encodeReply(id, answer.result)
      this.#replies.end(id, { message, descriptors })
      this.#connection.send(message, descriptors() ?? [])
    } catch (error) {
      this.#fail(id, name, error)
    }
  }

  // The codec has checked the bodies against the definitions of exactly these requests.
  async #begin(name: OpeningName, body: unknown, presented: readonly number[]): Promise<Answer<RequestName>> {
    this.#opening = true
    try {
      if (name === 'handover') {
        this.#attachTimer.cancel()
        return await handover(this.#plane, this.#connection, body as CheckedBody<'handover'>)
      }
      const { session, answer } =
        name === 'attach'
          ? await attach(this.#plane, this.#connection, body as CheckedBody<'attach'>)
          : await reattach(this.#plane, this.#connection, body as CheckedBody<'reattach'>, presented)
      this.session = session
      this.#attachTimer.cancel()
      // The client may have gone while its session was made.
      if (!this.#connection.open) this.#hungUp(session)
      return answer
    } finally {
      this.#opening = false
    }
  }

  async #handle<Name extends SessionRequestName>(
    name: Name,
    body: unknown,
    presented: readonly number[],
  ): Promise<Answer<Name>> {
    const { session } = this
    const handler = handlers[name] as unknown as Handler<Name>
    try {
      if (session?.job.resumption && !servedBeforeResumption.has(name)) await session.job.resumption
      if (!session?.served) throw new SharedVerbsError('closed', `${name} refused: this session has been detached`)
      if (this.#plane.draining && !servedWhileDraining.has(name)) throw draining(name)
    } catch (error) {
      for (const descriptor of presented) closeDescriptor(descriptor)
      throw error
    }
    return await handler(this.#plane, session, body as CheckedBody<Name>, presented)
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
    if (this.#plane.gaveWay) return
    const { sessions, observer } = this.#plane
    sessions.hungUp(session).catch((error) => observer.report(error, `member ${session.member}`))
  }
}
