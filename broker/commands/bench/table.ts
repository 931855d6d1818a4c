/** Tables as perftest prints them: a title that says what is measured, a header with units, one result a line, 80 columns at most. */
import { FAR_NS } from './core-distance.js'
import type { BenchResult, BenchRow, BenchSettings, TestName } from './settings.js'

interface Column {
  /** Of a value, or of the row itself. */
  readonly key: string
  readonly header: string
  readonly decimals?: number
  readonly width: number
}

interface Table {
  readonly title: string
  /** Of the first column, for the longest name. */
  readonly workWidth?: number
  readonly columns: readonly Column[]
}

const column = (key: string, header: string, decimals: number, width = 10): Column => ({ key, header, decimals, width })
const bytes = column('bytes', 'bytes', 0, 8)
const pairsColumn = column('pairs', 'pairs', 0, 6)
const samples = column('samples', 'samples', 0)
const percentiles = (unit: 'Us' | 'Ns', decimals: number): Column[] => {
  const short = unit === 'Us' ? 'us' : 'ns'
  return [
    column(`p50${unit}`, `p50 ${short}`, decimals),
    column(`p99${unit}`, `p99 ${short}`, decimals),
    column(`p999${unit}`, `p99.9 ${short}`, decimals, 11),
  ]
}
const flowColumns = [
  column('millionsPerSecond', 'M/s', 3, 8),
  column('megabytesPerSecond', 'MB/s', 0, 7),
  column('systemCallsPerMessage', 'calls/msg', 3),
  column('brokersNsPerMessage', 'brokers', 0, 8),
  column('clientsNsPerMessage', 'clients', 0, 8),
]
const millisecondColumns = [
  column('p50Ms', 'p50 ms', 3),
  column('p99Ms', 'p99 ms', 3),
  column('maximumMs', 'most ms', 3),
]

const tables: Readonly<Record<TestName, Table>> = {
  latency: {
    title: 'Latency: send and write, half of a round trip; read, post to completion',
    columns: [bytes, ...percentiles('Us', 2), samples],
  },
  rate: {
    title: 'Message rate, one pair (brokers, clients: processor ns for each message)',
    columns: [bytes, ...flowColumns],
  },
  bandwidth: { title: 'Bandwidth, one pair (MB = 10^6 bytes)', columns: [bytes, ...flowColumns] },
  atomics: {
    title: 'Fetch-and-add, compare-and-swap: latency of one, rate with 16 under way',
    workWidth: 18,
    columns: [...percentiles('Us', 2), column('millionsPerSecond', 'M/s', 3, 9)],
  },
  pairs: {
    title: 'Many pairs at once, message rate of all; slow/fast: slowest pair to fastest',
    columns: [pairsColumn, bytes, ...flowColumns, column('slowestToFastest', 'slow/fast', 2)],
  },
  'pairs-latency': {
    title: 'Many pairs at once, half of a round trip; p50 of the median and worst pair',
    columns: [
      pairsColumn,
      bytes,
      column('p50Us', 'p50 us', 2),
      column('worstP50Us', 'worst us', 2),
      column('worstToMedian', 'worst/median', 2, 13),
      column('p99Us', 'p99 us', 2),
      samples,
    ],
  },
  mix: {
    title: 'Ping-pong beside large writes of another pair on the same shared queue pair',
    columns: [bytes, ...percentiles('Us', 1), column('bulkMBps', 'bulk MB/s', 0), column('bulkWrites', 'writes', 0, 8)],
  },
  'post-poll': {
    title: 'Post and poll in lists of 16, nanoseconds for each work request',
    columns: [bytes, ...percentiles('Ns', 0), samples],
  },
  attach: { title: 'Attach', columns: [...millisecondColumns, samples] },
  connect: {
    title: 'Connect: first makes the shared queue pair, next uses it',
    columns: [...millisecondColumns, samples],
  },
  idle: {
    title: 'Idle sessions on one broker',
    columns: [
      column('sessions', 'sessions', 0),
      column('cpuPercent', 'broker CPU %', 2, 13),
      column('kibibytesPerQueuePair', 'KiB/queue pair', 1, 15),
    ],
  },
}

const WORK_WIDTH = 13
/** Others that use more change what is measured. */
const DISTURBED_PERCENT = 10

/** Prints the title and the header of a table before its first row. */
export class TablePrinter {
  readonly #print: (line: string) => void
  #test: TestName | undefined

  constructor(print: (line: string) => void) {
    this.#print = print
  }

  row(row: BenchRow): void {
    const { title, columns, workWidth = WORK_WIDTH } = tables[row.test]
    if (row.test !== this.#test) {
      this.#test = row.test
      this.#print('')
      this.#print(title)
      this.#print(' work'.padEnd(workWidth) + columns.map(({ header, width }) => header.padStart(width)).join(''))
    }
    this.#print(` ${row.work}`.padEnd(workWidth) + columns.map((one) => cell(row, one)).join(''))
  }

  /** Last lines: what the machine did meanwhile that changes figures. */
  end(rows: readonly BenchRow[]): void {
    const notes = [disturbance(rows), distance(rows)].filter((note) => note !== undefined)
    if (notes.length > 0) this.#print('')
    for (const note of notes) this.#print(note)
  }
}

function disturbance(rows: readonly BenchRow[]): string | undefined {
  const most = Math.max(...rows.map(({ foreignCpuPercent }) => foreignCpuPercent))
  return most > DISTURBED_PERCENT ? `disturbed: others used up to ${most} % of the cores meanwhile` : undefined
}

function distance(rows: readonly BenchRow[]): string | undefined {
  const all = rows.map(({ coresNsApart }) => coresNsApart).filter((one) => one !== null)
  if (all.length === 0) return undefined
  const [least, most] = [Math.min(...all), Math.max(...all)]
  const range = most < 1.5 * least ? most.toFixed(0) : `${least.toFixed(0)} to ${most.toFixed(0)}`
  return `cores 0 and 1: ${range} ns apart${most > FAR_NS ? '; near ones, of one cache, would be faster' : ''}`
}

function cell(row: BenchRow, { key, decimals = 0, width }: Column): string {
  const value = key === 'bytes' || key === 'pairs' ? row[key] : row.values[key]
  return (value === undefined ? '-' : value.toFixed(decimals)).padStart(width)
}

const waitTexts: Readonly<Record<BenchSettings['wait'], string>> = {
  block: 'poll, then block in waitSync',
  brief: 'poll for 20 us, then block in waitSync',
  spin: 'poll without end',
  'event-loop': 'poll, then await wait() (ping-pong; else block)',
}

export function headLines(settings: BenchSettings, machine: BenchResult['machine']): string[] {
  const { provider, idle, runtimeDirectories, isLocal, wait, isPinned, isLoaded, durationMs, depth, inline } = settings
  const brokers = runtimeDirectories ? `running ones, ${runtimeDirectories.join(' and ')}` : `${provider}, idle ${idle}`
  return [
    `machine  ${machine.cores} cores, ${machine.processor}, Node ${machine.node}, load ${machine.load.toFixed(2)}`,
    `brokers  ${brokers}${isLocal ? '; both processes of a pair on one node' : '; two nodes over loopback'}`,
    `clients  ${waitTexts[wait]}; ${inline ? 'small payloads inline' : 'payloads from registered memory'}`,
    `runs     ${durationMs} ms each after a warm-up, depth ${depth}${isPinned ? ', each node on a core' : ''}${isLoaded ? ', a computing process on each core' : ''}`,
  ].map((line) => line.slice(0, 80))
}
