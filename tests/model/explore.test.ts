/** The command line of the explorations: its table, its exit status, and that a schedule it printed can be given back to it. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import test from 'ava'

const root = fileURLToPath(new URL('../../', import.meta.url))

function explore(...given: readonly string[]): Promise<{ status: number; lines: string[] }> {
  const command = ['--import=./broker/typescript.js', 'tests/model/explore.ts', ...given]
  return new Promise((resolve) => {
    execFile(process.execPath, command, { cwd: root, timeout: 60_000 }, (error, stdout, stderr) => {
      resolve({ status: Number(error?.code ?? 0), lines: `${stdout}${stderr}`.trimEnd().split('\n') })
    })
  })
}

test('what holds ends with 0, and its numbers are told twice', async (t) => {
  const { status, lines } = await explore('--scene', 'wait: 1 waiter of 2, one by one', '--json')
  t.is(status, 0)
  const told = JSON.parse(lines.at(-1) ?? '')
  t.is(told.violations, 0)
  t.is(told.explorations.length, 1)
  t.is(told.sum.states, told.explorations[0].states)
  t.true(lines[1]?.includes(` ${told.sum.states} `))
})

test('what does not hold ends with 1, and its schedule shows it again', async (t) => {
  const mutant = ['--mutant', 'a release that wakes nobody']
  const found = await explore(...mutant)
  t.is(found.status, 1)
  const line = found.lines.find((one) => one.includes('--replay')) ?? ''
  const schedule = /--replay '([^']*)'/.exec(line)?.[1] ?? ''
  const again = await explore(...mutant, '--replay', schedule)
  t.is(again.status, 1)
  const steps = found.lines.filter((one) => one.startsWith('  ')).map((one) => one.trim())
  t.deepEqual(again.lines.slice(0, -1), steps)
  t.regex(again.lines.at(-1) ?? '', /^I3: /)
  const first = schedule.split(' ')[0] ?? ''
  t.deepEqual(await explore(...mutant, '--replay', first.replace(/\*.*/, '')).then(({ status }) => status), 0)
})

test('an exploration that does not exist is refused', async (t) => {
  t.is((await explore('--scene', 'nowhere')).status, 2)
})
