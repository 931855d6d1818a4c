import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import test from 'ava'
import { runCli, startBroker, startCli } from '../support/cli.js'
import { filesBelow } from '../support/leaks.js'
import { processesMarked } from '../support/processes.js'
import { temporaryDirectory } from '../support/temporary-directory.js'
import { until } from '../support/until.js'

const commands = ['start', 'status', 'drain', 'stop', 'inspect', 'demo'] as const

for (const command of commands) {
  test.serial(`${command} --help has examples and exit statuses and fits a terminal`, async (t) => {
    const { code, stdout, stderr } = await runCli(t, [command, '--help'])
    t.is(code, 0)
    t.is(stderr, '')
    t.regex(stdout, /Examples:\n {2}broker /)
    t.regex(stdout, /Exit status:\n {2}0 {2}done/)
    t.regex(stdout, /--json/)
    t.deepEqual(
      stdout.split('\n').filter((line) => line.length > 80),
      [],
    )
  })
}

test.serial('an unknown option is refused by name, with its code', async (t) => {
  for (const command of commands) {
    const { code, stdout, stderr } = await runCli(t, [command, '--frobnicate'])
    t.is(code, 2)
    t.is(stdout, '')
    t.regex(stderr, /^broker: unknown-option: unknown option '--frobnicate'.*\n$/)
  }
})

test.serial('errors are JSON when JSON is asked for', async (t) => {
  const { code, stderr } = await runCli(t, ['status', '--json', '--frobnicate'])
  t.is(code, 2)
  const { error } = JSON.parse(stderr) as { error: Record<string, unknown> }
  t.like(error, { code: 'unknown-option', category: 'usage', context: { offender: '--frobnicate' } })
})

test.serial('wrong values are refused with the value', async (t) => {
  const wrong: readonly (readonly [string[], RegExp])[] = [
    [['start', '--port', '70000'], /'70000'/],
    [['start', '--lanes', 'many'], /'many'/],
    [['start', '--node', 'no blanks'], /'no blanks'/],
    [['start', '--peer', 'beta'], /'beta'/],
    [['start', '--provider', 'magic'], /'magic'/],
    [['inspect', 'everything'], /'everything'/],
    [['inspect', '--watch', 'often'], /'often'/],
    [['stop', '--timeout-ms', '-1'], /'-1'/],
    [['demo', '--processes', '1'], /'1'/],
    [['start', '--ready-fd', '900'], /900/],
    [['dance'], /'dance'/],
  ]
  for (const [commandArguments, named] of wrong) {
    const { code, stderr } = await runCli(t, commandArguments)
    t.is(code, 2, commandArguments.join(' '))
    t.regex(stderr, /^broker: invalid-argument: /)
    t.regex(stderr, named)
  }
})

test.serial('commands say that no broker runs', async (t) => {
  const directory = temporaryDirectory(t)
  for (const command of ['status', 'stop', 'drain', 'inspect']) {
    const { code, stdout, stderr } = await runCli(t, [command, '--runtime-dir', directory])
    t.is(code, 3)
    t.is(stdout, '')
    t.regex(stderr, /^broker: broker-not-running: /)
  }
  t.deepEqual(filesBelow(directory), [])
})

test.serial('a node file of another build is refused', async (t) => {
  const directory = temporaryDirectory(t)
  writeFileSync(`${directory}/node`, new Uint8Array(8192).fill(7))
  const { code, stderr } = await runCli(t, ['status', '--runtime-dir', directory])
  t.is(code, 1)
  t.regex(stderr, /^broker: segment-invalid: /)
})

test.serial('a cluster key that everybody may read is refused, and never shown', async (t) => {
  const directory = temporaryDirectory(t)
  const path = `${directory}/key`
  writeFileSync(path, 'very-secret', { mode: 0o644 })
  const { code, stderr } = await runCli(t, ['start', '--runtime-dir', directory, '--cluster-key-file', path])
  t.is(code, 1)
  t.regex(stderr, /^broker: access-denied: .*chmod/)
  t.notRegex(stderr, /very-secret/)
})

test.serial('a broker starts, shows itself, drains and stops without a trace', async (t) => {
  const { runtimeDirectory, process: broker, started } = await startBroker(t, '--node', 'alpha')
  const at = ['--runtime-dir', runtimeDirectory] as const
  t.is(started.node, 'alpha')
  t.true(processesMarked(broker.mark).includes(started.processId))

  const status = await runCli(t, ['status', ...at, '--json'])
  t.is(status.code, 0, status.stderr)
  t.like(JSON.parse(status.stdout), { node: 'alpha', state: 'running', processId: started.processId, sessions: 0 })

  const overview = await runCli(t, ['inspect', ...at])
  t.is(overview.code, 0, overview.stderr)
  t.regex(overview.stdout, /^broker node alpha state running pid \d+ /)
  t.regex(overview.stdout, /^sharing processes 0 queue-pairs 0 shared-queue-pairs 0 unshared 0$/m)

  const drained = await runCli(t, ['drain', ...at, '--json'])
  t.is(drained.code, 0, drained.stderr)
  t.like(JSON.parse(drained.stdout), { state: 'draining' })

  const stopped = await runCli(t, ['stop', ...at])
  t.is(stopped.code, 0, stopped.stderr)
  t.regex(stopped.stdout, /^broker node alpha pid \d+ state stopped\n$/)
  t.is((await broker.ended()).code, 0, broker.stderr())
  t.deepEqual(filesBelow(runtimeDirectory), [])
  t.deepEqual(processesMarked(broker.mark), [])
})

test.serial('every view answers, in text and JSON', async (t) => {
  const { runtimeDirectory } = await startBroker(t)
  const views = 'overview sessions qps shared-qps mrs cqs peers locks counters errors events'.split(' ')
  for (const view of views) {
    const text = await runCli(t, ['inspect', view, '--runtime-dir', runtimeDirectory, '--details'])
    t.is(text.code, 0, text.stderr)
    const json = await runCli(t, ['inspect', view, '--runtime-dir', runtimeDirectory, '--json'])
    t.like(JSON.parse(json.stdout), { view, state: 'running' })
  }
})

test.serial('a second start on the same directory is refused with the pid of the first', async (t) => {
  const { runtimeDirectory, started } = await startBroker(t)
  const second = await runCli(t, ['start', '--runtime-dir', runtimeDirectory])
  t.is(second.code, 4)
  t.regex(second.stderr, new RegExp(`^broker: broker-already-running: .*\\b${started.processId}\\b`, 'm'))
  const ensured = await runCli(t, ['start', '--ensure', '--json', '--runtime-dir', runtimeDirectory])
  t.is(ensured.code, 0, ensured.stderr)
  t.like(JSON.parse(ensured.stdout), { event: 'already-running', processId: started.processId })
})

test.serial('SIGTERM drains and stops; SIGINT too', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const { runtimeDirectory, process: broker, started } = await startBroker(t)
    process.kill(started.processId, signal)
    t.like(await broker.ended(), { code: 0, signal: null }, broker.stderr())
    t.false(existsSync(runtimeDirectory))
  }
})

test.serial('a dead broker can be inspected, and is said to be dead', async (t) => {
  const { runtimeDirectory, process: broker, started } = await startBroker(t, '--node', 'alpha')
  const at = ['--runtime-dir', runtimeDirectory] as const
  process.kill(started.processId, 'SIGKILL')
  await broker.ended()

  const status = await runCli(t, ['status', ...at, '--json'])
  t.is(status.code, 3)
  t.like(JSON.parse(status.stdout), { node: 'alpha', state: 'dead', processId: started.processId })

  const overview = await runCli(t, ['inspect', ...at])
  t.is(overview.code, 0)
  t.regex(overview.stderr, /^broker: note: the broker, pid \d+, is dead; /)
  t.regex(overview.stdout, /^broker node alpha state dead /)

  const stop = await runCli(t, ['stop', ...at])
  t.is(stop.code, 3)

  const again = await runCli(t, ['start', '--daemon', '--json', '--node', 'alpha', '--log-level', 'error', ...at])
  t.is(again.code, 0, again.stderr)
  const successor = JSON.parse(again.stdout) as { processId: number; epoch: number }
  t.is(successor.epoch, 2)
  t.is((await runCli(t, ['stop', ...at])).code, 0)
})

test.serial('a hung broker can be inspected, and is said to hang', async (t) => {
  const { runtimeDirectory, process: broker, started } = await startBroker(t, '--node', 'alpha')
  const at = ['--runtime-dir', runtimeDirectory] as const
  process.kill(started.processId, 'SIGSTOP')
  const found = await until(
    async () => {
      const status = await runCli(t, ['status', ...at, '--json'])
      return status.code === 5 ? status : undefined
    },
    { timeoutMs: 60_000, what: 'the broker to be found hanging' },
  )
  t.like(JSON.parse(found.stdout), { state: 'hung' })
  const overview = await runCli(t, ['inspect', ...at])
  t.regex(overview.stderr, /^broker: note: the broker, pid \d+, hangs: /)
  const refused = await runCli(t, ['stop', '--timeout-ms', '200', ...at])
  t.is(refused.code, 6)
  t.regex(refused.stderr, /^broker: timeout: /)
  const killed = await runCli(t, ['stop', '--timeout-ms', '200', '--kill', '--json', ...at])
  t.is(killed.code, 0, killed.stderr)
  t.like(JSON.parse(killed.stdout), { state: 'killed' })
  await broker.ended()
})

test.serial('a daemon goes on when its starter has ended, and says that it is ready', async (t) => {
  const runtimeDirectory = `${temporaryDirectory(t)}/run`
  const at = ['--runtime-dir', runtimeDirectory] as const
  const starter = startCli(t, ['start', '--daemon', '--json', ...at])
  const { code, stdout, stderr } = await starter.ended()
  t.is(code, 0, stderr)
  const { processId } = JSON.parse(stdout) as { processId: number }
  t.like(JSON.parse((await runCli(t, ['status', '--json', ...at])).stdout), { state: 'running', processId })
  t.is((await runCli(t, ['stop', ...at])).code, 0)
  t.deepEqual(processesMarked(starter.mark), [])
})

test.serial('a daemon that cannot start says why', async (t) => {
  const directory = temporaryDirectory(t)
  const open = `${directory}/open`
  mkdirSync(open)
  const long = `${directory}/${'long'.repeat(30)}`
  const { code, stderr } = await runCli(t, ['start', '--daemon', '--runtime-dir', long])
  t.is(code, 1)
  t.regex(stderr, /^broker: runtime-directory-unusable: /)
})

test.serial('readiness is told on a descriptor', async (t) => {
  const runtimeDirectory = `${temporaryDirectory(t)}/run`
  const { binPath } = await import('../support/cli.js')
  const { startProcess } = await import('../support/processes.js')
  const script = `"$0" "$1" start --runtime-dir "$2" --ready-fd 3 --log-level silent 3>&1 >/dev/null`
  const shell = startProcess(t, 'bash', ['-c', script, process.execPath, binPath, runtimeDirectory])
  t.is((await shell.printed(/^ready$/m))[0], 'ready')
  t.is((await runCli(t, ['stop', '--runtime-dir', runtimeDirectory])).code, 0)
})
