/** `npm run storm`: processes, brokers and links die under checked traffic; ends with what was lost. */
import { randomInt } from 'node:crypto'
import { refuse, toolOptions } from '../support/tool-options.js'
import { isFaultless, jsonOf, type Progress, type StormOptions, tableOf } from './report.js'
import { runStorm } from './storm.js'

const help = `npm run storm -- [options]

  --seconds <n>        time over which the faults are spread (30)
  --kills <n>          processes killed and replaced (200)
  --stops <n>          processes stopped for a while (a tenth of the kills)
  --broker-kills <n>   brokers killed and replaced, sometimes both (0)
  --link-cuts <n>      connections between the brokers cut (0)
  --processes <n>      on each of two nodes, 4 to 64 (8)
  --rate <n>           requests a second of each process (100)
  --seed <n>           decides the faults; printed (by chance)
  --keep               keep journals and logs if it fails
  --json               last line as JSON, no progress

Exit status 1 if anything was lost, doubled, reordered, corrupted, wrong, stuck
or left behind. tests/storm/README.md says what is done and judged.`

function numberOf(
  values: Readonly<Record<string, string | boolean | undefined>>,
  name: string,
  otherwise: number,
): number {
  const text = values[name]
  if (text === undefined) return otherwise
  if (typeof text !== 'string' || !/^\d{1,9}$/.test(text)) refuse(help, `--${name} needs a whole number, not ${text}`)
  return Number(text)
}

function between(name: string, value: number, least: number, most: number): number {
  if (value < least || value > most) refuse(help, `--${name} is from ${least} to ${most}`)
  return value
}

function optionsOf(values: Readonly<Record<string, string | boolean | undefined>>): StormOptions {
  const kills = between('kills', numberOf(values, 'kills', 200), 0, 1800)
  return {
    seconds: between('seconds', numberOf(values, 'seconds', 30), 1, 3600),
    kills,
    stops: numberOf(values, 'stops', Math.ceil(kills / 10)),
    brokerKills: numberOf(values, 'broker-kills', 0),
    linkCuts: numberOf(values, 'link-cuts', 0),
    processes: between('processes', numberOf(values, 'processes', 8), 4, 64),
    rate: between('rate', numberOf(values, 'rate', 100), 1, 100_000),
    seed: numberOf(values, 'seed', randomInt(1_000_000)),
    keep: values['keep'] === true,
  }
}

function progressOf(silent: boolean): Progress {
  if (silent) return { say() {} }
  if (process.stderr.isTTY) return { say: (text) => void process.stderr.write(`\r${text.padEnd(79).slice(0, 79)}`) }
  return { say() {} }
}

const text = { type: 'string' } as const
const names = ['seconds', 'kills', 'stops', 'broker-kills', 'link-cuts', 'processes', 'rate', 'seed'] as const
const { values } = toolOptions(help, {
  options: {
    ...Object.fromEntries(names.map((name) => [name, text])),
    json: { type: 'boolean' },
    keep: { type: 'boolean' },
  },
})

const options = optionsOf(values)
const isJson = values['json'] === true
if (!isJson) process.stdout.write(`storm  seed ${options.seed}\n`)
const result = await runStorm(options, progressOf(isJson))
if (process.stderr.isTTY && !isJson) process.stderr.write(`\r${' '.repeat(79)}\r`)
process.stdout.write(`${isJson ? jsonOf(result) : tableOf(result)}\n`)
process.exitCode = isFaultless(result) ? 0 : 1
