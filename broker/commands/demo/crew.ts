/** The processes of the job, each in its place, and orders to many of them at once. */
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import type { DemoPlan, DemoPrepared, DemoTraffic } from '../../../protocol/demo.js'
import type { Children, JobProcess } from './children.js'
import type { DemoNode } from './node.js'
import type { DemoProgress, NodeName } from './settings.js'

/** A phase that takes longer has failed; 64 processes on two slow cores need a fraction of it. */
export const phaseTimeoutMs = 120_000
/** Processes that start at the same time: more would only wait for each other. */
const STARTS_AT_ONCE = 4

export interface Seat {
  readonly node: NodeName
  readonly rank: number
  readonly job: JobProcess
  readonly prepared: DemoPrepared
}

export class Crew {
  readonly alpha: Seat[] = []
  readonly beta: Seat[] = []
  readonly #progress: DemoProgress
  messages = 0
  bytes = 0

  constructor(progress: DemoProgress) {
    this.#progress = progress
  }

  get all(): Seat[] {
    return [...this.alpha, ...this.beta]
  }

  /** Starts and prepares all, a few at a time. */
  async start(
    children: Children,
    nodes: readonly DemoNode[],
    directory: string,
    planOf: (node: NodeName, rank: number) => DemoPlan,
  ): Promise<void> {
    const output = openSync(join(directory, 'jobs.log'), 'a', 0o600)
    const { processes } = planOf('alpha', 0)
    const places = nodes.flatMap(({ name }) => Array.from({ length: processes }, (_, rank) => ({ name, rank })))
    const waiting = places.values()
    let started = 0
    const startSome = async (): Promise<void> => {
      for (const { name, rank } of waiting) {
        const job = children.spawnJob(`${name}-${rank}`, output)
        const prepared = await job.order('prepare', planOf(name, rank), phaseTimeoutMs)
        this[name][rank] = { node: name, rank, job, prepared }
        this.#progress.step('start processes', ++started, places.length)
      }
    }
    try {
      await Promise.all(Array.from({ length: STARTS_AT_ONCE }, startSome))
    } finally {
      closeSync(output)
    }
  }

  /** Gives each of them something to do and waits for all. */
  async phase<Value>(name: string, seats: readonly Seat[], work: (seat: Seat) => Promise<Value>): Promise<Value[]> {
    let done = 0
    this.#progress.step(name, done, seats.length)
    return Promise.all(
      seats.map(async (seat) => {
        const value = await work(seat)
        this.#progress.step(name, ++done, seats.length)
        return value
      }),
    )
  }

  /** A phase that moves messages. */
  async traffic<Value extends DemoTraffic>(
    name: string,
    seats: readonly Seat[],
    work: (seat: Seat) => Promise<Value>,
  ): Promise<Value[]> {
    const moved = await this.phase(name, seats, work)
    for (const { messages, bytes } of moved) {
      this.messages += messages
      this.bytes += bytes
    }
    return moved
  }
}
