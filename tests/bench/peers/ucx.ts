/** UCX's own benchmark, `ucx_perftest`: over TCP between nodes, over shared memory on one. Both sides spin. */
import { freePort, isInstalled, listening, outputWithin, startProgram } from './programs.js'
import { median, type Peer, type Work } from './work.js'

const transport = (work: Work): Readonly<Record<string, string>> =>
  work.place === 'local' ? { UCX_TLS: 'posix,self' } : { UCX_TLS: 'tcp', UCX_NET_DEVICES: 'lo' }

interface Found {
  readonly p50Us: number
  readonly bandwidthMiBps: number
  readonly messagesPerSecond: number
}

/** One line a second: iterations, p50, average and overall latency, then pairs of average and overall. The last one counts. */
function lastLine(text: string): Found | undefined {
  const line = text
    .split('\n')
    .filter((one) => /^\[thread 0\]\d/.test(one))
    .at(-1)
  if (line === undefined) return undefined
  const [, p50, , , , bandwidth, , rate] = line.replace('[thread 0]', '').split(',').map(Number)
  return { p50Us: p50!, bandwidthMiBps: bandwidth!, messagesPerSecond: rate! }
}

async function onePair(work: Work, test: string, durationMs: number): Promise<Found | undefined> {
  const environment = transport(work)
  const port = await freePort()
  const server = startProgram('ucx_perftest', ['-p', String(port)], environment)
  try {
    await listening(port)
    const amount = ['-n', '1000000000', '-w', '100']
    const client = ['127.0.0.1', '-p', String(port), '-t', test, '-s', String(work.bytes), ...amount, '-v']
    // Many pairs of spinners hardly get to their first line.
    const patienceMs = durationMs + 1500 + (work.pairs - 1) * 300
    return lastLine(await outputWithin(startProgram('ucx_perftest', client, environment), patienceMs))
  } finally {
    server.child.kill('SIGKILL')
    await server.ended
  }
}

export const ucx: Peer = {
  name: 'ucx',
  how: 'ucx_perftest tag_lat, tag_bw; both sides spin; TCP, on one node posix shared memory',
  missing: () => (isInstalled('ucx_perftest') ? undefined : 'ucx_perftest is not installed'),
  async measure(work, durationMs) {
    const test = work.kind === 'latency' ? 'tag_lat' : 'tag_bw'
    const all = await Promise.all(Array.from({ length: work.pairs }, () => onePair(work, test, durationMs)))
    const found = all.filter((one) => one !== undefined)
    if (found.length === 0) return undefined
    if (work.kind === 'latency') return median(found.map(({ p50Us }) => p50Us))
    if (work.kind === 'rate') return found.reduce((sum, one) => sum + one.messagesPerSecond, 0) / 1e6
    return found.reduce((sum, one) => sum + one.bandwidthMiBps, 0) * 1.048576
  },
}
