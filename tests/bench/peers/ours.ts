/** The same work through the brokers: `broker bench` as users run it, with brokers of its own. */
import { fileURLToPath } from 'node:url'
import type { BenchResult } from '../../../broker/commands/bench/settings.js'
import { outputWithin, startProgram } from './programs.js'
import type { Work } from './work.js'

const binPath = fileURLToPath(new URL('../../../broker/bin.js', import.meta.url))

const testOf = { latency: 'pairs-latency', rate: 'pairs', bandwidth: 'bandwidth' } as const
const resultOf = { latency: 'p50Us', rate: 'millionsPerSecond', bandwidth: 'megabytesPerSecond' } as const

export async function measureOurs(work: Work, durationMs: number, more: readonly string[]): Promise<number> {
  const test = testOf[work.kind]
  const shape = ['--size', String(work.bytes), '--pairs', String(work.pairs), '--duration', String(durationMs)]
  const place = work.place === 'local' ? ['--local'] : []
  const program = startProgram(process.execPath, [
    binPath,
    'bench',
    '--json',
    '--only',
    test,
    ...shape,
    ...place,
    ...more,
  ])
  const text = await outputWithin(program, durationMs + 120_000)
  const last = text.trim().split('\n').at(-1) ?? ''
  if (!last.startsWith('{"machine"')) throw new Error(`broker bench gave no result for ${work.name}: ${last}`)
  const { rows } = JSON.parse(last) as BenchResult
  // Of the bandwidths, that of RDMA write.
  return rows[0]!.values[resultOf[work.kind]]!
}
