import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import type { BenchResult } from '../../broker/commands/bench/settings.js'
import { freePort } from '../../broker/commands/demo/ports.js'
import { runCli, startBroker, startCli } from '../support/cli.js'
import { filesBelow } from '../support/leaks.js'
import { processesMarked } from '../support/processes.js'
import { temporaryDirectory } from '../support/temporary-directory.js'
import { until } from '../support/until.js'

const small = ['--duration', '120', '--pairs', '2', '--sessions', '20', '--bulk', '1048576', '--depth', '256']

/** What is left of a benchmark that had this directory for temporary files; the loader of sources keeps its own cache there. */
const leftBelow = (directory: string): string[] => filesBelow(directory).filter((path) => !path.startsWith('tsx-'))

const resultIn = (stdout: string): BenchResult => JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as BenchResult

test.serial('every test measures something, and nothing is left behind', async (t) => {
  t.timeout(170_000)
  const directory = temporaryDirectory(t)
  const svg = join(directory, 'curves.svg')
  const bench = startCli(t, ['bench', '--json', '--svg', svg, ...small], { env: { TMPDIR: directory } })
  const { code, stdout, stderr } = await bench.ended(160_000)
  t.is(code, 0, stderr)
  const { rows } = resultIn(stdout)
  const works = rows.map(({ test: name, work, bytes }) => `${name} ${work} ${bytes}`)
  for (const expected of [
    ...['latency send 64', 'latency write 64', 'latency read 64', 'rate send 64', 'rate write 64'],
    ...['bandwidth write 1048576', 'bandwidth read 1048576', 'bandwidth send 1048576', 'pairs send 64'],
    ...['atomics fetch-and-add 8', 'atomics compare-and-swap 8', 'pairs-latency send 64', 'mix beside bulk 64'],
    ...[
      'post-poll post 64',
      'post-poll poll 64',
      'attach attach 0',
      'connect first 0',
      'connect next 0',
      'idle sessions 0',
    ],
  ]) {
    t.true(works.includes(expected), `${expected} is missing`)
  }
  const main = ['p50Us', 'millionsPerSecond', 'p50Ns', 'p50Ms', 'kibibytesPerQueuePair']
  for (const { test: name, work, values } of rows) {
    t.true(
      main.some((key) => values[key]! > 0),
      `${name} ${work}: ${JSON.stringify(values)}`,
    )
    t.true(Object.values(values).every(Number.isFinite), `${name} ${work}: ${JSON.stringify(values)}`)
  }
  const distances = rows.map(({ coresNsApart }) => coresNsApart).filter((one) => one !== null)
  // A cache line takes longer than an instruction, and no machine is that large. Others may have had the cores, but not all the time.
  t.true(cpus().length < 2 || distances.length > 0)
  t.true(
    distances.every((one) => one > 2 && one < 10_000),
    JSON.stringify(distances),
  )
  t.regex(readFileSync(svg, 'utf8'), /^<svg[\s\S]*Latency, p50[\s\S]*<\/svg>\s*$/)
  t.deepEqual(processesMarked(bench.mark), [])
  t.deepEqual(leftBelow(directory), ['curves.svg'])
})

test.serial('the tables name their units and fit a terminal; both processes may be on one node', async (t) => {
  t.timeout(120_000)
  const tests = ['--only', 'latency,pairs,pairs-latency', '--local', '--size', '64', '--size', '4096']
  const { code, stdout, stderr } = await runCli(t, ['bench', ...tests, ...small], { timeoutMs: 110_000 })
  t.is(code, 0, stderr)
  const lines = stdout.split('\n')
  t.deepEqual(
    lines.filter((line) => line.length > 80),
    [],
  )
  t.regex(stdout, /^ work +bytes +p50 us +p99 us +p99\.9 us +samples$/m)
  t.regex(stdout, /^ send +4096 +\d+\.\d\d /m)
  t.regex(stdout, /^ send +2 +64 +\d+\.\d{3} +\d+ /m)
})

test.serial('brokers that run are used, and go on', async (t) => {
  t.timeout(120_000)
  const keyFile = join(temporaryDirectory(t), 'cluster.key')
  writeFileSync(keyFile, randomBytes(32).toString('hex'), { mode: 0o600 })
  const [alphaPort, betaPort] = [await freePort('127.0.0.1'), await freePort('127.0.0.1')]
  const start = (node: string, port: number, peer: string, peerPort: number) =>
    startBroker(
      t,
      ...['--provider', 'soft', '--node', node, '--port', String(port), '--cluster-key-file', keyFile],
      ...['--peer', `${peer}=127.0.0.1:${peerPort}`],
    )
  const [alpha, beta] = [
    await start('alpha', alphaPort, 'beta', betaPort),
    await start('beta', betaPort, 'alpha', alphaPort),
  ]
  const directories = `${alpha.runtimeDirectory},${beta.runtimeDirectory}`
  const { code, stdout, stderr } = await runCli(
    t,
    ['bench', '--json', '--only', 'latency', '--runtime-dir', directories, ...small],
    { timeoutMs: 100_000 },
  )
  t.is(code, 0, stderr)
  t.true(resultIn(stdout).rows.every(({ values }) => values['samples']! > 0))
  for (const { runtimeDirectory } of [alpha, beta]) {
    const { stdout: status } = await runCli(t, ['status', '--runtime-dir', runtimeDirectory])
    t.regex(status, /running/)
  }
})

test.serial('an interrupted benchmark leaves nothing behind', async (t) => {
  const directory = temporaryDirectory(t)
  const bench = startCli(t, ['bench', '--only', 'latency', '--duration', '60000'], { env: { TMPDIR: directory } })
  await until(
    () => bench.stdout().includes('runs ') && filesBelow(directory).some((path) => path.endsWith('jobs.log')),
    {
      timeoutMs: 60_000,
      what: 'the processes of the benchmark',
    },
  )
  bench.signal('SIGINT')
  const { code, stderr } = await bench.ended()
  t.is(code, 1)
  t.regex(stderr, /^broker: aborted: /m)
  t.deepEqual(processesMarked(bench.mark), [])
  t.deepEqual(leftBelow(directory), [])
})

test.serial('what cannot be measured is refused', async (t) => {
  const unknown = await runCli(t, ['bench', '--only', 'latency,speed'])
  t.is(unknown.code, 2)
  t.regex(unknown.stderr, /^broker: invalid-argument: .*speed/)
  const nobody = await runCli(t, ['bench', '--runtime-dir', `${temporaryDirectory(t)}/a,${temporaryDirectory(t)}/b`])
  t.is(nobody.code, 3)
  t.regex(nobody.stderr, /^broker: broker-not-running: /)
})
