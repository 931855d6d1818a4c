/** A run: brokers, processes, the measurements asked for, and nothing left of them afterwards. */
import { mkdtempSync, rmSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { SharedVerbsError } from '../../../protocol/errors.js'
import { Children } from '../demo/children.js'
import { type BenchBroker, findBrokers } from './brokers.js'
import { CoreDistance } from './core-distance.js'
import { Crew } from './crew.js'
import { atomics, bandwidth, pairs, rate } from './flow.js'
import { Foreign } from './foreign.js'
import { latency, mix, pairsLatency } from './latency.js'
import { startLoad } from './load.js'
import { pinToCore } from './pinning.js'
import { attach, connect, idle, postPoll } from './sessions.js'
import type { BenchResult, BenchRow, BenchSettings, TestName } from './settings.js'
import type { Rows, Stage } from './stage.js'

const tests: Readonly<Record<TestName, (stage: Stage) => Rows>> = {
  latency,
  rate,
  bandwidth,
  atomics,
  pairs,
  'pairs-latency': pairsLatency,
  mix,
  'post-poll': postPoll,
  attach,
  connect,
  idle,
}

export function machineNow(): BenchResult['machine'] {
  const processors = cpus()
  const processor = processors[0]?.model.trim() ?? 'unknown'
  return { cores: processors.length, processor, node: process.versions.node, load: loadavg()[0] ?? 0 }
}

export class Bench {
  readonly #settings: BenchSettings
  readonly #children = new Children()
  readonly #directory = mkdtempSync(join(tmpdir(), 'shared-verbs-bench-'))
  readonly #startedMs = performance.now()
  #stage: Stage | undefined

  constructor(settings: BenchSettings) {
    this.#settings = settings
    // A reader of the output that goes away ends this process at once; brokers and processes notice by themselves.
    process.once('exit', () => this.#remove())
  }

  /** Ends what is left of processes and files. May be called at any time, again too. */
  async clean(): Promise<void> {
    await this.#children.endAll()
    this.#remove()
  }

  #remove(): void {
    if (!this.#settings.keep) rmSync(this.#directory, { recursive: true, force: true })
  }

  /** Logs of brokers and processes are here, with `keep` also after `clean`. */
  get directory(): string {
    return this.#directory
  }

  async start(): Promise<Stage> {
    const settings = this.#settings
    const brokers = await findBrokers(settings, this.#children, this.#directory)
    if (settings.isPinned) for (const [side, { processId }] of brokers.entries()) pinToCore(processId, side)
    if (settings.isLoaded) startLoad(this.#children, cpus().length)
    const crew = new Crew(settings, brokers, this.#children, this.#directory)
    const foreign = new Foreign(this.#children, () => brokers.map(({ processId }) => processId))
    this.#stage = { settings, brokers, crew, foreign, works: new Set() }
    return this.#stage
  }

  async run(onRow: (row: BenchRow) => void): Promise<BenchResult> {
    const machine = machineNow()
    const rows: BenchRow[] = []
    for await (const row of this.rows()) {
      rows.push(row)
      onRow(row)
    }
    await this.#stage?.crew.finish()
    const seconds = (performance.now() - this.#startedMs) / 1000
    const directory = this.#settings.keep ? this.#directory : null
    return { machine, settings: this.#settings, rows, seconds, directory }
  }

  async *rows(): AsyncGenerator<BenchRow, void, undefined> {
    const stage = this.#stage ?? (await this.start())
    const distance = await CoreDistance.ofFirstTwo()
    try {
      for (const name of this.#settings.tests) {
        for await (const row of this.#rowsOf(stage, name)) {
          yield { ...row, coresNsApart: (await distance?.sinceLast()) ?? null }
          stage.foreign.restart()
        }
      }
    } finally {
      await distance?.end()
    }
  }

  async *#rowsOf(stage: Stage, name: TestName): Rows {
    try {
      yield* tests[name](stage)
    } catch (error) {
      throw withLogs(error, name, stage.brokers)
    }
  }
}

function withLogs(error: unknown, test: TestName, brokers: readonly BenchBroker[]): SharedVerbsError {
  const known = error instanceof SharedVerbsError ? error : undefined
  const message = error instanceof Error ? error.message : String(error)
  const logs = brokers.map((broker) => `${broker.name} said last: ${broker.lastWords()}`)
  const text = [`${test}: ${message}`, ...logs].join('\n')
  return new SharedVerbsError(known?.code ?? 'internal-error', text, known?.context ?? {}, error)
}
