import type { Command } from 'commander'
import { SharedVerbsError } from '../../protocol/errors.js'
import { brokerIdentity } from '../observe/inspect.js'
import { sharingOf } from '../observe/inspect-overview.js'
import { type BrokerLife, readNodeFile } from '../observe/node-file-reader.js'
import { exitCodeHelp } from './exit-codes.js'
import { type CommonOptions, directoryOf, jsonOption, runtimeDirOption, timeoutOption } from './options.js'
import { printJson, printLine } from './output.js'
import { findRunningBroker, signalBroker } from './running-broker.js'
import { waitUntil } from './wait.js'

export interface DrainOptions extends CommonOptions {
  readonly timeoutMs: number
  readonly handover?: boolean
}

const help = `
A draining broker refuses new sessions, queue pairs and connections; what was
posted gets its verdict. It stays up until 'broker stop'. There is no way back:
start another broker after stopping it.

With --handover the broker gives way to one that stands by ('broker start
--standby'): what was posted ends, sessions and peers go on with the new one
and lose nothing. When that does not end in time, the broker goes on as before.

Examples:
  broker start --daemon --standby && broker drain --handover
  broker drain && broker stop
  broker drain --json --timeout-ms 10000

${exitCodeHelp('success', 'failure', 'usage', 'notRunning', 'timeout')}`

export function addDrainCommand(program: Command): void {
  program
    .command('drain')
    .summary('let the broker take nothing new')
    .description('Sends SIGUSR2 to the broker of a runtime directory and waits until it says that it drains.')
    .addOption(runtimeDirOption())
    .addOption(timeoutOption(30_000, 'how long to wait for its word'))
    .option('--handover', 'let the broker that stands by take over')
    .addOption(jsonOption())
    .addHelpText('after', help)
    .action(drain)
}

async function drain(options: DrainOptions): Promise<void> {
  if (options.handover) {
    const { handOver } = await import('./drain-handover.js')
    await handOver(options)
    return
  }
  const runtimeDirectory = directoryOf(options)
  const lifeNow = (): BrokerLife => readNodeFile(runtimeDirectory).life
  const deadlineMs = performance.now() + options.timeoutMs
  // A broker that is only starting may not have its handlers yet: the signal would end it.
  await waitUntil(() => findRunningBroker(runtimeDirectory).life !== 'starting', options.timeoutMs)
  const before = findRunningBroker(runtimeDirectory)
  if (before.life !== 'draining') signalBroker(before, 'SIGUSR2')
  if (!(await waitUntil(() => lifeNow() === 'draining', deadlineMs - performance.now()))) {
    throw new SharedVerbsError(
      'timeout',
      `the broker, node ${before.header.node}, pid ${before.header.processId}, is ${lifeNow()} after ${options.timeoutMs} ms and does not drain`,
      { processId: before.header.processId, timeoutMs: options.timeoutMs },
    )
  }
  const after = readNodeFile(runtimeDirectory)
  const { node, state, processId } = brokerIdentity(after)
  const { sessions, queuePairs } = sharingOf(after)
  if (options.json) printJson({ node, processId, state, sessions, queuePairs })
  else printLine({ noun: 'broker', fields: { node, pid: processId, state, sessions, queuePairs } })
}
