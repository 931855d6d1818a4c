/** A process of the benchmark, and the orders it has not answered yet. */
import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { BenchAnswer, BenchArguments, BenchOrder, BenchOrderName, BenchReply } from '../../../protocol/bench.js'
import { SharedVerbsError } from '../../../protocol/errors.js'

/** Stands beside the client, whose user it is: it is started, never imported. */
const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
const jobPath = fileURLToPath(new URL(`../../../client/bench-job.${extension}`, import.meta.url))

/** Threads that collect garbage beside the measured ones would take their cores. */
const fewThreads = ['--v8-pool-size=0', '--single-threaded-gc']
/** Beyond what was asked for, an answer is late by this much at most. */
const GRACE_MS = 60_000

export function spawnBenchJob(output: number): ChildProcess {
  // Its own session: Ctrl-C is for the benchmark, which ends the others itself.
  return spawn(process.execPath, [...process.execArgv, ...fewThreads, jobPath], {
    detached: true,
    stdio: ['ignore', output, output, 'ipc'],
  })
}

interface Waiting {
  readonly order: BenchOrderName
  readonly resolve: (answer: never) => void
  readonly reject: (error: Error) => void
}

export class BenchProcess {
  readonly name: string
  readonly child: ChildProcess
  readonly #waiting: Waiting[] = []
  #end: string | undefined

  constructor(name: string, child: ChildProcess) {
    this.name = name
    this.child = child
    child.on('message', (reply: BenchReply) => this.#receive(reply))
    child.on('error', (error) => this.#ended(error.message))
    child.on('exit', (code, signal) => this.#ended(signal ?? `exit status ${code}`))
  }

  get processId(): number {
    return this.child.pid ?? 0
  }

  /** `lastingMs`: how long the work takes by itself. */
  order<Name extends BenchOrderName>(
    order: Name,
    given: BenchArguments<Name>,
    lastingMs = 0,
  ): Promise<BenchAnswer<Name>> {
    const timeoutMs = lastingMs + GRACE_MS
    return new Promise<BenchAnswer<Name>>((resolve, reject) => {
      if (this.#end !== undefined) {
        reject(this.#failure(order, `the process ended: ${this.#end}`))
        return
      }
      const late = (): void => reject(this.#failure(order, `no answer within ${timeoutMs} ms`, 'timeout'))
      const bark = setTimeout(late, timeoutMs)
      const settled = <Value>(settle: (value: Value) => void) => {
        return (value: Value) => {
          clearTimeout(bark)
          settle(value)
        }
      }
      this.#waiting.push({ order, resolve: settled(resolve), reject: settled(reject) })
      this.child.send({ order, arguments: given } satisfies BenchOrder, () => {})
    })
  }

  /** Resolves when the process has ended. */
  async finish(): Promise<void> {
    if (this.#end !== undefined) return
    const ended = new Promise((resolve) => this.child.once('exit', resolve))
    // Its end may be noticed before its answer is read.
    await this.order('finish', null).catch((error: unknown) => {
      if (this.#end !== 'exit status 0') throw error
    })
    await ended
  }

  #receive(reply: BenchReply): void {
    const waiting = this.#waiting.shift()
    if (waiting === undefined) return
    if ('failure' in reply) waiting.reject(this.#failure(reply.order, reply.failure))
    else waiting.resolve(reply.answer as never)
  }

  #ended(how: string): void {
    this.#end = how
    for (const { order, reject } of this.#waiting.splice(0)) reject(this.#failure(order, `the process ended: ${how}`))
  }

  #failure(order: BenchOrderName, what: string, code: 'timeout' | 'internal-error' = 'internal-error') {
    return new SharedVerbsError(code, `bench: ${this.name}, pid ${this.processId}, ${order}: ${what}`, { order })
  }
}
