/** libfabric's own ping-pong over its TCP provider. It has no test of rates. */
import { freePort, isInstalled, listening, outputWithin, startProgram } from './programs.js'
import type { Peer } from './work.js'

const ROUNDS = 20_000

export const libfabric: Peer = {
  name: 'libfabric',
  how: 'fi_pingpong -p tcp -e msg',
  missing: () => (isInstalled('fi_pingpong') ? undefined : 'fi_pingpong is not installed'),
  async measure(work) {
    if (work.kind !== 'latency' || work.pairs !== 1 || work.place === 'local') return undefined
    const port = await freePort()
    const common = ['-p', 'tcp', '-e', 'msg', '-I', String(ROUNDS), '-S', String(work.bytes)]
    const server = startProgram('fi_pingpong', [...common, '-B', String(port)])
    try {
      await listening(port)
      const client = startProgram('fi_pingpong', [...common, '-P', String(port), '127.0.0.1'])
      const line = (await outputWithin(client, 30_000)).split('\n').find((one) => /^\d/.test(one))
      // bytes, #sent, #ack, total, time, MB/s, us/transfer, M/s
      return line === undefined ? undefined : Number(line.trim().split(/\s+/)[6])
    } finally {
      server.child.kill('SIGKILL')
      await server.ended
    }
  },
}
