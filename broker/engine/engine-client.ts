/**
 * The control plane's side of the engine: starts the worker thread, sends commands, hands out answers and events.
 * A command's promise settles exactly once: with its answer, its failure, or `internal-error` when the engine ended.
 */
import { EventEmitter } from 'node:events'
import { MessageChannel, Worker } from 'node:worker_threads'
import { isErrorCode } from '../../protocol/error-codes.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import { eventfdSignal } from '../../shm/libc.js'
import type {
  EngineAnswer,
  EngineArguments,
  EngineCommandName,
  EngineEventName,
  EngineEvents,
  EngineFailure,
  EngineMessage,
  EngineOptions,
  EngineReady,
} from './commands.js'

interface Waiting {
  readonly resolve: (answer: never) => void
  readonly reject: (error: Error) => void
  readonly name: EngineCommandName
}

const toError = (failure: EngineFailure): SharedVerbsError =>
  new SharedVerbsError(isErrorCode(failure.code) ? failure.code : 'internal-error', failure.message)

export interface PreparedEngine {
  /** Once. */
  start(options: EngineOptions): Promise<{ engine: EngineClient; ready: EngineReady }>
  /** It is not needed. */
  abandon(): Promise<void>
}

export class EngineClient {
  readonly #worker: Worker
  readonly #doorbell: number
  readonly #waiting = new Map<number, Waiting>()
  readonly #events = new EventEmitter()
  readonly ended: Promise<void>
  #nextId = 1
  #failure: SharedVerbsError | null = null

  private constructor(worker: Worker, doorbell: number) {
    this.#worker = worker
    this.#doorbell = doorbell
    worker.on('message', (message: EngineMessage) => this.#receive(message))
    this.ended = new Promise((resolve) => {
      worker.on('error', (error) =>
        this.#end(new SharedVerbsError('internal-error', `engine failed: ${error.stack ?? error.message}`)),
      )
      worker.on('exit', () => {
        this.#end(new SharedVerbsError('internal-error', 'the engine has ended'))
        resolve()
      })
    })
  }

  /** Starts the engine and waits until its device is open. */
  static start(options: EngineOptions): Promise<{ engine: EngineClient; ready: EngineReady }> {
    return EngineClient.prepare().start(options)
  }

  /** A thread with everything loaded that waits for its options: most of what a start takes. */
  static prepare(): PreparedEngine {
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
    const { port1: giver, port2: taker } = new MessageChannel()
    const worker = new Worker(new URL(`./worker.${extension}`, import.meta.url), {
      workerData: taker,
      transferList: [taker],
      name: 'engine',
    })
    return {
      start: async (options) => {
        const engine = new EngineClient(worker, options.doorbell)
        const ready = new Promise<EngineReady>((resolve, reject) => {
          engine.on('ready', resolve)
          engine.on('failed', (failure) => reject(toError(failure)))
        })
        giver.postMessage(options)
        return { engine, ready: await ready.finally(() => giver.close()) }
      },
      abandon: async () => {
        giver.close()
        await worker.terminate()
      },
    }
  }

  on<Name extends EngineEventName>(name: Name, listener: (body: EngineEvents[Name]) => void): this {
    this.#events.on(name, listener)
    return this
  }

  call<Name extends EngineCommandName>(
    name: Name,
    commandArguments: EngineArguments<Name>,
  ): Promise<EngineAnswer<Name>> {
    if (this.#failure) return Promise.reject(this.#failure)
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (answer: never) => void, reject, name })
      this.#worker.postMessage({ id, name, arguments: commandArguments })
      // The engine may sleep on its doorbell; a command wakes it as a client's posting does.
      eventfdSignal(this.#doorbell)
    })
  }

  #receive(message: EngineMessage): void {
    if (message.kind === 'event') {
      if (message.name === 'failed') this.#end(toError(message.body))
      this.#events.emit(message.name, message.body)
      return
    }
    const waiting = this.#waiting.get(message.id)
    if (!waiting) return
    this.#waiting.delete(message.id)
    if (message.kind === 'answer') waiting.resolve(message.answer as never)
    else waiting.reject(toError(message.failure))
  }

  #end(error: SharedVerbsError): void {
    const first = !this.#failure
    this.#failure ??= error
    for (const waiting of this.#waiting.values()) waiting.reject(this.#failure)
    this.#waiting.clear()
    if (first) this.#events.emit('failed', { code: error.code, message: error.message })
  }
}
