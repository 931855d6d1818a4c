/** The control socket: takes connections, bounds those that have not said who they are, and ends them all. */
import { SharedVerbsError } from '../../protocol/errors.js'
import { ShmError } from '../../shm/errors.js'
import { type SeqpacketConnection, SeqpacketListener } from '../../shm/seqpacket.js'
import { ControlConnection } from './control-connection.js'
import type { ControlPlane } from './control-plane.js'
import { sessionBounds } from './limits.js'

export class ControlServer {
  readonly #plane: ControlPlane
  readonly #listener: SeqpacketListener
  readonly #connections = new Set<ControlConnection>()

  private constructor(plane: ControlPlane, path: string, mode: number) {
    this.#plane = plane
    this.#listener = SeqpacketListener.listen({
      path,
      mode,
      onConnection: (connection) => this.#accept(connection),
    })
  }

  /** Only while the runtime directory is claimed: a stale socket is replaced. */
  static listen(plane: ControlPlane, path: string, mode: number): ControlServer {
    try {
      return new ControlServer(plane, path, mode)
    } catch (error) {
      if (!(error instanceof ShmError) || error.code !== 'socket-in-use') throw error
      const message = `somebody else listens on ${path}; stop it or choose another runtime directory`
      throw new SharedVerbsError('runtime-directory-unusable', message, { path }, error)
    }
  }

  /** Takes nobody new and removes the socket. May be repeated. */
  stopListening(): void {
    this.#listener.close()
  }

  /** Ends all connections. May be repeated. */
  close(): void {
    this.#listener.close()
    for (const connection of [...this.#connections]) connection.close()
  }

  #accept(connection: SeqpacketConnection): void {
    const strangers = [...this.#connections].filter((known) => !known.attached).length
    if (strangers >= sessionBounds.unattachedConnections) {
      connection.close()
      return
    }
    const accepted: ControlConnection = new ControlConnection(this.#plane, connection, () => {
      this.#connections.delete(accepted)
    })
    this.#connections.add(accepted)
  }
}
