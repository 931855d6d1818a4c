/** A client of the control socket that says exactly what a test tells it, also nonsense. */
import { type BrokerMessage, decodeBrokerMessage, encodeRequest } from '../../../protocol/codec.js'
import type { EventName, RequestBody, RequestName, RequestResult } from '../../../protocol/control.js'
import { SharedVerbsError } from '../../../protocol/errors.js'
import { controlSocketPath } from '../../../protocol/paths.js'
import { abiVersion, clientFingerprint } from '../../../protocol/version.js'
import { closeDescriptor } from '../../../shm/libc.js'
import { LivenessToken } from '../../../shm/liveness.js'
import { SeqpacketConnection } from '../../../shm/seqpacket.js'
import type { Scope } from '../../support/temporary-directory.js'
import { until } from '../../support/until.js'

export interface Received<Name extends RequestName> {
  readonly result: RequestResult<Name>
  readonly descriptors: number[]
}

type Outcome = { readonly message: BrokerMessage; readonly descriptors: number[] }

export class RawClient {
  readonly events: Extract<BrokerMessage, { kind: 'event' }>[] = []
  readonly outcomes: Outcome[] = []
  readonly #connection: SeqpacketConnection
  readonly #waiting = new Map<number, (outcome: Outcome) => void>()
  #nextId = 1
  #token: LivenessToken | null = null
  closed = false

  constructor(scope: Scope, runtimeDirectory: string) {
    this.#connection = SeqpacketConnection.connect(controlSocketPath(runtimeDirectory))
    this.#connection.start({
      onMessage: (bytes, descriptors) => {
        const message = decodeBrokerMessage(bytes)
        if (message.kind === 'event') {
          this.events.push(message)
          return
        }
        const outcome = { message, descriptors: descriptors.takeAll() }
        this.outcomes.push(outcome)
        this.#waiting.get(message.id)?.(outcome)
      },
      onClose: () => {
        this.closed = true
      },
    })
    scope.teardown(() => this.end())
  }

  /** Sends a request and gives its result; throws its failure. Descriptors are closed with the client. */
  async ask<Name extends RequestName>(
    name: Name,
    body: RequestBody<Name>,
    id = this.#nextId++,
    presented: readonly number[] = [],
  ): Promise<Received<Name>> {
    const answered = new Promise<Outcome>((resolve) => this.#waiting.set(id, resolve))
    this.#connection.send(encodeRequest(id, name, body), presented)
    const { message, descriptors } = await answered
    if (message.kind === 'failure') throw SharedVerbsError.fromWire(message.error)
    if (message.kind !== 'reply') throw new Error('an event is no answer')
    return { result: message.result as RequestResult<Name>, descriptors }
  }

  sendBytes(bytes: Uint8Array): void {
    this.#connection.send(bytes)
  }

  async attach(job = 'job', jobKey = 'key'): Promise<Received<'attach'>> {
    const body = { abiVersion, fingerprint: clientFingerprint, job, jobKey, name: 'raw', processId: process.pid }
    const attached = await this.ask('attach', body)
    this.#token = LivenessToken.hold(attached.descriptors[2] ?? -1, attached.result.member)
    return attached
  }

  /** The same with descriptors beside it. */
  present<Name extends RequestName>(
    name: Name,
    body: RequestBody<Name>,
    presented: readonly number[],
  ): Promise<Received<Name>> {
    return this.ask(name, body, this.#nextId++, presented)
  }

  event(name: EventName): Promise<Extract<BrokerMessage, { kind: 'event' }>> {
    const what = { timeoutMs: 10_000, what: `event ${name}` }
    return until(() => this.events.find((event) => event.name === name), what)
  }

  get token(): LivenessToken {
    if (!this.#token) throw new Error('not attached')
    return this.#token
  }

  /** Closes the socket, keeps the token: a living process that hung up. */
  hangUp(): void {
    this.#connection.close()
  }

  releaseToken(): void {
    this.#token?.release()
  }

  end(): void {
    this.hangUp()
    this.releaseToken()
    for (const { descriptors } of this.outcomes.splice(0)) for (const fd of descriptors) closeDescriptor(fd)
  }
}
