/** Two nodes with real brokers in processes of their own, which tests kill and start again, and checked traffic between their sessions. */
import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { readNodeFile } from '../../broker/observe/node-file-reader.js'
import { attach, type CompletionQueue, type MemoryRegion, type QueuePair, type Session } from '../../client/index.js'
import { startCli } from '../support/cli.js'
import type { TestProcess } from '../support/processes.js'
import { type Scope, temporaryDirectory } from '../support/temporary-directory.js'
import { until } from '../support/until.js'

export interface StartedNode {
  readonly node: string
  readonly processId: number
  readonly linkAddress: string
  readonly epoch: number
}

/** A node whose broker comes and goes. */
export class Node {
  readonly name: string
  readonly directory: string
  readonly #scope: Scope
  readonly #peersFile: string
  process: TestProcess | undefined
  started: StartedNode | undefined

  constructor(scope: Scope, name: string, parent: string) {
    this.name = name
    this.directory = `${parent}/${name}`
    this.#scope = scope
    this.#peersFile = `${parent}/peers`
  }

  async start(...options: string[]): Promise<StartedNode> {
    const port = this.started?.linkAddress.split(':')[1] ?? '0'
    this.process = this.launch(port, ...options)
    const [line] = await this.process.printed(/^\{"event":"started".*$/m, 30_000)
    this.started = JSON.parse(line) as StartedNode
    return this.started
  }

  launch(port: string, ...options: string[]): TestProcess {
    const places = ['--runtime-dir', this.directory, '--node', this.name, '--host', '127.0.0.1', '--port', port]
    const peers = ['--peers-file', this.#peersFile, '--provider', 'soft', '--log-level', 'warn']
    const env = { SHARED_VERBS_CLUSTER_KEY: 'secret of the test' }
    return startCli(this.#scope, ['start', '--json', ...places, ...peers, ...options], { env })
  }

  /** The process of the broker itself, which the command line may have started beneath it. */
  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    if (this.started) process.kill(this.started.processId, signal)
  }

  attach(name: string, reconnectTimeoutMs = 30_000): Promise<Session> {
    const options = { runtimeDir: this.directory, job: 'restart', jobKey: 'key', name, timeoutMs: 20_000 }
    return attach({ ...options, reconnectTimeoutMs })
  }

  get errors(): string[] {
    return readNodeFile(this.directory)
      .rows('errors')
      .map(({ code, message }) => `${code}: ${message}`)
  }
}

export async function startNodes(scope: Scope, ...options: string[]): Promise<{ alpha: Node; beta: Node }> {
  const parent = temporaryDirectory(scope)
  const alpha = new Node(scope, 'alpha', parent)
  const beta = new Node(scope, 'beta', parent)
  await Promise.all([alpha.start(...options), beta.start(...options)])
  const addresses = [alpha, beta].map(({ name, started }) => `${name} ${started?.linkAddress}\n`)
  writeFileSync(`${parent}/peers`, addresses.join(''))
  return { alpha, beta }
}

export interface End {
  readonly session: Session
  readonly cq: CompletionQueue
  readonly qp: QueuePair
  readonly region: MemoryRegion
  /** Events in their order, by kind. */
  readonly events: string[]
}

export async function makeEnd(scope: Scope, node: Node, name: string): Promise<End> {
  const session = await node.attach(name)
  scope.teardown(() => session.close())
  const cq = await session.createCompletionQueue({ capacity: 256 })
  const qp = await session.createQueuePair({ sendCq: cq, maxSend: 32, maxReceive: 32 })
  const region = await session.registerMemory(65_536, { remoteRead: true, remoteWrite: true, remoteAtomic: true })
  const events: string[] = []
  session.on('event', (event) => {
    const more = event.kind === 'queue-pair-error' ? ` ${event.status}: ${event.reason}` : ''
    events.push(`${event.kind}${more}`)
  })
  return { session, cq, qp, region, events }
}

export async function connectEnds(one: End, other: End): Promise<void> {
  const options = { timeoutMs: 30_000 }
  await Promise.all([one.qp.connect(other.qp.address, options), other.qp.connect(one.qp.address, options)])
}

const SLOT_BYTES = 64
const POSTED = 32

/** Sends numbered messages; every one must have one verdict, success, in order. */
export class Sender {
  readonly from: End
  /** May be lowered to what was sent by then: so it ends. */
  total: number
  readonly trouble: string[] = []
  sent = 0
  confirmed = 0
  protected stopped = false

  constructor(from: End, total: number) {
    this.from = from
    this.total = total
  }

  stop(): void {
    this.stopped = true
  }

  async run(): Promise<void> {
    const payload = new Uint8Array(8)
    const view = new DataView(payload.buffer)
    while (!this.stopped && this.trouble.length === 0 && this.confirmed < this.total) {
      while (this.sent < this.total) {
        view.setFloat64(0, this.sent)
        if (this.from.qp.postSend({ id: this.sent, opcode: 'send', inline: payload }) !== 1) break
        this.sent++
      }
      await this.from.cq.wait({ timeoutMs: 200 })
      this.#judge()
      // Slow enough that a test can choose its moment.
      await sleep(1)
    }
  }

  #judge(): void {
    for (const { id, status } of this.from.cq.poll(64)) {
      if (status !== 'success') this.trouble.push(`send ${id}: ${status}`)
      if (id !== this.confirmed) this.trouble.push(`verdict of ${id} when that of ${this.confirmed} was due`)
      this.confirmed++
    }
  }
}

/** The longest time between two signs of life. */
class Pauses {
  longestMs = 0
  #lastMs = 0

  sign(): void {
    const nowMs = performance.now()
    if (this.#lastMs > 0) this.longestMs = Math.max(this.longestMs, nowMs - this.#lastMs)
    this.#lastMs = nowMs
  }
}

/** Numbered messages one way, each checked at the other end: none lost, none twice, all in order. */
export class Stream extends Sender {
  readonly to: End
  received = 0
  readonly #pauses = new Pauses()

  constructor(from: End, to: End, total: number) {
    super(from, total)
    this.to = to
  }

  get longestPauseMs(): number {
    return this.#pauses.longestMs
  }

  override async run(): Promise<void> {
    for (let slot = 0; slot < POSTED; slot++) this.#postReceive(slot)
    await Promise.all([super.run(), this.#receive()])
  }

  #postReceive(slot: number): void {
    const local = [{ region: this.to.region, offset: slot * SLOT_BYTES, length: SLOT_BYTES }]
    if (this.to.qp.postReceive({ id: slot, local }) !== 1) this.trouble.push(`receive: ${this.to.qp.lastRefusal}`)
  }

  async #receive(): Promise<void> {
    const { bytes } = this.to.region
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    while (!this.stopped && this.trouble.length === 0 && this.received < this.total) {
      await this.to.cq.wait({ timeoutMs: 200 })
      for (const { id, status } of this.to.cq.poll(64)) {
        if (status !== 'success') {
          this.trouble.push(`receive ${id}: ${status}`)
          continue
        }
        this.#pauses.sign()
        const number = view.getFloat64(id * SLOT_BYTES)
        if (number !== this.received) this.trouble.push(`message ${number} came when ${this.received} was due`)
        this.received++
        this.#postReceive(id)
      }
    }
  }
}

/** Writes into the other's memory without end; none may become unknown. */
export class Writer {
  readonly from: End
  readonly to: End
  readonly trouble: string[] = []
  done = 0
  #stopped = false
  readonly #pauses = new Pauses()

  constructor(from: End, to: End) {
    this.from = from
    this.to = to
  }

  get longestPauseMs(): number {
    return this.#pauses.longestMs
  }

  stop(): void {
    this.#stopped = true
  }

  async run(): Promise<void> {
    const local = [{ region: this.from.region, offset: 0, length: 4096 }]
    const remote = { key: this.to.region.remoteKey, offset: 4096 }
    let posted = 0
    while (!this.#stopped || this.done < posted) {
      while (!this.#stopped && posted - this.done < 8) {
        if (this.from.qp.postSend({ id: posted, opcode: 'write', local, remote }) !== 1) break
        posted++
      }
      await this.from.cq.wait({ timeoutMs: 200 })
      for (const { id, status } of this.from.cq.poll(16)) {
        if (status !== 'success') this.trouble.push(`write ${id}: ${status}`)
        this.#pauses.sign()
        this.done++
      }
      if (this.trouble.length > 0) return
      await sleep(1)
    }
  }
}

/** Until so many messages have arrived, whatever happens meanwhile. */
export async function reached(stream: Stream, count: number, timeoutMs = 30_000): Promise<void> {
  const there = (): boolean => stream.received >= count || stream.trouble.length > 0
  await until(there, { timeoutMs, what: `message ${count}; ${stream.received} came, ${stream.confirmed} confirmed` })
  if (stream.trouble.length > 0) throw new Error(stream.trouble.slice(0, 5).join('; '))
}
