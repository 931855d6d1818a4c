import { writeFileSync } from 'node:fs'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { type BenchWait, benchWaits } from '../../protocol/bench.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import { limits } from '../../protocol/limits.js'
import { type BenchSettings, type TestName, testNames } from './bench/settings.js'
import { headLines, TablePrinter } from './bench/table.js'
import { exitCodeHelp } from './exit-codes.js'
import { gathered, jsonOption, wholeNumber } from './options.js'
import { printJson } from './output.js'

interface BenchOptions {
  readonly only?: TestName[]
  readonly size?: number[]
  readonly all?: boolean
  readonly pairs?: number[]
  readonly local?: boolean
  readonly wait: BenchWait
  readonly inline?: boolean
  readonly duration: number
  readonly depth?: number
  readonly bulk: number
  readonly sessions: number
  readonly idle: 'adaptive' | 'spin' | 'block'
  readonly provider: 'soft' | 'verbs' | 'auto'
  readonly pin?: boolean
  readonly load?: boolean
  readonly runtimeDir?: readonly [string, string]
  readonly svg?: string
  readonly keep?: boolean
  readonly json?: boolean
}

const LARGEST = 2 ** 30
/** Frames of a lane hold more. Four thousand slots and their payloads are still in the second cache of these processors. */
const DEPTH = 3072
/** Where nothing is on its way, more only needs more of the caches. */
const DEPTH_ON_ONE_NODE = 1024
const DEPTH_HELP = `requests outstanding in rates, of all pairs (default: ${DEPTH}; ${DEPTH_ON_ONE_NODE} with --local)`

const help = `
Tests: ${testNames.slice(0, 7).join(' ')}
  ${testNames.slice(7).join(' ')}

Two brokers over loopback and processes that talk through them, as perftest does
between two nodes. A one-way latency is half of a round trip. Each measurement
warms up before it counts. calls/msg: of the brokers, to the network. brokers,
clients: processor ns that those of both nodes together spend on a message.

Examples:
  broker bench --only latency,rate
  broker bench --only pairs --pairs 1,2,4,8,16
  broker bench --only latency --all --svg latency.svg
  broker bench --local --idle block --json
  broker bench --runtime-dir /run/a,/run/b --only bandwidth --size 1048576

${exitCodeHelp('success', 'failure', 'usage', 'notRunning')}`

export function addBenchCommand(program: Command): void {
  program
    .command('bench')
    .summary('what sharing costs, measured on this machine')
    .description('Measures latency, rate, bandwidth and costs of the broker and its clients.')
    .option('--only <test,...>', 'these tests (default: all)', testList)
    .option('--size <bytes>', 'of messages, may be given again', gathered(wholeNumber(8, LARGEST)))
    .option('--all', 'powers of two from 8 B to 1 MiB, and 1 to 16 pairs')
    .option('--pairs <n,...>', 'pairs of processes at once (default: 8)', pairsList)
    .option('--local', 'both processes of a pair on the same node')
    .addOption(new Option('--wait <how>', 'how clients wait').choices(benchWaits).default('block'))
    .option('--inline', 'copy small payloads into the requests')
    .option('--duration <ms>', 'of each measurement', wholeNumber(50, 600_000), 2000)
    .option('--depth <n>', DEPTH_HELP, wholeNumber(64, limits.slotsPerQueue))
    .option('--bulk <bytes>', 'of a large write in the mix', wholeNumber(1, limits.messageByteLength), LARGEST)
    .option('--sessions <n>', 'of the idle test', wholeNumber(1, limits.members - 64), 1000)
    .addOption(
      new Option('--idle <how>', 'how the engines wait').choices(['adaptive', 'spin', 'block']).default('adaptive'),
    )
    .addOption(new Option('--provider <name>', 'RDMA device or TCP').choices(['soft', 'verbs', 'auto']).default('soft'))
    .option('--pin', 'each node on a core of its own: alpha on 0, beta on 1')
    .option('--load', 'beside a computing process on each core')
    .option('--runtime-dir <a,b>', 'two brokers that run, each other’s peers', twoDirectories)
    .option('--svg <file>', 'draw latencies and rates')
    .option('--keep', 'keep the directory with the logs of brokers and processes')
    .addOption(jsonOption())
    .addHelpText('after', help)
    .action(bench)
}

function testList(text: string): TestName[] {
  const names = text.split(',')
  const unknown = names.find((name) => !testNames.some((known) => known === name))
  if (unknown !== undefined) throw new InvalidArgumentError(`No test is named ${unknown}: ${testNames.join(', ')}.`)
  return names as TestName[]
}

const pairsList = (text: string): number[] => text.split(',').map(wholeNumber(1, 64))

function twoDirectories(text: string): readonly [string, string] {
  const [first, second, ...more] = text.split(',')
  if (!first || !second || more.length > 0) throw new InvalidArgumentError('Two directories with a comma are needed.')
  return [first, second]
}

const powersOfTwo = Array.from({ length: 18 }, (_, exponent) => 2 ** (exponent + 3))

function settingsOf(options: BenchOptions): BenchSettings {
  return {
    tests: options.only ?? testNames,
    sizes: options.size ?? (options.all ? powersOfTwo : []),
    pairs: options.pairs ?? (options.all ? [1, 2, 4, 8, 16] : [8]),
    isLocal: options.local ?? false,
    wait: options.wait,
    inline: options.inline ?? false,
    durationMs: options.duration,
    depth: options.depth ?? (options.local ? DEPTH_ON_ONE_NODE : DEPTH),
    bulkByteLength: options.bulk,
    idleSessions: options.sessions,
    idle: options.idle,
    provider: options.provider,
    isPinned: options.pin ?? false,
    isLoaded: options.load ?? false,
    runtimeDirectories: options.runtimeDir,
    keep: options.keep ?? false,
  }
}

async function bench(options: BenchOptions): Promise<void> {
  const { Bench, machineNow } = await import('./bench/run.js')
  const settings = settingsOf(options)
  const run = new Bench(settings)
  const printer = new TablePrinter((line) => process.stdout.write(`${line}\n`))
  try {
    if (!options.json) for (const line of headLines(settings, machineNow())) process.stdout.write(`${line}\n`)
    const onRow = options.json ? () => {} : printer.row.bind(printer)
    const result = await Promise.race([run.run(onRow), whenInterrupted()])
    if (!options.json) printer.end(result.rows)
    if (options.svg !== undefined) {
      const { drawResult } = await import('./bench/plot.js')
      writeFileSync(options.svg, drawResult(result.rows))
    }
    if (options.json) printJson(result)
    else if (options.keep) process.stdout.write(`\nkept in ${run.directory}\n`)
  } finally {
    await run.clean()
  }
}

/** Ctrl-C ends the benchmark as a failure would: processes and files are cleaned up first. */
function whenInterrupted(): Promise<never> {
  return new Promise((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => reject(new SharedVerbsError('aborted', `the benchmark was ended by ${signal}`)))
    }
  })
}
