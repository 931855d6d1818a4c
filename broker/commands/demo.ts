import { resolve } from 'node:path'
import { type Command, Option } from 'commander'
import { SharedVerbsError } from '../../protocol/errors.js'
import { limits } from '../../protocol/limits.js'
import { printResult } from './demo/result.js'
import { exitCode, exitCodeHelp } from './exit-codes.js'
import { type CommonOptions, jsonOption, wholeNumber } from './options.js'
import { printJson } from './output.js'

interface DemoOptions extends CommonOptions {
  readonly processes: number
  readonly lanes: number
  readonly provider: 'soft' | 'verbs' | 'auto'
  readonly file: string
  readonly keep?: boolean
}

const help = `
Two brokers, alpha and beta, and a job of real processes on both. Every process
exchanges messages with every remote one; a file is scattered over the memories
of beta by RDMA write and read back by RDMA read; all add to one counter; two
processes post to one queue pair; one process is killed and the others finish.
Everything is verified. Nothing is left behind.

Examples:
  broker demo
  broker demo --processes 32 --lanes 2
  broker demo --file /usr/bin/python3 --json

${exitCodeHelp('success', 'failure', 'usage')}`

export function addDemoCommand(program: Command): void {
  program
    .command('demo')
    .summary('two brokers and their jobs, on this machine')
    .description('Shows on one machine what the broker does, with real processes.')
    .option('--processes <n>', 'processes on each node', wholeNumber(2, 64), 8)
    .option('--lanes <n>', 'shared queue pairs between the nodes', wholeNumber(1, limits.lanes), 1)
    .addOption(
      new Option('--provider <name>', 'what the brokers use: an RDMA device or TCP')
        .choices(['soft', 'verbs', 'auto'])
        .default('soft'),
    )
    .addOption(new Option('--file <path>', 'file to move').default(process.execPath, 'the program node'))
    .option('--keep', 'keep the directory with logs and the file')
    .addOption(jsonOption())
    .addHelpText('after', help)
    .action(demo)
}

async function demo(options: DemoOptions): Promise<void> {
  const { progressBar, silentProgress } = await import('./demo/progress.js')
  const { Demo } = await import('./demo/run.js')
  const progress = process.stdout.isTTY && !options.json ? progressBar() : silentProgress
  const { processes, lanes, provider, keep = false } = options
  const run = new Demo({ processes, lanes, provider, file: resolve(options.file), keep }, progress)
  const interrupted = whenInterrupted()
  try {
    const result = await Promise.race([run.run(), interrupted])
    if (options.json) printJson(result)
    else printResult(result)
    if (!result.verified) process.exitCode = exitCode.failure
  } finally {
    progress.end()
    await run.clean()
  }
}

/** Ctrl-C ends the demo as a failure would: processes and files are cleaned up first. */
function whenInterrupted(): Promise<never> {
  return new Promise((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => reject(new SharedVerbsError('aborted', `the demo was ended by ${signal}`)))
    }
  })
}
