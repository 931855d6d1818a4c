/** The command line. Whatever goes wrong ends here: as `broker: <code>: <message>` on stderr and an exit status of commands/exit-codes.ts. */
import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { SharedVerbsError } from '../protocol/errors.js'
import { SystemCallError } from '../shm/libc.js'
import { addBenchCommand } from './commands/bench.js'
import { addDemoCommand } from './commands/demo.js'
import { addDrainCommand } from './commands/drain.js'
import { exitCode, exitCodeHelp, exitCodeOf } from './commands/exit-codes.js'
import { addInspectCommand } from './commands/inspect.js'
import { printError } from './commands/output.js'
import { addStartCommand } from './commands/start.js'
import { addStatusCommand } from './commands/status.js'
import { addStopCommand } from './commands/stop.js'

const help = `
Runtime directory: --runtime-dir, else $SHARED_VERBS_DIR, else
$XDG_RUNTIME_DIR/shared-verbs, else /run/shared-verbs. One broker in each.

Examples:
  broker start --node alpha            in the foreground; Ctrl-C drains and stops
  broker inspect                       does it work, and does sharing work
  broker demo                          two brokers and their jobs, on this machine

${exitCodeHelp('success', 'failure', 'usage', 'notRunning', 'alreadyRunning', 'hung', 'timeout')}

Errors are 'broker: <code>: <message>' on stderr; with --json one JSON object.`

function packageVersion(): string {
  // One folder up from the sources, two from what is built of them.
  for (const path of ['../package.json', '../../package.json']) {
    try {
      const found: unknown = JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8'))
      return String((found as { version?: unknown }).version)
    } catch {}
  }
  return 'unknown'
}

function createProgram(): Command {
  const program = new Command('broker')
    .description('Shares a few RDMA queue pairs among all processes of a node.')
    .version(packageVersion(), '-V, --version')
    .exitOverride()
    // Errors are printed once, at the end, in the form this file promises.
    .configureOutput({ outputError: () => {} })
    .helpCommand(false)
    .addHelpText('after', help)
  addStartCommand(program)
  addStatusCommand(program)
  addDrainCommand(program)
  addStopCommand(program)
  addInspectCommand(program)
  addDemoCommand(program)
  addBenchCommand(program)
  return program
}

/** commander's own refusals, in the project's codes. */
function fromCommander(error: CommanderError): SharedVerbsError {
  const message = error.message
    .replace(/^error: /, '')
    .replaceAll('\n', ' ')
    .replace(/\.$/, '')
  const code = error.code === 'commander.unknownOption' ? 'unknown-option' : 'invalid-argument'
  const [, offender] = /'([^']*)'/.exec(message) ?? []
  return new SharedVerbsError(code, `${message}; see --help`, { offender: offender ?? null })
}

function toError(error: unknown): SharedVerbsError {
  if (error instanceof SharedVerbsError) return error
  if (error instanceof CommanderError) return fromCommander(error)
  if (error instanceof SystemCallError) return new SharedVerbsError('system-call-failed', error.message, {}, error)
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
  return new SharedVerbsError('internal-error', text, {}, error)
}

function endWith(error: unknown, asJson: boolean): void {
  if (error instanceof CommanderError && error.exitCode === 0) return
  if (error instanceof CommanderError && error.code === 'commander.help') {
    process.exitCode = exitCode.usage
    return
  }
  const known = toError(error)
  printError(known, asJson)
  process.exitCode = exitCodeOf(known.code)
}

// A reader that has seen enough, such as `head`, is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  process.exit()
})

try {
  await createProgram().parseAsync()
} catch (error) {
  endWith(error, process.argv.includes('--json'))
}
