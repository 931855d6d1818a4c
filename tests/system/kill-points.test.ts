/**
 * A process of a job is killed or stopped at a named step of a post, a poll, a wait or a request, while others share its queue pair and
 * completion queue: they go on, its peers learn of it, nothing of it stays.
 */
import { setImmediate as turn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { readNodeFile } from '../../broker/observe/node-file-reader.js'
import type { CompletionQueue, MemoryRegion, QueuePair, Session } from '../../client/index.js'
import { repositoryDirectory } from '../support/cli.js'
import { holdingsOf } from '../support/holdings.js'
import { startProcess, type TestProcess } from '../support/processes.js'
import { until } from '../support/until.js'
import type { Doom } from './doomed-process.js'
import { type KillPoint, killPoints, postingPoints } from './kill-points.js'
import { type Node, startNodes } from './restart-scene.js'

/** Of the kernel's scheduling on a busy machine; every timeout of the product is longer. */
const LONGEST_PAUSE_MS = 1500
const SHADOW_MS = 500
const WATCH_MS = 40_000
const SLOT_BYTES = 64
const RECEIVES = 64

const script = fileURLToPath(new URL('doomed-process.ts', import.meta.url))
const loader = fileURLToPath(new URL('../../broker/typescript.js', import.meta.url))
const machineMs = (): number => Number(process.hrtime.bigint()) / 1e6

/** A queue pair from alpha to beta with one living poster, and whoever else opens it. */
class Scene {
  readonly alpha: Node
  readonly beta: Node
  readonly survivor: Session
  readonly queuePair: QueuePair
  readonly receiver: Session
  readonly #queue: CompletionQueue
  readonly #receiveQueue: CompletionQueue
  readonly #receiveQueuePair: QueuePair
  readonly #memory: MemoryRegion
  /** Next number of each poster. */
  readonly #next = new Map<number, number>()
  readonly trouble: string[] = []
  /** Of the survivor's own requests. */
  readonly completedMs: number[] = []
  readonly disconnected: string[] = []
  posted = 0
  refused = 0
  #stopped = false

  private constructor(parts: {
    alpha: Node
    beta: Node
    survivor: Session
    queuePair: QueuePair
    receiver: Session
    receiveQueuePair: QueuePair
    memory: MemoryRegion
  }) {
    this.alpha = parts.alpha
    this.beta = parts.beta
    this.survivor = parts.survivor
    this.queuePair = parts.queuePair
    this.receiver = parts.receiver
    this.#queue = parts.queuePair.sendCq
    this.#receiveQueue = parts.receiveQueuePair.sendCq
    this.#receiveQueuePair = parts.receiveQueuePair
    this.#memory = parts.memory
  }

  static async begin(t: ExecutionContext): Promise<Scene> {
    const { alpha, beta } = await startNodes(t)
    const survivor = await alpha.attach('survivor')
    t.teardown(() => survivor.close())
    const receiver = await beta.attach('receiver')
    t.teardown(() => receiver.close())
    const sendCq = await survivor.createCompletionQueue()
    const queuePair = await survivor.createQueuePair({ sendCq, maxSend: 64 })
    const receiveCq = await receiver.createCompletionQueue()
    const receiveQueuePair = await receiver.createQueuePair({ sendCq: receiveCq, maxReceive: RECEIVES })
    const options = { timeoutMs: 20_000 }
    await Promise.all([
      queuePair.connect(receiveQueuePair.address, options),
      receiveQueuePair.connect(queuePair.address, options),
    ])
    const memory = await receiver.registerMemory(RECEIVES * SLOT_BYTES)
    const scene = new Scene({ alpha, beta, survivor, queuePair, receiver, receiveQueuePair, memory })
    await scene.#listen()
    const running = Promise.all([scene.#post(), scene.#receive()])
    t.teardown(async () => {
      scene.#stopped = true
      await running
    })
    return scene
  }

  async #listen(): Promise<void> {
    const listener = await this.receiver.listen('private', { sendCq: this.#receiveQueue })
    void (async () => {
      for await (const accepted of listener) {
        accepted.on('disconnected', ({ reason }) => this.disconnected.push(reason))
        accepted.on('error', ({ reason }) => this.disconnected.push(reason))
      }
    })().catch(() => undefined)
  }

  async #post(): Promise<void> {
    const payload = new Uint8Array(8)
    const words = new Uint32Array(payload.buffer)
    words[0] = this.survivor.member
    while (!this.#stopped) {
      words[1] = this.posted
      const request = { id: this.posted, opcode: 'send', inline: payload } as const
      if (this.queuePair.postSend(request) === 1) this.posted++
      else if (this.queuePair.lastRefusal === 'busy') this.refused++
      for (const { status } of this.#queue.poll(32)) {
        if (status !== 'success') this.trouble.push(`a send: ${status}`)
        this.completedMs.push(machineMs())
      }
      if (this.posted % 4 === 0) await this.#queue.wait({ timeoutMs: 5 })
      else await turn()
    }
  }

  async #receive(): Promise<void> {
    for (let slot = 0; slot < RECEIVES; slot++) this.#postReceive(slot)
    while (!this.#stopped) {
      await this.#receiveQueue.wait({ timeoutMs: 50 })
      for (const { id, status, opcode } of this.#receiveQueue.poll(32)) {
        if (!opcode.startsWith('receive')) continue
        if (status === 'success') this.#take(id)
        else this.trouble.push(`a receive: ${status}`)
        this.#postReceive(id)
      }
    }
  }

  #take(slot: number): void {
    const { bytes } = this.#memory
    const view = new DataView(bytes.buffer, bytes.byteOffset + slot * SLOT_BYTES, 8)
    const [member, number] = [view.getUint32(0, true), view.getUint32(4, true)]
    const due = this.#next.get(member) ?? 0
    // A number of a member that served before begins again.
    if (number !== due && number !== 0) this.trouble.push(`message ${number} of ${member} came when ${due} was due`)
    this.#next.set(member, number + 1)
  }

  #postReceive(slot: number): void {
    const local = [{ region: this.#memory, offset: slot * SLOT_BYTES, length: SLOT_BYTES }]
    if (this.#receiveQueuePair.postReceive({ id: slot, local }) !== 1) this.trouble.push('no room for a receive')
  }

  doom(t: ExecutionContext, point: KillPoint, signal: NodeJS.Signals): TestProcess {
    const doom: Doom = {
      ...{ runtimeDirectory: this.alpha.directory, job: 'restart', jobKey: 'key', point, signal },
      ...{ queuePair: this.queuePair.share(), peerNode: this.beta.name, service: 'private' },
    }
    const commandArguments = [`--import=${loader}`, script, JSON.stringify(doom)]
    return startProcess(t, process.execPath, commandArguments, { cwd: repositoryDirectory })
  }

  /** Further completions of the survivor, from now on. */
  async goesOn(count: number, what: string): Promise<void> {
    const before = this.completedMs.length
    const enough = (): boolean => this.completedMs.length >= before + count || this.trouble.length > 0
    await until(enough, { timeoutMs: WATCH_MS, what: `completions ${what}; ${this.trouble.join('; ')}` })
  }

  /** The longest time without a completion in the shadow of a moment. */
  pauseAfter(momentMs: number): number {
    const first = this.completedMs.findIndex((timeMs) => timeMs > momentMs)
    let longest = 0
    for (let index = Math.max(1, first); index < this.completedMs.length; index++) {
      const before = this.completedMs[index - 1]!
      if (before > momentMs + SHADOW_MS) break
      longest = Math.max(longest, this.completedMs[index]! - before)
    }
    return longest
  }
}

/** What the broker says it holds, beside what the kernel says. */
function inside(node: Node): Record<string, number> {
  const snapshot = readNodeFile(node.directory)
  const { segments, descriptors } = holdingsOf(node.started?.processId ?? 0)
  const rows = {
    members: snapshot.rows('members').length,
    queuePairs: snapshot.rows('queuePairs').length,
    completionQueues: snapshot.rows('completionQueues').length,
    regions: snapshot.rows('regions').length,
  }
  return { ...rows, segments, descriptors }
}

async function reached(process: TestProcess): Promise<number> {
  const [, momentMs] = await process.printed(/^reached ([\d.]+)$/m, WATCH_MS)
  return Number(momentMs)
}

test.serial('killed at each step: the others go on, its peer learns it, all of it is freed', async (t) => {
  const scene = await Scene.begin(t)
  await scene.goesOn(100, 'at the beginning')
  const baseline = inside(scene.alpha)
  for (const point of killPoints) {
    scene.disconnected.length = 0
    const doomed = scene.doom(t, point, 'SIGKILL')
    const momentMs = await reached(doomed)
    t.is((await doomed.ended()).signal, 'SIGKILL', point)
    await until(() => machineMs() > momentMs + SHADOW_MS, { timeoutMs: WATCH_MS, what: 'the time that is judged' })
    await scene.goesOn(20, `after ${point}`)
    const pauseMs = scene.pauseAfter(momentMs)
    t.true(pauseMs < LONGEST_PAUSE_MS, `${point}: a pause of ${pauseMs} ms`)
    if (point !== 'attach') {
      await until(() => scene.disconnected.length > 0, { timeoutMs: WATCH_MS, what: `its peer to learn of ${point}` })
    }
    const isFreed = (): boolean => JSON.stringify(inside(scene.alpha)) === JSON.stringify(baseline)
    await until(isFreed, { timeoutMs: WATCH_MS, what: `all of it to be freed after ${point}` }).catch(() => {
      t.deepEqual(inside(scene.alpha), baseline, point)
    })
    t.deepEqual(scene.trouble, [], point)
    t.log(`${point}: longest pause ${pauseMs.toFixed(1)} ms`)
  }
})

test.serial('stopped at each step of a post: the lock is not taken from it, everything else goes on', async (t) => {
  const scene = await Scene.begin(t)
  await scene.goesOn(100, 'at the beginning')
  for (const point of postingPoints) {
    const stopped = scene.doom(t, point, 'SIGSTOP')
    await reached(stopped)
    const holdsLock = point === 'lock, tail' || point === 'tail, unlock'
    if (holdsLock) {
      const refused = scene.refused
      await until(() => scene.refused > refused + 20, { timeoutMs: WATCH_MS, what: `refusals at ${point}` })
      const posted = scene.posted
      await until(() => scene.refused > refused + 40, { timeoutMs: WATCH_MS, what: `refusals at ${point}` })
      t.is(scene.posted, posted, `${point}: the lock was taken from the living`)
    } else await scene.goesOn(100, `while one is stopped at ${point}`)
    stopped.signal('SIGCONT')
    await scene.goesOn(100, `after ${point}`)
    stopped.signal('SIGKILL')
    await stopped.ended()
    t.deepEqual(scene.trouble, [], point)
  }
})
