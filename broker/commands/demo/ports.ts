/** Ports of the loopback interface for brokers that must know each other's before they start. */
import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'
import { SharedVerbsError } from '../../../protocol/errors.js'

/** Below the range from which the kernel takes ports for outgoing connections, so that none of those can take it in the meantime. */
const FIRST_PORT = 20_000
const LAST_PORT = 32_000
const TRIES = 100

export async function freePort(host: string): Promise<number> {
  for (let tried = 0; tried < TRIES; tried++) {
    const port = randomInt(FIRST_PORT, LAST_PORT)
    if (await isFree(host, port)) return port
  }
  throw new SharedVerbsError('port-in-use', `found no free port on ${host} in ${TRIES} tries`, { host })
}

function isFree(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(true)))
  })
}
