import { readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { repositoryDirectory } from '../support/cli.js'
import { runProcess } from '../support/processes.js'
import { temporaryDirectory } from '../support/temporary-directory.js'
import type { ComparedRow } from './peers/report.js'

const program = fileURLToPath(new URL('peers.ts', import.meta.url))

const runPeers = (
  t: ExecutionContext,
  words: readonly string[],
  options: { env?: Record<string, string>; timeoutMs: number },
) =>
  runProcess(t, process.execPath, ['--import=./broker/typescript.js', program, ...words], {
    cwd: repositoryDirectory,
    ...options,
  })

test.serial('what cannot be compared is refused with the usage, which --help prints', async (t) => {
  for (const words of [['--only', 'speed'], ['--speed']]) {
    const { code, stdout, stderr } = await runPeers(t, words, { timeoutMs: 20_000 })
    t.deepEqual([code, stdout], [2, ''], words.join(' '))
    t.regex(stderr, /^npm run bench:peers -- \[options\]/m)
  }
  const { code, stdout } = await runPeers(t, ['--help'], { timeoutMs: 20_000 })
  t.is(code, 0)
  t.regex(stdout, /--only <works> +latency,/)
})

test.serial(
  'ours and a peer are compared in one run, peers that are not there are named, and the tables are saved',
  async (t) => {
    t.timeout(150_000)
    const directory = temporaryDirectory(t)
    // A path on which nothing is installed but a shell.
    symlinkSync('/bin/sh', join(directory, 'sh'))
    const out = join(directory, 'out')
    const shape = [
      '--rounds',
      '1',
      '--duration',
      '300',
      '--only',
      'latency,rate',
      '--peers',
      'ucx,net',
      '--out',
      out,
      '--json',
    ]
    const { code, stdout, stderr } = await runPeers(t, shape, {
      env: { PATH: directory, TMPDIR: directory },
      timeoutMs: 140_000,
    })
    t.is(code, 0, stderr)
    t.regex(stderr, /^without ucx: ucx_perftest is not installed$/m)
    const { rows } = JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as { rows: ComparedRow[] }
    t.deepEqual(
      rows.map(({ work, bytes, pairs, unit }) => ({ work, bytes, pairs, unit })),
      [
        { work: 'latency', bytes: 64, pairs: 1, unit: 'us' },
        { work: 'rate', bytes: 64, pairs: 1, unit: 'M/s' },
      ],
    )
    for (const { work, ours, peers, ratioToBest } of rows) {
      t.true(ours > 0 && peers.net! > 0, `${work}: ours ${ours}, net ${peers.net}`)
      t.is(ratioToBest, work === 'latency' ? peers.net! / ours : ours / peers.net!)
      t.is(peers.ucx, null)
    }
    t.regex(readFileSync(join(out, 'peers.md'), 'utf8'), /^\| latency \| 64 \| 1 \| us /m)
    t.regex(readFileSync(join(out, 'peers.svg'), 'utf8'), /^<svg/)
  },
)
