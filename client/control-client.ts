/**
 * The client's end of the control socket: numbered requests, their replies with descriptors, and events.
 *
 *   request(name, body) ──► [1, id, name, body] ──► broker
 *   result, descriptors ◄── [2, id, result]     ◄──┘
 *   failure             ◄── [3, id, error]                     onEvent ◄── [4, name, body]
 *
 * Every wait names its end: the reply, the request's deadline, its abort signal, or the end of the connection, which
 * fails all pending requests with `broker-lost`. A reply that comes after its request was given up is dropped and its
 * descriptors closed. The socket keeps the process alive only while a request is pending or somebody holds it.
 */
import { check, decodeBrokerMessage, encodeRequest, noRequestId } from '../protocol/codec.js'
import {
  type EventBody,
  type EventName,
  type RequestBody,
  type RequestName,
  type RequestResult,
  requests,
} from '../protocol/control.js'
import { SharedVerbsError, type WireError } from '../protocol/errors.js'
import { closeDescriptor } from '../shm/libc.js'
import { type CloseReason, type ReceivedDescriptors, SeqpacketConnection } from '../shm/seqpacket.js'

export interface RequestOptions {
  /** Deadline for the reply; `timeout` after it. */
  readonly timeoutMs?: number | undefined
  /** Gives the request up with `aborted`. The broker may carry it out all the same. */
  readonly signal?: AbortSignal | undefined
  /** False: the process may end before the reply. Default true. */
  readonly keepAlive?: boolean | undefined
}

export interface Reply<Name extends RequestName> {
  readonly result: RequestResult<Name>
  /** The caller's to close, as many as the request's definition names, in its order. */
  readonly descriptors: readonly number[]
}

export interface ControlHandlers {
  onEvent(name: EventName, body: EventBody<EventName>): void
  /** Once, when the connection ended without `close()`. All requests have failed by then. */
  onLost(error: SharedVerbsError): void
}

interface Pending {
  readonly name: RequestName
  settle(reply: Reply<RequestName> | SharedVerbsError): void
}

export const defaultRequestTimeoutMs = 30_000

export class ControlClient {
  readonly #connection: SeqpacketConnection
  readonly #handlers: ControlHandlers
  readonly #pending = new Map<number, Pending>()
  #nextId: number
  #holds = 0
  #ended: SharedVerbsError | undefined

  private constructor(connection: SeqpacketConnection, handlers: ControlHandlers, nextId: number) {
    this.#nextId = nextId
    this.#connection = connection
    this.#handlers = handlers
    connection.start({
      onMessage: (message, descriptors) => this.#receive(message, descriptors),
      onClose: (reason) => this.#close(reason),
    })
    connection.unref()
  }

  /** Throws the SystemCallError of connect(2) when nobody listens on `path`. */
  static connect(path: string, handlers: ControlHandlers): ControlClient {
    return new ControlClient(SeqpacketConnection.connect(path), handlers, 1)
  }

  /** Goes on with a connected socket on which requests before `nextId` were made. */
  static adopt(descriptor: number, nextId: number, handlers: ControlHandlers): ControlClient {
    return new ControlClient(new SeqpacketConnection(descriptor), handlers, nextId)
  }

  /** For whoever sleeps until the connection ends. */
  get descriptor(): number {
    return this.#connection.descriptor
  }

  /** Takes what has come, also the end: for a thread whose event loop is blocked. */
  readNow(): void {
    this.#connection.readNow()
  }

  /**
   * Sends a request and waits for its reply. Throws `invalid-argument` for a body the protocol does not allow,
   * `timeout`, `aborted`, `broker-lost`, and whatever the broker answers.
   */
  async request<Name extends RequestName>(
    name: Name,
    body: RequestBody<Name>,
    { timeoutMs = defaultRequestTimeoutMs, signal, keepAlive = true }: RequestOptions = {},
  ): Promise<Reply<Name>> {
    const checked = checkBody(name, body)
    if (this.#ended) throw this.#ended
    if (signal?.aborted) throw aborted(name)
    const id = this.#nextId++
    const message = encodeRequest(id, name, checked)
    const release = keepAlive ? this.hold() : () => {}
    try {
      return (await this.#exchange(id, name, message, { timeoutMs, signal, keepAlive })) as Reply<Name>
    } finally {
      release()
    }
  }

  /** Why the connection ended; undefined while it lives. */
  get ended(): SharedVerbsError | undefined {
    return this.#ended
  }

  /** Keeps the process alive until the returned function is called. */
  hold(): () => void {
    if (this.#holds++ === 0) this.#connection.ref()
    let held = true
    return () => {
      if (!held) return
      held = false
      if (--this.#holds === 0) this.#connection.unref()
    }
  }

  /** Ends the connection; pending requests fail with `closed`. May be called again. */
  close(): void {
    this.#end(new SharedVerbsError('closed', 'the session is closed'))
    this.#connection.close()
  }

  #exchange(
    id: number,
    name: RequestName,
    message: Uint8Array,
    { timeoutMs, signal, keepAlive }: RequestOptions & { readonly timeoutMs: number },
  ): Promise<Reply<RequestName>> {
    return new Promise((resolve, reject) => {
      const settle = (outcome: Reply<RequestName> | SharedVerbsError): void => {
        this.#pending.delete(id)
        clearTimeout(timer)
        signal?.removeEventListener('abort', abort)
        if (outcome instanceof SharedVerbsError) reject(outcome)
        else resolve(outcome)
      }
      const abort = (): void => settle(aborted(name))
      const timer = setTimeout(() => settle(timedOut(name, timeoutMs)), Math.min(timeoutMs, 0x7fffffff))
      if (!keepAlive) timer.unref()
      signal?.addEventListener('abort', abort, { once: true })
      this.#pending.set(id, { name, settle })
      // A send that fails is followed by the end of the connection, which settles the request with its reason.
      this.#connection.send(message)
    })
  }

  #receive(bytes: Uint8Array, descriptors: ReceivedDescriptors): void {
    try {
      const message = decodeBrokerMessage(bytes)
      if (message.kind === 'event') this.#handlers.onEvent(message.name, message.body)
      else if (message.kind === 'reply') this.#reply(message.id, message.result, descriptors)
      else this.#fail(message.id, message.error)
    } catch (error) {
      if (!(error instanceof SharedVerbsError)) throw error
      this.#end(error)
      this.#connection.close()
      this.#handlers.onLost(error)
    }
  }

  #reply(id: number, result: unknown, descriptors: ReceivedDescriptors): void {
    const pending = this.#pending.get(id)
    if (!pending) return
    const definition = requests[pending.name]
    if (descriptors.count !== definition.descriptors.length) {
      throw new SharedVerbsError(
        'protocol-violation',
        `reply to ${definition.name} has ${descriptors.count} descriptors, expected ${definition.descriptors.length}`,
      )
    }
    const checked = check(definition.result, result, `reply to ${definition.name}`)
    pending.settle({ result: checked as RequestResult<RequestName>, descriptors: descriptors.takeAll() })
  }

  #fail(id: number, wire: WireError): void {
    const error = SharedVerbsError.fromWire(wire)
    // Something of ours was unreadable there, so one of the pending requests would wait in vain: this ends them all.
    if (id === noRequestId) throw error
    this.#pending.get(id)?.settle(error)
  }

  #close(reason: CloseReason): void {
    if (this.#ended) return
    const error = new SharedVerbsError(
      'broker-lost',
      `the broker ended the connection (${reason}); look at \`broker status\` and attach again when one runs`,
      { reason },
    )
    this.#end(error)
    this.#handlers.onLost(error)
  }

  #end(error: SharedVerbsError): void {
    if (this.#ended) return
    this.#ended = error
    for (const pending of [...this.#pending.values()]) pending.settle(error)
  }
}

/** For replies that nobody can use: gives their descriptors back. */
export function closeAll(descriptors: readonly number[]): void {
  for (const fd of descriptors) closeDescriptor(fd)
}

export function checkBody<Name extends RequestName>(name: Name, body: RequestBody<Name>): unknown {
  const parsed = requests[name].body.safeParse(body)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  const path = issue?.path.join('.') ?? ''
  throw new SharedVerbsError('invalid-argument', `${requests[name].name}: ${path}: ${issue?.message ?? 'invalid'}`, {
    path,
    // A key never shows, not even a malformed one.
    ...(path === 'jobKey' ? {} : { value: valueAt(body, issue?.path ?? []) }),
  })
}

function valueAt(body: unknown, path: readonly PropertyKey[]): unknown {
  let value = body
  for (const step of path) value = (value as Record<PropertyKey, unknown> | undefined)?.[step]
  return value
}

export const aborted = (name: RequestName): SharedVerbsError =>
  new SharedVerbsError('aborted', `${requests[name].name} was given up by its caller`)

export const timedOut = (name: RequestName, timeoutMs: number): SharedVerbsError =>
  new SharedVerbsError(
    'timeout',
    `the broker did not answer ${requests[name].name} in ${timeoutMs} ms; look at \`broker status\``,
    { timeoutMs },
  )
