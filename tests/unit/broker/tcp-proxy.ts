/** A wire between two ports that a test can cut. */
import { connect, createServer, type Socket } from 'node:net'
import type { Scope } from '../../support/temporary-directory.js'

export interface TcpProxy {
  readonly port: number
  /** Ends all connections as a pulled cable would in the end; new ones go through. */
  cut(): void
}

export async function startTcpProxy(scope: Scope, targetPort: number): Promise<TcpProxy> {
  const sockets = new Set<Socket>()
  const keep = (socket: Socket): Socket => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    return socket
  }
  const server = createServer((socket) => {
    const target = keep(connect(targetPort, '127.0.0.1'))
    keep(socket).pipe(target).pipe(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const cut = (): void => {
    for (const socket of sockets) socket.destroy()
  }
  scope.teardown(() => {
    server.close()
    cut()
  })
  const address = server.address()
  return { port: typeof address === 'object' && address !== null ? address.port : 0, cut }
}
