/**
 * One TLS connection to another broker: link messages in, link messages out, one end. It knows nothing of who is right.
 * A peer that does not read is cut off when too much waits for it; one that sends nonsense is cut off at once.
 */
import type { TLSSocket } from 'node:tls'
import { SharedVerbsError } from '../../protocol/errors.js'
import {
  decodeLinkMessage,
  encodeLinkMessage,
  type LinkMessage,
  type LinkMessageBody,
  type LinkMessageName,
} from '../../protocol/link.js'
import { encodeFrame, FrameReader } from './frames.js'
import { meansWrongKey } from './link-security.js'
import { printAddress } from './peer-addresses.js'

export interface LinkHandlers {
  onMessage(message: LinkMessage): void
  /** Once. Without a failure: the end was wanted, here or there. */
  onEnd(failure: SharedVerbsError | null): void
}

const LONGEST_QUEUE_BYTES = 1 << 20
/** Time for the last words to leave. */
const LINGER_MS = 1000

export class LinkConnection {
  /** True: this side dialled. */
  readonly dialled: boolean
  readonly #socket: TLSSocket
  readonly #frames = new FrameReader()
  #handlers: LinkHandlers | null = null
  #ended = false
  #secure = false
  /** Said before the connection is secure, at most a hello: a write that fails there would hide why. */
  readonly #early: Uint8Array[] = []

  constructor(socket: TLSSocket, dialled: boolean) {
    this.#socket = socket
    this.dialled = dialled
    this.#secure = !dialled
    socket.setNoDelay(true)
    socket.on('secureConnect', () => {
      this.#secure = true
      for (const frame of this.#early.splice(0)) socket.write(frame)
    })
    socket.on('data', (chunk: Uint8Array) => this.#receive(chunk))
    socket.on('error', (error) => this.#end(this.#failureOf(error)))
    socket.on('end', () => this.#end(null))
    socket.on('close', () => this.#end(null))
  }

  get open(): boolean {
    return !this.#ended
  }

  get remoteHost(): string {
    return this.#socket.remoteAddress ?? ''
  }

  get remoteAddress(): string {
    const { remoteAddress, remotePort } = this.#socket
    return remoteAddress === undefined ? '' : printAddress({ host: remoteAddress, port: remotePort ?? 0 })
  }

  start(handlers: LinkHandlers): void {
    this.#handlers = handlers
  }

  send<Name extends LinkMessageName>(name: Name, body: LinkMessageBody<Name>): void {
    if (this.#ended) return
    const frame = encodeFrame(encodeLinkMessage(name, body))
    if (this.#secure) this.#socket.write(frame)
    else this.#early.push(frame)
    if (this.#socket.writableLength <= LONGEST_QUEUE_BYTES) return
    this.#end(new SharedVerbsError('peer-unreachable', `${this.remoteAddress} does not read what it is sent`))
  }

  /** Lets what was sent leave, then ends. May be repeated. */
  close(): void {
    this.#end(null)
  }

  #receive(chunk: Uint8Array): void {
    if (this.#ended) return
    try {
      for (const message of this.#frames.push(chunk)) {
        if (this.#ended) return
        this.#handlers?.onMessage(decodeLinkMessage(message))
      }
    } catch (error) {
      if (!(error instanceof SharedVerbsError)) throw error
      this.#end(error)
    }
  }

  #end(failure: SharedVerbsError | null): void {
    if (this.#ended) return
    this.#ended = true
    if (failure) this.#socket.destroy()
    else this.#finish()
    this.#handlers?.onEnd(failure)
  }

  #finish(): void {
    const timer = setTimeout(() => this.#socket.destroy(), LINGER_MS)
    timer.unref()
    this.#socket.once('close', () => clearTimeout(timer))
    this.#socket.end(() => this.#socket.destroySoon())
  }

  #failureOf(error: Error): SharedVerbsError {
    if (!this.#secure && meansWrongKey(error)) {
      const message = `${this.remoteAddress} knows another cluster key; give all brokers the same`
      return new SharedVerbsError('wrong-cluster-key', message, {}, error)
    }
    const reason = (error as NodeJS.ErrnoException).code ?? error.message
    return new SharedVerbsError('peer-unreachable', `the link failed: ${reason}`, { reason }, error)
  }
}
