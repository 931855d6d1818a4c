/**
 * `npm run test:verbs [-- --json] [-- --only conformance,demo,…]`: runs the verbs provider on Soft-RoCE in a virtual machine. See README.md.
 *
 * The last line of the output is the report, as JSON with --json. Exit status 0 also when the machine cannot be had here: the
 * report then says `skipped` and why.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { toolOptions } from '../support/tool-options.js'
import { run as command, prepareHost } from './commands.js'
import { type Image, prepareImage } from './image.js'
import { runMachine, type Wire } from './machine.js'
import { describeReport, type Report, readReport, skippedReport, succeeded } from './report.js'
import { isWished, type Wishes, writeWishes } from './wishes.js'

const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')
const cache = join(root, '.cache/vm')
const results = join(cache, 'results')
const built = join(cache, 'built')
const help = `npm run test:verbs -- [options]

  --only <parts>      of them, by name: conformance,demo,… (all)
  --cases <words>     only these conformance cases, by number: 1,2,… (all)
  --timeout-ms <n>    for the whole run of a machine (1500000)
  --json              last line as JSON`

const { values: options } = toolOptions(help, {
  options: {
    json: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    cases: { type: 'string', default: '' },
    'timeout-ms': { type: 'string', default: '1500000' },
  },
})

/** The part that needs a second machine. */
const TWO_NODES = 'two-nodes'

const say = (text: string): boolean => process.stderr.write(`${text}\n`)

/** The guest runs what is compiled here: nothing is translated in the slow machine. */
function compile(): void {
  rmSync(built, { recursive: true, force: true })
  const flags = ['--noEmit', 'false', '--outDir', built, '--declaration', 'false', '--sourceMap', 'false']
  command(process.execPath, join(root, 'node_modules/typescript/bin/tsc'), '--project', root, ...flags)
  // Test files find themselves in a project of their own, without this one's settings for sources. The machine cannot write a cache there.
  writeFileSync(join(built, 'package.json'), '{ "type": "module", "ava": { "cache": false } }\n')
}

function prepared(): { image: Image | null; reason: string } {
  const reason = prepareHost()
  if (reason !== null) return { image: null, reason }
  try {
    return { image: prepareImage(cache), reason: '' }
  } catch (error) {
    return { image: null, reason: error instanceof Error ? error.message : String(error) }
  }
}

/** A machine to its end, and what it found. */
async function runOne(image: Image, name: string, role: Wishes['role'], wire?: Wire): Promise<Report> {
  const folder = join(results, name)
  mkdirSync(folder, { recursive: true })
  writeWishes(folder, { only: options.only, cases: options.cases, ...(role === undefined ? {} : { role }) })
  const timeoutMs = Number(options['timeout-ms'])
  await runMachine({ image, root, results: folder, timeoutMs, ...(wire === undefined ? {} : { wire }) })
  return readReport(readFileSync(join(folder, 'report.json'), 'utf8'))
}

/** Two machines at a time; the one that commands has the report. */
async function runTwo(image: Image): Promise<Report> {
  const sockets = mkdtempSync(join(tmpdir(), 'wire-'))
  const [alpha, beta] = [join(sockets, 'alpha'), join(sockets, 'beta')]
  try {
    const [report] = await Promise.all([
      runOne(image, 'alpha', 'alpha', { address: '10.78.0.1/24', number: 1, here: alpha, there: beta }),
      runOne(image, 'beta', 'beta', { address: '10.78.0.2/24', number: 2, here: beta, there: alpha }),
    ])
    return report
  } finally {
    rmSync(sockets, { recursive: true, force: true })
  }
}

async function runInMachines(image: Image): Promise<Report> {
  compile()
  rmSync(results, { recursive: true, force: true })
  const isForOne = options.only === '' || options.only.split(',').some((part) => part !== TWO_NODES)
  const one = isForOne ? await runOne(image, 'one', undefined) : null
  const two = isWished(options, TWO_NODES) ? await runTwo(image) : null
  if (one === null || two === null) return (one ?? two)!
  const failures = [...one.failures, ...two.failures]
  return { ...one, twoNodes: two.twoNodes ?? {}, failures, seconds: { ...one.seconds, ...two.seconds } }
}

const { image, reason } = prepared()
if (image === null) say(`SKIPPED: ${reason}`)
else say(`kernel ${image.release}, emulated`)
const report = image === null ? skippedReport(reason) : await runInMachines(image)
console.log(options.json ? JSON.stringify(report) : describeReport(report))
process.exitCode = succeeded(report) ? 0 : 1
