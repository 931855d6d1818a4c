/**
 * All explorations, also the long ones, as a table. `npm run explore -- --help` says what else it does. Ends with 1 if anything does not
 * hold.
 */
import { explore, type Report, replay } from '../support/explorer.js'
import { refuse, toolOptions } from '../support/tool-options.js'
import { type Exploration, fullName, run, tellFailure } from './exploration.js'
import { explorations } from './explorations.js'
import { loadExplored } from './load.js'
import { mutants } from './mutants.js'

const HELP = `npm run explore -- [options]

  --scene NAME         only this scene, or the one exploration of that whole name
  --short              only what the tests run
  --mutants            runs all mistakes instead: which invariant catches each, in how many steps
  --mutant NAME        runs this mistake instead; it should fail
  --replay SCHEDULE    with the whole name of an exploration, or a mutant: these steps only, each is told
  --json               ends with one line of JSON
  --list               the names of all explorations and mutants`

const { values: options } = toolOptions(HELP, {
  options: {
    scene: { type: 'string' },
    mutants: { type: 'boolean', default: false },
    mutant: { type: 'string' },
    replay: { type: 'string' },
    short: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
  },
})

const say = (line: string): void => void process.stdout.write(`${line}\n`)

/** A mutant as an exploration. */
function mutantNamed(name: string): Exploration {
  const mutant = mutants.find((one) => one.name === name)
  if (!mutant) refuse(HELP, `there is no mutant '${name}'; --list tells those there are`)
  const scenario = async () => mutant.scenario(await loadExplored(mutant.changes))
  return { scene: 'mutant', promise: 'is caught', name, scenario }
}

function chosen(): readonly Exploration[] {
  if (options.mutant !== undefined) return [mutantNamed(options.mutant)]
  const { scene, short } = options
  const found = explorations
    .filter((one) => !short || !one.isLong)
    .filter((one) => scene === undefined || scene === one.scene || scene === fullName(one))
  if (found.length === 0) refuse(HELP, `there is no exploration '${scene}'; --list tells those there are`)
  return found
}

async function replayOne(exploration: Exploration, schedule: string): Promise<void> {
  const { failure, trace } = replay(await exploration.scenario(fullName(exploration)), schedule)
  for (const step of trace) say(step)
  if (failure === undefined) return say('everything holds')
  say(failure instanceof Error ? failure.message : String(failure))
  process.exitCode = 1
}

async function runMutants(): Promise<void> {
  for (const { name, changes, scenario, caughtBy } of mutants) {
    const { failure } = explore(scenario(await loadExplored(changes)))
    const isCaught = failure !== undefined && caughtBy.includes(failure.invariant)
    if (!isCaught) process.exitCode = 1
    say(`| ${name} | ${isCaught ? failure.invariant : 'not caught'} | ${failure?.trace.length ?? 0} |`)
  }
}

const columns = ['states', 'steps', 'ends', 'deaths', 'seconds'] as const
type Row = Record<(typeof columns)[number], number>

const rowOf = ({ states, steps, ends, deaths, elapsedMs }: Report): Row => ({
  states,
  steps,
  ends,
  deaths,
  seconds: Math.round(elapsedMs / 100) / 10,
})

function sayRow(name: string, bounds: string, row: Row | undefined): void {
  const cells = columns.map((column) => (row ? row[column].toFixed(column === 'seconds' ? 1 : 0) : column).padStart(10))
  say(`${name.padEnd(78)} ${bounds.padEnd(44)}${cells.join('')}`)
}

async function runAll(all: readonly Exploration[]): Promise<void> {
  const sum: Row = { states: 0, steps: 0, ends: 0, deaths: 0, seconds: 0 }
  const rows: object[] = []
  let failures = 0
  sayRow('exploration', 'bounds', undefined)
  for (const exploration of all) {
    const report = await run(exploration)
    const row = rowOf(report)
    const wrong = tellFailure(exploration, report)
    for (const column of columns) sum[column] += row[column]
    rows.push({ name: fullName(exploration), bounds: report.bounds, ...row, holds: wrong.length === 0 })
    sayRow(fullName(exploration), report.bounds, row)
    if (wrong.length === 0) continue
    failures++
    for (const line of wrong) say(line)
  }
  sayRow(`${all.length} explorations, ${failures} violations`, '', sum)
  if (options.json) {
    const seconds = Math.round(sum.seconds * 10) / 10
    say(JSON.stringify({ explorations: rows, sum: { ...sum, seconds }, violations: failures }))
  }
  if (failures > 0) process.exitCode = 1
}

if (options.list) {
  for (const one of explorations) say(`${fullName(one)}${one.isLong ? ' (long)' : ''}`)
  for (const { name } of mutants) say(`mutant: ${name}`)
} else if (options.mutants) await runMutants()
else if (options.replay === undefined) await runAll(chosen())
else {
  const [exploration, ...others] = chosen()
  if (!exploration || others.length > 0) refuse(HELP, '--replay needs the whole name of one exploration, or a mutant')
  await replayOne(exploration, options.replay)
}
