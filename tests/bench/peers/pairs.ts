/** Peers whose programs are here: each a server that says `ready` and a client that prints `result <number>`, in the unit of the work. */
import { freePort, outputWithin, printed, startProgram } from './programs.js'
import { median, type Work } from './work.js'

export interface PairProgram {
  readonly command: string
  /** Before the arguments that all have: side, port, kind, bytes, milliseconds. */
  readonly leading: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
}

async function onePair(program: PairProgram, work: Work, durationMs: number): Promise<number | undefined> {
  const port = String(await freePort())
  const common = [port, work.kind, String(work.bytes), String(durationMs), String(work.pairs)]
  const start = (side: string) =>
    startProgram(program.command, [...program.leading, side, ...common], program.environment)
  const server = start('server')
  try {
    await printed(server, /ready/)
    const client = start('client')
    const [serverText, clientText] = await Promise.all([
      outputWithin(server, durationMs + 20_000),
      outputWithin(client, durationMs + 20_000),
    ])
    const [, result] = /^result (\S+)$/m.exec(`${serverText}\n${clientText}`) ?? []
    return result === undefined ? undefined : Number(result)
  } finally {
    server.child.kill('SIGKILL')
    await server.ended
  }
}

/** All pairs at once: the median latency, or the sum. */
export async function measurePairs(program: PairProgram, work: Work, durationMs: number): Promise<number | undefined> {
  const each = await Promise.all(Array.from({ length: work.pairs }, () => onePair(program, work, durationMs)))
  const found = each.filter((one) => one !== undefined)
  if (found.length < work.pairs) return undefined
  return work.kind === 'latency' ? median(found) : found.reduce((sum, one) => sum + one, 0)
}
