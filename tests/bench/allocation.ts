/**
 * What a message leaves for the garbage collector, in brokers and clients: a short and a long run of the same stream under `--trace-gc`.
 * Starting and stopping cost both the same, so what the longer one allocated more is due to the messages it moved more.
 *
 *   npm run --silent build && node --import=./broker/typescript.js tests/bench/allocation.ts
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { BenchResult } from '../../broker/commands/bench/settings.js'
import { printFigure } from './figures.js'

const SHORT_MS = 1000
const LONG_MS = 6000
/** Before the window that counts, messages move as fast as in it. */
const WARM_UP_MS = 900
/** A small young generation is collected often, so that little is still there at the end. */
const flags = ['--trace-gc', '--min-semi-space-size=1', '--max-semi-space-size=1']
const main = fileURLToPath(new URL('../../.build/broker/main.js', import.meta.url))

interface Run {
  readonly messages: number
  readonly allocatedBytes: Readonly<Record<string, number>>
}

function run(durationMs: number, directory: string): Run {
  const options = ['bench', '--json', '--keep', '--only', 'pairs', '--pairs', '1', '--duration', String(durationMs)]
  const output = execFileSync(process.execPath, [...flags, main, ...options], {
    encoding: 'utf8',
    env: { ...process.env, TMPDIR: directory },
    maxBuffer: 2 ** 26,
  })
  const line = output.split('\n').find((one) => one.startsWith('{"machine"')) ?? ''
  const result = JSON.parse(line) as BenchResult
  const perMs = result.rows[0]!.values['millionsPerSecond']! * 1000
  const logOf = (name: string): number => allocatedBytes(readFileSync(join(result.directory!, name), 'utf8'))
  return {
    messages: perMs * (durationMs + WARM_UP_MS),
    allocatedBytes: {
      'sending broker': logOf('alpha.log'),
      'receiving broker': logOf('beta.log'),
      clients: logOf('jobs.log'),
    },
  }
}

/** Between two collections of a thread, its heap has grown by what was allocated. */
function allocatedBytes(log: string): number {
  const heaps = new Map<string, number>()
  let total = 0
  for (const line of log.split('\n')) {
    // [4711:0x55d0c8] 42 ms: Scavenge 4.3 (5.1) -> 3.9 (6.1) MB, …
    const [, thread = '', before = '', after = ''] =
      /^\[(\d+:0x\w+)[^\]]*\].*? ([\d.]+) \([\d.]+\) -> ([\d.]+) \(/.exec(line) ?? []
    if (thread === '') continue
    const last = heaps.get(thread)
    if (last !== undefined) total += (Number(before) - last) * 2 ** 20
    heaps.set(thread, Number(after))
  }
  return total
}

const directory = mkdtempSync(join(tmpdir(), 'shared-verbs-allocation-'))
try {
  const short = run(SHORT_MS, directory)
  const long = run(LONG_MS, directory)
  const messages = long.messages - short.messages
  printFigure('allocation: messages compared', messages / 1e6, 'M')
  for (const [name, bytes] of Object.entries(long.allocatedBytes)) {
    printFigure(`allocation: a 64 B message, ${name}`, (bytes - short.allocatedBytes[name]!) / messages, 'bytes')
  }
} finally {
  rmSync(directory, { recursive: true, force: true })
}
