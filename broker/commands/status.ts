import type { Command } from 'commander'
import { brokerIdentity } from '../observe/inspect.js'
import { sharingOf } from '../observe/inspect-overview.js'
import { type BrokerLife, readNodeFile } from '../observe/node-file-reader.js'
import { exitCode, exitCodeHelp } from './exit-codes.js'
import { type CommonOptions, directoryOf, jsonOption, runtimeDirOption } from './options.js'
import { durationText, printJson, printLine } from './output.js'

const help = `
Examples:
  broker status
  broker status --json | jq -r .state
  broker status > /dev/null || echo 'no broker here'

The state is one of starting, running, draining, stopped, hung, dead.

${exitCodeHelp('success', 'usage', 'notRunning', 'hung')}`

export function addStatusCommand(program: Command): void {
  program
    .command('status')
    .summary('say whether the broker runs')
    .description(
      'Says in one line whether the broker of a runtime directory runs. Asks the kernel and the node file, not the broker.',
    )
    .addOption(runtimeDirOption())
    .addOption(jsonOption())
    .addHelpText('after', help)
    .action((options: CommonOptions) => {
      process.exitCode = printStatus(options)
    })
}

function printStatus(options: CommonOptions): number {
  const runtimeDirectory = directoryOf(options)
  const snapshot = readNodeFile(runtimeDirectory)
  const identity = brokerIdentity(snapshot)
  const { processes, sessions, queuePairs, sharedQueuePairs } = sharingOf(snapshot)
  const counts = { processes, sessions, queuePairs, sharedQueuePairs }
  if (options.json) {
    const { provider, device, linkAddress } = snapshot.header
    printJson({ ...identity, provider, device, linkAddress, runtimeDirectory, ...counts })
  } else {
    const { node, state, processId, uptimeMs, heartbeatAgeMs } = identity
    const since = state === 'dead' || state === 'stopped' ? {} : { uptime: durationText(uptimeMs) }
    const fields = { node, state, pid: processId, ...since, heartbeat: durationText(heartbeatAgeMs), ...counts }
    printLine({ noun: 'broker', fields })
  }
  return exitCodeOfLife(identity.state)
}

function exitCodeOfLife(life: BrokerLife): number {
  if (life === 'dead' || life === 'stopped') return exitCode.notRunning
  return life === 'hung' ? exitCode.hung : exitCode.success
}
