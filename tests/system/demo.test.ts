import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test from 'ava'
import { runCli, startCli } from '../support/cli.js'
import { filesBelow } from '../support/leaks.js'
import { processesMarked } from '../support/processes.js'
import { temporaryDirectory } from '../support/temporary-directory.js'
import { until } from '../support/until.js'

/** Big enough for parts that are no multiple of anything. */
const file = new URL('../../package-lock.json', import.meta.url).pathname

/** What is left of a demo that had this directory for temporary files; the loader of sources keeps its own cache there. */
const leftBelow = (directory: string): string[] => filesBelow(directory).filter((path) => !path.startsWith('tsx-'))

test.serial('the demo verifies everything and leaves nothing behind', async (t) => {
  const directory = temporaryDirectory(t)
  const demo = startCli(t, ['demo', '--json', '--processes', '2', '--file', file], { env: { TMPDIR: directory } })
  const { code, stdout, stderr } = await demo.ended(150_000)
  t.is(code, 0, stderr)
  const result = JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Record<string, unknown>
  t.like(result, {
    processes: 4,
    remotePairs: 4,
    sharedQueuePairsPerNode: 1,
    unsharedQueuePairsPerNode: 4,
    verified: true,
    killed: 1,
    survivorsFinished: 3,
    fileSha256: createHash('sha256').update(readFileSync(file)).digest('hex'),
  })
  t.deepEqual(processesMarked(demo.mark), [])
  t.deepEqual(leftBelow(directory), [])
})

test.serial('lanes are what was asked for, and the text says so', async (t) => {
  const { code, stdout, stderr } = await runCli(t, ['demo', '--processes', '2', '--lanes', '2', '--file', file], {
    timeoutMs: 150_000,
  })
  t.is(code, 0, stderr)
  t.regex(stdout, /^ {2}queue pairs of the provider, a node +2 /m)
  t.regex(stdout, /^verified$/m)
  t.deepEqual(
    stdout.split('\n').filter((line) => line.length > 80),
    [],
  )
})

test.serial('an interrupted demo leaves nothing behind', async (t) => {
  const directory = temporaryDirectory(t)
  const demo = startCli(t, ['demo', '--processes', '2', '--file', file], { env: { TMPDIR: directory } })
  await until(() => filesBelow(directory).some((path) => path.endsWith('broker.sock')), {
    timeoutMs: 60_000,
    what: 'the brokers of the demo',
  })
  demo.signal('SIGINT')
  const { code, stderr } = await demo.ended()
  t.is(code, 1)
  t.regex(stderr, /^broker: aborted: /m)
  t.deepEqual(processesMarked(demo.mark), [])
  t.deepEqual(leftBelow(directory), [])
})

test.serial('a demo of a file that is not there is refused', async (t) => {
  const { code, stderr } = await runCli(t, ['demo', '--file', '/nonexistent/file'])
  t.is(code, 2)
  t.regex(stderr, /^broker: invalid-argument: .*\/nonexistent\/file/)
})
