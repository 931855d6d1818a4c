/** The processes of a run, in pairs: the first of a pair on alpha, its peer on beta, or both on alpha. They are started when needed. */
import { randomBytes } from 'node:crypto'
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import type { BenchLinkPlan } from '../../../protocol/bench.js'
import type { Children } from '../demo/children.js'
import type { BenchBroker } from './brokers.js'
import { pinToCore } from './pinning.js'
import { BenchProcess, spawnBenchJob } from './process.js'
import type { BenchSettings } from './settings.js'

export interface Pair {
  readonly near: BenchProcess
  readonly far: BenchProcess
}

export const processIdsOf = (pairs: readonly Pair[]): number[] =>
  pairs.flatMap(({ near, far }) => [near.processId, far.processId])

export class Crew {
  readonly job = 'bench'
  readonly jobKey = randomBytes(16).toString('hex')
  readonly #brokers: readonly [BenchBroker, BenchBroker]
  readonly #children: Children
  readonly #directory: string
  readonly #isPinned: boolean
  readonly #started: BenchProcess[] = []
  readonly #pairs = { local: [] as Promise<Pair>[], remote: [] as Promise<Pair>[] }

  constructor(
    settings: BenchSettings,
    brokers: readonly [BenchBroker, BenchBroker],
    children: Children,
    directory: string,
  ) {
    this.#isPinned = settings.isPinned
    this.#brokers = brokers
    this.#children = children
    this.#directory = directory
  }

  async pairs(count: number, place: 'local' | 'remote'): Promise<readonly Pair[]> {
    const there = this.#pairs[place]
    // One after the other: processes that start at the same time only wait for each other.
    while (there.length < count) {
      const index = there.length
      const started = this.#start(place, index)
      there.push(started)
      await started
    }
    return Promise.all(there.slice(0, count))
  }

  /** Lets all of them go in order: sessions are closed, and what the runtime writes at the end of a process is written. */
  async finish(): Promise<void> {
    await Promise.all(this.#started.map((one) => one.finish()))
  }

  /** A process on a node, outside the pairs. */
  async extra(side: 0 | 1, name: string): Promise<BenchProcess> {
    return this.#process(side, name)
  }

  /** Connected queue pairs between both processes of each pair, for as long as the work lasts. */
  async linked<Value>(
    count: number,
    place: 'local' | 'remote',
    plan: BenchLinkPlan,
    work: (pairs: readonly Pair[]) => Promise<Value>,
  ): Promise<Value> {
    const pairs = await this.pairs(count, place)
    for (const pair of pairs) await link(pair, plan)
    const value = await work(pairs)
    for (const { near, far } of pairs) await Promise.all([near.order('close', null), far.order('close', null)])
    return value
  }

  async #start(place: 'local' | 'remote', index: number): Promise<Pair> {
    const near = await this.#process(0, `${place}-${index}-near`)
    const far = await this.#process(place === 'local' ? 0 : 1, `${place}-${index}-far`)
    return { near, far }
  }

  async #process(side: 0 | 1, name: string): Promise<BenchProcess> {
    const output = openSync(join(this.#directory, 'jobs.log'), 'a', 0o600)
    try {
      const started = new BenchProcess(name, this.#children.add(spawnBenchJob(output)))
      this.#started.push(started)
      if (this.#isPinned) pinToCore(started.processId, side)
      const { runtimeDirectory } = this.#brokers[side]
      await started.order('attach', { runtimeDirectory, job: this.job, jobKey: this.jobKey, name })
      return started
    } finally {
      closeSync(output)
    }
  }
}

export async function link({ near, far }: Pair, plan: BenchLinkPlan): Promise<void> {
  const [nearOffer, farOffer] = await Promise.all([near.order('open', plan), far.order('open', plan)])
  await Promise.all([near.order('connect', farOffer), far.order('connect', nearOffer)])
}
