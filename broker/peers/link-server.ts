/** The port on which other brokers knock. Strangers are bounded in number and time; a wrong key is told and counted. */
import { createServer, type Server, type TLSSocket } from 'node:tls'
import { SharedVerbsError } from '../../protocol/errors.js'
import { limits } from '../../protocol/limits.js'
import { meansWrongKey, preSharedKey, pskIdentity, tlsSettings } from './link-security.js'

export interface LinkServerOptions {
  readonly host: string
  readonly port: number
  readonly clusterKey: string
  onConnection(socket: TLSSocket): void
  onRefusal(error: SharedVerbsError): void
}

const HANDSHAKE_TIMEOUT_MS = 5000
const STRANGERS = 64

export class LinkServer {
  readonly #server: Server
  readonly #sockets = new Set<TLSSocket>()
  readonly #options: LinkServerOptions

  private constructor(options: LinkServerOptions) {
    this.#options = options
    const key = preSharedKey(options.clusterKey)
    const pskCallback = (_socket: TLSSocket, identity: string): Buffer | null => (identity === pskIdentity ? key : null)
    const settings = { ...tlsSettings, pskIdentityHint: pskIdentity, handshakeTimeout: HANDSHAKE_TIMEOUT_MS }
    this.#server = createServer({ ...settings, pskCallback }, (socket) => this.#accept(socket))
    this.#server.maxConnections = limits.peers * 2 + STRANGERS
    this.#server.on('tlsClientError', (error, socket) => this.#refused(error, socket.remoteAddress))
  }

  /** Throws `port-in-use`, or `invalid-argument` for an address that is not this node's. */
  static async listen(options: LinkServerOptions): Promise<LinkServer> {
    const server = new LinkServer(options)
    await new Promise<void>((resolve, reject) => {
      server.#server.once('error', (error) => reject(listenError(error, options)))
      server.#server.listen(options.port, options.host, resolve)
    })
    server.#server.on('error', (error) => server.#refused(error, options.host))
    return server
  }

  get port(): number {
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  /** Takes nobody new; connections go on. May be repeated. */
  stopListening(): void {
    this.#server.close()
  }

  /** Ends what is left at once. May be repeated. */
  close(): void {
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
  }

  #accept(socket: TLSSocket): void {
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    this.#options.onConnection(socket)
  }

  #refused(error: Error, remoteAddress: string | undefined): void {
    const from = remoteAddress ?? 'somebody'
    if (meansWrongKey(error)) {
      const message = `a broker at ${from} knows another cluster key; give all brokers the same`
      this.#options.onRefusal(new SharedVerbsError('wrong-cluster-key', message, { from }))
      return
    }
    const reason = (error as NodeJS.ErrnoException).code ?? error.message
    const message = `${from} knocked on the link port and failed: ${reason}`
    this.#options.onRefusal(new SharedVerbsError('protocol-violation', message, { from, reason }))
  }
}

function listenError(error: Error, { host, port }: LinkServerOptions): SharedVerbsError {
  const { code } = error as NodeJS.ErrnoException
  if (code === 'EADDRINUSE') {
    const message = `port ${port} of ${host} is in use by another program; choose another for the link or 0 for any`
    return new SharedVerbsError('port-in-use', message, { host, port }, error)
  }
  const message = `cannot listen on ${host}:${port} (${code ?? error.message}); use an address of this node`
  return new SharedVerbsError('invalid-argument', message, { host, port }, error)
}
