/**
 * All processes that the demo starts. Whatever happens, `endAll` ends each by its pid and waits until it is gone; none is ever
 * searched for by name.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { DemoAnswer, DemoArguments, DemoOrder, DemoOrderName, DemoReply } from '../../../protocol/demo.js'
import { SharedVerbsError } from '../../../protocol/errors.js'

/** The job's program stands beside the client, whose user it is: it is started, never imported. */
const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
const jobPath = fileURLToPath(new URL(`../../../client/demo-job.${extension}`, import.meta.url))

/** Sixty processes that each collect garbage with four threads would leave nothing of two cores for the brokers. */
const fewThreads = ['--v8-pool-size=0', '--single-threaded-gc']

/** A broker drains before it ends. */
const TERMINATE_MS = 8000

export class Children {
  readonly #living = new Map<ChildProcess, Promise<void>>()
  #isEnding = false

  /** Takes charge of a process. One that is started while all are being ended ends at once. */
  add(child: ChildProcess): ChildProcess {
    if (this.#isEnding) child.kill('SIGKILL')
    const gone = new Promise<void>((resolve) => {
      child.once('exit', () => resolve())
      child.once('error', () => resolve())
    })
    this.#living.set(
      child,
      gone.then(() => void this.#living.delete(child)),
    )
    return child
  }

  spawnJob(name: string, output: number): JobProcess {
    // Its own session: Ctrl-C is for the demo, which ends the others itself.
    const child = spawn(process.execPath, [...process.execArgv, ...fewThreads, jobPath], {
      detached: true,
      stdio: ['ignore', output, output, 'ipc'],
    })
    return new JobProcess(name, this.add(child))
  }

  get count(): number {
    return this.#living.size
  }

  get processIds(): readonly number[] {
    return [...this.#living.keys()].map(({ pid }) => pid ?? 0)
  }

  async endAll(): Promise<void> {
    this.#isEnding = true
    const bark = setTimeout(() => this.#signalAll('SIGKILL'), TERMINATE_MS)
    this.#signalAll('SIGTERM')
    while (this.#living.size > 0) await Promise.all(this.#living.values())
    clearTimeout(bark)
  }

  #signalAll(signal: NodeJS.Signals): void {
    for (const child of this.#living.keys()) child.kill(signal)
  }
}

interface Waiting {
  readonly order: DemoOrderName
  readonly resolve: (answer: never) => void
  readonly reject: (error: Error) => void
}

/** A process of the job, and the orders it has not answered yet. */
export class JobProcess {
  readonly name: string
  readonly child: ChildProcess
  readonly ended: Promise<string>
  readonly #waiting: Waiting[] = []
  #end: string | undefined

  constructor(name: string, child: ChildProcess) {
    this.name = name
    this.child = child
    child.on('message', (reply: DemoReply) => this.#receive(reply))
    this.ended = new Promise((resolve) => {
      child.on('error', (error) => resolve(this.#ended(error.message)))
      child.on('exit', (code, signal) => resolve(this.#ended(signal ?? `exit status ${code}`)))
    })
  }

  get processId(): number {
    return this.child.pid ?? 0
  }

  order<Name extends DemoOrderName>(
    order: Name,
    given: DemoArguments<Name>,
    timeoutMs: number,
  ): Promise<DemoAnswer<Name>> {
    const answer = new Promise<DemoAnswer<Name>>((resolve, reject) => {
      if (this.#end !== undefined) {
        reject(this.#failure(order, `the process ended: ${this.#end}`))
        return
      }
      const bark = setTimeout(
        () => reject(this.#failure(order, `no answer within ${timeoutMs} ms`, 'timeout')),
        timeoutMs,
      )
      const settled = <Value>(settle: (value: Value) => void) => {
        return (value: Value) => {
          clearTimeout(bark)
          settle(value)
        }
      }
      this.#waiting.push({ order, resolve: settled(resolve), reject: settled(reject) })
      this.child.send({ order, arguments: given } satisfies DemoOrder, () => {})
    })
    return answer
  }

  kill(): void {
    this.child.kill('SIGKILL')
  }

  #receive(reply: DemoReply): void {
    const waiting = this.#waiting.shift()
    if (waiting === undefined) return
    if ('failure' in reply) waiting.reject(this.#failure(reply.order, reply.failure))
    else waiting.resolve(reply.answer as never)
  }

  #ended(how: string): string {
    this.#end = how
    for (const { order, reject } of this.#waiting.splice(0)) reject(this.#failure(order, `the process ended: ${how}`))
    return how
  }

  #failure(
    order: DemoOrderName,
    what: string,
    code: 'timeout' | 'internal-error' = 'internal-error',
  ): SharedVerbsError {
    return new SharedVerbsError(code, `demo: ${this.name}, pid ${this.processId}, ${order}: ${what}`, { order })
  }
}
