import { setTimeout as sleep } from 'node:timers/promises'
import { Argument, type Command, InvalidArgumentError } from 'commander'
import { SharedVerbsError } from '../../protocol/errors.js'
import { brokerIdentity, type InspectViewName, inspectViewNames, inspectViews } from '../observe/inspect.js'
import type { InspectRow } from '../observe/inspect-row.js'
import { type NodeFileSnapshot, readNodeFile } from '../observe/node-file-reader.js'
import { exitCodeHelp } from './exit-codes.js'
import { type CommonOptions, directoryOf, gathered, jsonOption, runtimeDirOption } from './options.js'
import { durationText, printJson, textKey, textLine } from './output.js'

interface Filter {
  readonly key: string
  readonly value: string
}

interface InspectOptions extends CommonOptions {
  readonly watch?: number | true
  readonly details?: boolean
  readonly filter?: Filter[]
}

const help = `
Views:
  overview    that the broker works and that sharing does
  sessions    attached processes            qps        queue pairs of clients
  shared-qps  queue pairs of the provider   cqs        completion queues
  mrs         memory regions                peers      other brokers
  locks       robust locks that are held    counters   what was counted
  errors      distinct errors               events     the last events

One object a line, 'key value' pairs, as the rdma tool prints them. Everything
comes from the mapped node file: it works when the broker hangs or is dead, and
says so. A dead broker's numbers are its last ones.

Examples:
  broker inspect
  broker inspect qps --filter pid=4711 --details
  broker inspect shared-qps --json | jq '.rows[] | .lqpn'
  broker inspect counters --watch 2

${exitCodeHelp('success', 'failure', 'usage', 'notRunning')}`

export function addInspectCommand(program: Command): void {
  program
    .command('inspect')
    .summary('look into the broker, alive or dead')
    .description('Shows what the broker holds, from its node file.')
    .addArgument(new Argument('[view]', 'what to show').choices(inspectViewNames).default('overview'))
    .addOption(runtimeDirOption())
    .option('-d, --details', 'show every key')
    .option('-f, --filter <key=value>', 'only objects with this value; may be given again', gathered(filterOf))
    .option('-w, --watch [seconds]', 'again and again, by default every second', secondsOf)
    .addOption(jsonOption())
    .addHelpText('after', help)
    .action(inspect)
}

function filterOf(text: string): Filter {
  const [, key, value] = /^([A-Za-z-]+)=(.*)$/.exec(text) ?? []
  if (key === undefined || value === undefined) throw new InvalidArgumentError('A filter is written key=value.')
  return { key: textKey(key), value }
}

function secondsOf(text: string): number {
  const seconds = Number(text)
  if (!(seconds >= 0.1 && seconds <= 3600)) throw new InvalidArgumentError('Seconds from 0.1 to 3600 are needed.')
  return seconds
}

async function inspect(view: InspectViewName, options: InspectOptions): Promise<void> {
  const runtimeDirectory = directoryOf(options)
  if (options.watch === undefined) {
    show(readNodeFile(runtimeDirectory), view, options)
    return
  }
  const everyMs = (options.watch === true ? 1 : options.watch) * 1000
  let before: NodeFileSnapshot | undefined
  let absence = ''
  for (;;) {
    if (process.stdout.isTTY) process.stdout.write('\x1b[2J\x1b[H')
    try {
      const now = readNodeFile(runtimeDirectory)
      show(now, view, options, before)
      before = now
      absence = ''
    } catch (error) {
      // A watcher outlives the broker it watches, and sees the next one.
      if (!(error instanceof SharedVerbsError) || error.code !== 'broker-not-running') throw error
      if (error.message !== absence) process.stderr.write(`broker: note: ${error.message}\n`)
      absence = error.message
    }
    await sleep(everyMs)
  }
}

function show(
  snapshot: NodeFileSnapshot,
  view: InspectViewName,
  options: InspectOptions,
  before?: NodeFileSnapshot,
): void {
  const found = view === 'counters' && before ? withRates(snapshot, before) : inspectViews[view](snapshot)
  const rows = found.filter((row) => matches(row, options.filter ?? []))
  if (options.json) {
    printJson({ ...brokerIdentity(snapshot), view, rows: rows.map((row) => ({ ...row.fields, ...row.details })) })
    return
  }
  noteTrouble(snapshot)
  const shown = view === 'counters' && !options.details ? rows.filter((row) => row.fields['value'] !== 0) : rows
  for (const { noun, fields, details } of shown) {
    process.stdout.write(`${textLine({ noun, fields: options.details ? { ...fields, ...details } : fields })}\n`)
  }
}

/** Counters of a watch: also how fast they went since the last look. */
function withRates(now: NodeFileSnapshot, before: NodeFileSnapshot): InspectRow[] {
  const old = before.counters()
  const seconds = Math.max(0.001, (now.takenTimeMs - before.takenTimeMs) / 1000)
  return Object.entries(now.counters()).map(([name, value]) => {
    const perSecond = Math.round((value - old[name as keyof typeof old]) / seconds)
    return { noun: 'counter', fields: { name, value, perSecond } }
  })
}

function matches(row: InspectRow, filters: readonly Filter[]): boolean {
  const values = new Map(Object.entries({ ...row.fields, ...row.details }).map(([key, value]) => [textKey(key), value]))
  return filters.every(({ key, value }) => values.has(key) && String(values.get(key)) === value)
}

function noteTrouble(snapshot: NodeFileSnapshot): void {
  const { header, life, heartbeatAgeMs } = snapshot
  const age = durationText(heartbeatAgeMs)
  const notes: Partial<Record<typeof life, string>> = {
    dead: `the broker, pid ${header.processId}, is dead; this is what it left ${age} ago`,
    stopped: `the broker, pid ${header.processId}, has stopped; this is what it left ${age} ago`,
    hung: `the broker, pid ${header.processId}, hangs: its heart last beat ${age} ago`,
  }
  const note = notes[life]
  if (note !== undefined) process.stderr.write(`broker: note: ${note}\n`)
}
