/** A short storm, as users start it. */
import test from 'ava'
import { repositoryDirectory } from '../support/cli.js'
import { runProcess } from '../support/processes.js'

const options = ['--seconds', '4', '--kills', '10', '--broker-kills', '1', '--link-cuts', '1', '--processes', '4']

test.serial('processes, a broker and a link die; nothing is lost', async (t) => {
  const { code, stdout, stderr } = await runProcess(
    t,
    process.execPath,
    ['--import=./broker/typescript.js', 'tests/storm/main.ts', ...options, '--json'],
    { cwd: repositoryDirectory, timeoutMs: 170_000 },
  )
  const last = stdout.trim().split('\n').at(-1) ?? ''
  t.log(last)
  t.is(code, 0, `${last}\n${stderr}`)
  const found = JSON.parse(last) as Record<string, number>
  t.is(found['kills'], 10)
  t.is(found['brokerKills'], 1)
  t.is(found['linkCuts'], 1)
  for (const fault of ['lost', 'duplicated', 'reordered', 'corrupted', 'wrongVerdicts', 'stuck']) t.is(found[fault], 0)
  t.true((found['messages'] ?? 0) > 500)
})

test('a wrong option is refused', async (t) => {
  const { code, stderr } = await runProcess(
    t,
    process.execPath,
    ['--import=./broker/typescript.js', 'tests/storm/main.ts', '--kills', 'many'],
    { cwd: repositoryDirectory },
  )
  t.not(code, 0)
  t.regex(stderr, /--kills needs a whole number, not many/)
})
