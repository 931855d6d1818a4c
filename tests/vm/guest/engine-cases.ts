/**
 * The B cases: two engines over Soft-RoCE, turned by hand as in `tests/conformance/engine`, by the same test files. Cases of one node alone
 * are left out, they never reach a device.
 */
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Report } from '../report.js'
import type { Wishes } from '../wishes.js'
import { run } from './tools.js'

const TIMEOUT_MS = 1_200_000
const root = fileURLToPath(new URL('../../..', import.meta.url))
const ava = fileURLToPath(import.meta.resolve('ava')).replace(/entrypoints\/.*$/, 'entrypoints/cli.mjs')

/** What is not run here, as a pattern of titles, and why. */
const leftOut: Readonly<Record<string, string>> = {
  '*same node*': 'cases on one node alone: they never reach a device',
  '34 *': 'looks at what is under way between turns: Soft-RoCE executes while it posts, so there is nothing',
  '83b *': 'a connect that is given up after 30 ms: it is before the listener is asked',
}
const reasons = Object.entries(leftOut).map(([pattern, reason]) => `${pattern.replaceAll('*', '').trim()}: ${reason}`)

export async function runEngineCases(wishes: Wishes): Promise<Pick<Report, 'engineCases'>> {
  const files = readdirSync(join(root, 'tests/conformance/engine')).filter((name) => name.endsWith('.test.js'))
  const chosen = files.filter((name) => wishes.files === undefined || wishes.files.includes(name.split('.')[0]!))
  const paths = chosen.map((name) => `tests/conformance/engine/${name}`)
  const without = Object.keys(leftOut).map((pattern) => `--match=!${pattern}`)
  const given = ['--tap', ...without, '--timeout=10m', '--concurrency=2', '--no-worker-threads', ...paths]
  process.chdir(root)
  process.env['SHARED_VERBS_TEST_PROVIDER'] = 'verbs'
  const { code, stdout, stderr } = await run(process.execPath, [ava, ...given], TIMEOUT_MS)
  delete process.env['SHARED_VERBS_TEST_PROVIDER']
  const lines = stdout.split('\n')
  const passed = lines.filter((line) => /^ok \d+ - /.test(line)).length
  const failures = lines.filter((line) => /^not ok \d+ - /.test(line)).map((line) => line.replace(/^not ok \d+ - /, ''))
  // Ava that was ended, or that crashed, has told only of what came before.
  if (code !== 0 && failures.length === 0) failures.push(`ava ended with status ${code} after ${passed} cases`)
  console.log(`${passed} passed, ${failures.length} failed\n${failures.join('\n')}`)
  if (failures.length > 0 || passed === 0) {
    writeFileSync('/run/results/engine-cases.log', `${stdout}\n${stderr}`)
    console.log(stderr.slice(-2000))
  }
  return { engineCases: { passed, failed: failures.length, failures, skipped: reasons } }
}
