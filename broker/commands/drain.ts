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

interface DrainOptions extends CommonOptions {
  readonly timeoutMs: number
}

const help = `
A draining broker refuses new sessions, queue pairs and connections; what was
posted gets its verdict. It stays up until 'broker stop'. There is no way back:
start another broker after stopping it.

Examples:
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
    .addOption(jsonOption())
    .addHelpText('after', help)
    .action(drain)
}

async function drain(options: DrainOptions): Promise<void> {
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
