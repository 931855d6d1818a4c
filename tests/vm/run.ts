/**
 * `npm run test:verbs [-- --json] [-- --only conformance,demo,…]`: runs the verbs provider on Soft-RoCE in a virtual machine. See README.md.
 *
 * The last line of the output is the report, as JSON with --json. Exit status 0 also when the machine cannot be had here: the
 * report then says `skipped` and why.
 */
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { run as command, prepareHost } from './commands.js'
import { type Image, prepareImage } from './image.js'
import { runMachine } from './machine.js'
import { describeReport, type Report, readReport, skippedReport, succeeded } from './report.js'
import { writeWishes } from './wishes.js'

const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')
const cache = join(root, '.cache/vm')
const results = join(cache, 'results')
const built = join(cache, 'built')
const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    cases: { type: 'string', default: '' },
    'timeout-ms': { type: 'string', default: '1500000' },
  },
})

const say = (text: string): boolean => process.stderr.write(`${text}\n`)

/** The guest runs what is compiled here: nothing is translated in the slow machine. */
function compile(): void {
  rmSync(built, { recursive: true, force: true })
  const flags = ['--noEmit', 'false', '--outDir', built, '--declaration', 'false', '--sourceMap', 'false']
  command(process.execPath, join(root, 'node_modules/typescript/bin/tsc'), '--project', root, ...flags)
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

async function runInMachine(image: Image): Promise<Report> {
  compile()
  rmSync(results, { recursive: true, force: true })
  mkdirSync(results, { recursive: true })

  writeWishes(results, { only: options.only, cases: options.cases })
  await runMachine({ image, root, results, timeoutMs: Number(options['timeout-ms']) })
  return readReport(readFileSync(join(results, 'report.json'), 'utf8'))
}

const { image, reason } = prepared()
if (image === null) say(`SKIPPED: ${reason}`)
else say(`kernel ${image.release}, emulated`)
const report = image === null ? skippedReport(reason) : await runInMachine(image)
console.log(options.json ? JSON.stringify(report) : describeReport(report))
process.exitCode = succeeded(report) ? 0 : 1
