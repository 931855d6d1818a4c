import type { Command } from 'commander'
import { SharedVerbsError } from '../../protocol/errors.js'
import { lockHolderOf, processExists } from '../observe/node-file-reader.js'
import { exitCodeHelp } from './exit-codes.js'
import { type CommonOptions, directoryOf, jsonOption, runtimeDirOption, timeoutOption } from './options.js'
import { printJson, printLine } from './output.js'
import { findRunningBroker, signalBroker } from './running-broker.js'
import { waitUntil } from './wait.js'

interface StopOptions extends CommonOptions {
  readonly timeoutMs: number
  readonly kill?: boolean
}

const help = `
The broker drains first: what was posted gets its verdict, within the drain
timeout it was started with. Sessions that are still attached lose it.

Examples:
  broker stop
  broker stop --runtime-dir /run/shared-verbs --timeout-ms 60000
  broker stop --kill --timeout-ms 5000     a hung broker does not answer SIGTERM

${exitCodeHelp('success', 'failure', 'usage', 'notRunning', 'timeout')}`

export function addStopCommand(program: Command): void {
  program
    .command('stop')
    .summary('drain and end the broker')
    .description('Sends SIGTERM to the broker of a runtime directory and waits until it is gone.')
    .addOption(runtimeDirOption())
    .addOption(timeoutOption(30_000, 'how long to wait for its end'))
    .option('--kill', 'send SIGKILL when the time is up')
    .addOption(jsonOption())
    .addHelpText('after', help)
    .action(stop)
}

async function stop(options: StopOptions): Promise<void> {
  const snapshot = findRunningBroker(directoryOf(options))
  const { node, processId } = snapshot.header
  // The lock goes first; whoever waits for the end wants the process gone as well.
  const gone = (): boolean => lockHolderOf(snapshot.path) !== snapshot.lockHolder && !processExists(snapshot.lockHolder)
  signalBroker(snapshot, 'SIGTERM')
  let stopped = await waitUntil(gone, options.timeoutMs)
  const killed = !stopped && options.kill === true
  if (killed) {
    signalBroker(snapshot, 'SIGKILL')
    stopped = await waitUntil(gone, 5000)
  }
  if (!stopped) {
    throw new SharedVerbsError(
      'timeout',
      `the broker, node ${node}, pid ${processId}, did not end within ${options.timeoutMs} ms; 'broker status' says in which state it is, --kill ends it`,
      { processId, timeoutMs: options.timeoutMs },
    )
  }
  if (options.json) printJson({ node, processId, state: killed ? 'killed' : 'stopped' })
  else printLine({ noun: 'broker', fields: { node, pid: processId, state: killed ? 'killed' : 'stopped' } })
}
