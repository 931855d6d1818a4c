/**
 * One process of the job that `broker demo` runs: started with a channel to the demo, takes its orders (protocol/demo.ts) one after the
 * other. It uses nothing but what every application can import.
 *
 * Content proves who sent what to whom and when: every message is the hash of its names, repeated to its length, so that one lost,
 * doubled, torn, swapped or misdelivered is found by comparing.
 */
import { createHash } from 'node:crypto'
import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ObjectHandle, QueuePairAddress } from '../protocol/address.js'
import {
  type DemoAnswer,
  type DemoArguments,
  type DemoOffer,
  type DemoOrder,
  type DemoOrderName,
  type DemoPlan,
  type DemoReply,
  type DemoTraffic,
  demoCounterOffset,
  demoWindowOffset,
  filePart,
  filePartByteLength,
} from '../protocol/demo.js'
import {
  attach,
  type Completion,
  type CompletionQueue,
  type MemoryRegion,
  type QueuePair,
  type SendWorkRequest,
  type Session,
} from './index.js'

/** Longer than any pause of a busy machine; a wait beyond it is a failure of the demo. */
const WAIT_MS = 60_000
/** How many connects a process has on the way at once. */
const CONNECTS = 16
const STREAM_BYTES = 64

interface Pair {
  readonly queuePair: QueuePair
  windowKey: number
}

/** Names of what a completion belongs to, in its id: kind, rank of the other side, number. */
const kind = { small: 1, large: 2, receive: 3, file: 4, count: 5, stream: 6, streamReceive: 7, victim: 8 } as const
const idOf = (what: number, rank: number, number: number): number => (what * 4096 + rank) * 65_536 + number

const digestOf = (...names: (string | number)[]): Buffer => createHash('sha256').update(names.join(' ')).digest()

/** In place, and so is the check: dozens of processes that make garbage at the same time would measure nothing but their collectors. */
function fillContent(target: Buffer, ...names: (string | number)[]): void {
  target.fill(digestOf(...names))
}

function hasContent(found: Buffer, ...names: (string | number)[]): boolean {
  const digest = digestOf(...names)
  const period = digest.byteLength
  if (digest.compare(found, 0, Math.min(period, found.byteLength), 0, Math.min(period, found.byteLength)) !== 0)
    return false
  return found.byteLength <= period || found.compare(found, 0, found.byteLength - period, period) === 0
}

class DemoJob {
  readonly plan: DemoPlan
  readonly session: Session
  readonly completionQueue: CompletionQueue
  readonly pairs: readonly Pair[]
  readonly datagram: QueuePair
  /** Messages: sent ones, then received ones; for each pair all small ones and a large one. */
  readonly messages: MemoryRegion
  /** What the other node's processes reach: the counter and parts of the file. */
  readonly window: MemoryRegion
  readonly #arrived = new Map<number, Completion>()
  /** Ids whose verdict may be anything. */
  readonly #mayFail = new Set<number>()

  constructor(
    parts: Pick<DemoJob, 'plan' | 'session' | 'completionQueue' | 'pairs' | 'datagram' | 'messages' | 'window'>,
  ) {
    this.plan = parts.plan
    this.session = parts.session
    this.completionQueue = parts.completionQueue
    this.pairs = parts.pairs
    this.datagram = parts.datagram
    this.messages = parts.messages
    this.window = parts.window
  }

  static async prepare(plan: DemoPlan): Promise<DemoJob> {
    const { runtimeDirectory, job, jobKey, node, rank } = plan
    const session = await attach({ runtimeDir: runtimeDirectory, job, jobKey, name: `${node}-${rank}` })
    const completionQueue = await session.createCompletionQueue({ capacity: 8192 })
    const queues = { sendCq: completionQueue, receiveCq: completionQueue }
    const pairs: Pair[] = []
    for (let other = 0; other < plan.processes; other++) {
      const depth = 2 * (plan.smallMessages + 2)
      const queuePair = await session.createQueuePair({
        type: 'connected',
        ...queues,
        maxSend: depth,
        maxReceive: depth,
      })
      pairs.push({ queuePair, windowKey: 0 })
    }
    const datagram = await session.createQueuePair({ type: 'datagram', ...queues, maxSend: 16, maxReceive: 4 })
    const messages = await session.registerMemory(2 * plan.processes * blockByteLength(plan) + STREAM_BYTES)
    const held = plan.holdsFile ? plan.processes * filePartByteLength(plan) : 0
    const window = await session.registerMemory(demoWindowOffset + held, {
      remoteRead: true,
      remoteWrite: true,
      remoteAtomic: true,
    })
    return new DemoJob({ plan, session, completionQueue, pairs, datagram, messages, window })
  }

  offers(): DemoOffer[] {
    return this.pairs.map(({ queuePair }) => ({ address: queuePair.address, windowKey: this.window.remoteKey }))
  }

  async connect(offers: readonly DemoOffer[]): Promise<void> {
    for (let first = 0; first < offers.length; first += CONNECTS) {
      const some = offers.slice(first, first + CONNECTS)
      await Promise.all(some.map((offer, index) => this.#connectOne(this.pairs[first + index]!, offer)))
    }
  }

  async #connectOne(pair: Pair, offer: DemoOffer): Promise<void> {
    pair.windowKey = offer.windowKey
    await pair.queuePair.connect(offer.address, { timeoutMs: WAIT_MS })
  }

  /** All receives are there before anything is sent: nobody has to wait for a receiver. */
  async exchange(round: number, without: number | null): Promise<DemoTraffic> {
    const others = this.pairs.map((_, other) => other).filter((other) => other !== without)
    for (const other of others) this.#postReceives(other)
    for (const other of others) await this.#sendTo(other, round)
    const expected = others.flatMap((other) => this.#messageIds(other))
    await this.#take(expected)
    for (const other of others) this.#verify(other, round)
    const { smallMessages, smallByteLength, largeByteLength } = this.plan
    return {
      messages: others.length * (smallMessages + 1),
      bytes: others.length * (smallMessages * smallByteLength + largeByteLength),
    }
  }

  /** Half of the small ones, the large one, the other half: so that the large one has to keep its place. */
  #order(): { number: number; offset: number; length: number }[] {
    const { smallMessages, smallByteLength, largeByteLength } = this.plan
    const middle = Math.floor(smallMessages / 2)
    const pieces: { number: number; offset: number; length: number }[] = []
    for (let number = 0, offset = 0; number <= smallMessages; number++) {
      const length = number === middle ? largeByteLength : smallByteLength
      pieces.push({ number, offset, length })
      offset += length
    }
    return pieces
  }

  #messageIds(other: number): number[] {
    return this.#order().flatMap(({ number }) => [idOf(kind.small, other, number), idOf(kind.receive, other, number)])
  }

  #postReceives(other: number): void {
    const base = (this.plan.processes + other) * blockByteLength(this.plan)
    for (const { number, offset, length } of this.#order()) {
      const local = [{ region: this.messages, offset: base + offset, length }]
      const accepted = this.pairs[other]!.queuePair.postReceive({ id: idOf(kind.receive, other, number), local })
      if (accepted === 0) throw new Error(`no room for receive ${number} from rank ${other}`)
    }
  }

  async #sendTo(other: number, round: number): Promise<void> {
    const { node, otherNode, rank } = this.plan
    const base = other * blockByteLength(this.plan)
    for (const { number, offset, length } of this.#order()) {
      fillContent(this.#buffer(base + offset, length), node, rank, otherNode, other, round, number)
      const local = [{ region: this.messages, offset: base + offset, length }]
      await this.#post(this.pairs[other]!.queuePair, { id: idOf(kind.small, other, number), opcode: 'send', local })
    }
  }

  #verify(other: number, round: number): void {
    const { node, otherNode, rank, processes } = this.plan
    const base = (processes + other) * blockByteLength(this.plan)
    for (const { number, offset, length } of this.#order()) {
      const found = this.#buffer(base + offset, length)
      const isIt = hasContent(found, otherNode, other, node, rank, round, number)
      if (!isIt) throw new Error(`message ${number} of rank ${other} is not what it sent`)
    }
  }

  #buffer(offset: number, length: number): Buffer {
    const { buffer, byteOffset } = this.messages.bytes
    return Buffer.from(buffer, byteOffset + offset, length)
  }

  async scatter(): Promise<DemoTraffic> {
    const share = await this.session.registerMemory(this.plan.processes * filePartByteLength(this.plan))
    this.#readShare(share.bytes)
    const traffic = await this.#moveShare('write', share, this.plan.rank)
    await share.close()
    return traffic
  }

  async gather(writer: number, into: string): Promise<DemoTraffic> {
    const share = await this.session.registerMemory(this.plan.processes * filePartByteLength(this.plan))
    const traffic = await this.#moveShare('read', share, writer)
    const first = filePart(this.plan, writer, 0)
    const fd = openSync(into, 'r+')
    try {
      writeSync(fd, share.bytes, 0, traffic.bytes, first.fileOffset)
    } finally {
      closeSync(fd)
    }
    await share.close()
    return traffic
  }

  #readShare(bytes: Uint8Array): void {
    const { fileOffset } = filePart(this.plan, this.plan.rank, 0)
    const fd = openSync(this.plan.file, 'r')
    try {
      for (let done = 0, count = -1; count !== 0 && done < bytes.byteLength; done += count) {
        count = readSync(fd, bytes, done, bytes.byteLength - done, fileOffset + done)
      }
    } finally {
      closeSync(fd)
    }
  }

  /** One request for each process that holds a part. */
  async #moveShare(opcode: 'write' | 'read', share: MemoryRegion, writer: number): Promise<DemoTraffic> {
    const ids: number[] = []
    let bytes = 0
    for (const [holder, { queuePair, windowKey }] of this.pairs.entries()) {
      const { windowOffset, byteLength } = filePart(this.plan, writer, holder)
      if (byteLength === 0) continue
      const id = idOf(kind.file, holder, 0)
      const local = [{ region: share, offset: holder * filePartByteLength(this.plan), length: byteLength }]
      await this.#post(queuePair, { id, opcode, local, remote: { key: windowKey, offset: windowOffset } })
      ids.push(id)
      bytes += byteLength
    }
    await this.#take(ids)
    return { messages: ids.length, bytes }
  }

  /** Through the datagram queue pair, which reaches every process of both nodes. */
  async count(at: QueuePairAddress, windowKey: number, times: number): Promise<DemoAnswer<'count'>> {
    await this.session.resolve(at.node)
    const offset = this.messages.byteLength - STREAM_BYTES
    const local = [{ region: this.messages, offset, length: 8 }]
    const view = new DataView(this.messages.bytes.buffer, this.messages.bytes.byteOffset + offset, 8)
    const found: number[] = []
    for (let time = 0; time < times; time++) {
      const id = idOf(kind.count, 0, time)
      const remote = { key: windowKey, offset: demoCounterOffset }
      await this.#post(this.datagram, { id, opcode: 'fetch-and-add', local, remote, add: 1n, destination: at })
      await this.#take([id])
      found.push(Number(view.getBigUint64(0, true)))
    }
    return { messages: times, bytes: 8 * times, found }
  }

  readCounter(): number {
    const { buffer, byteOffset } = this.window.bytes
    return Number(new DataView(buffer, byteOffset).getBigUint64(demoCounterOffset, true))
  }

  share(): ObjectHandle {
    return this.pairs[0]!.queuePair.share()
  }

  /**
   * Posts numbered messages to a queue pair that another process posts to at the same time. Payloads travel inline and successes are
   * not signalled: completions would go to whoever polls the queue pair's completion queue.
   */
  async postStream(handle: ObjectHandle | null, stream: number, messages: number): Promise<DemoTraffic> {
    const queuePair = handle === null ? this.pairs[0]!.queuePair : await this.session.openQueuePair(handle)
    for (let number = 0; number < messages; number++) {
      const inline = new Uint8Array(8)
      new DataView(inline.buffer).setUint32(0, stream, true)
      new DataView(inline.buffer).setUint32(4, number, true)
      const id = idOf(kind.stream, stream, number)
      await this.#post(queuePair, { id, opcode: 'send', inline, signaled: false })
    }
    return { messages, bytes: messages * 8 }
  }

  /** True if each stream arrived whole and in its order, however they were mixed. */
  async receiveStreams(streams: number, messages: number): Promise<boolean> {
    const { queuePair } = this.pairs[0]!
    const slots = this.#order().length
    const base = this.plan.processes * blockByteLength(this.plan)
    const post = (slot: number): number =>
      queuePair.postReceive({
        id: idOf(kind.streamReceive, 0, slot),
        local: [{ region: this.messages, offset: base + slot * 8, length: 8 }],
      })
    for (let slot = 0; slot < slots; slot++) post(slot)
    const view = new DataView(this.messages.bytes.buffer, this.messages.bytes.byteOffset + base)
    const next = new Array<number>(streams).fill(0)
    let inOrder = true
    const total = streams * messages
    for (let taken = 0; taken < total; taken++) {
      const slot = taken % slots
      await this.#take([idOf(kind.streamReceive, 0, slot)])
      const stream = view.getUint32(slot * 8, true)
      inOrder &&= next[stream] === view.getUint32(slot * 8 + 4, true)
      next[stream] = (next[stream] ?? 0) + 1
      if (taken + slots < total) post(slot)
    }
    return inOrder
  }

  /** A receive that nobody will fill, and a send that nobody will take. */
  arm(victim: number): void {
    const { queuePair } = this.pairs[victim]!
    const ids = this.#victimIds(victim)
    for (const id of ids) this.#mayFail.add(id)
    const local = [{ region: this.messages, offset: 0, length: 8 }]
    queuePair.postReceive({ id: ids[0]!, local })
    queuePair.postSend({ id: ids[1]!, opcode: 'send', local })
  }

  async mourn(victim: number): Promise<string[]> {
    const ids = this.#victimIds(victim)
    return (await this.#take(ids)).map(({ status }) => status)
  }

  #victimIds(victim: number): number[] {
    return [idOf(kind.victim, victim, 0), idOf(kind.victim, victim, 1)]
  }

  async #post(queuePair: QueuePair, request: SendWorkRequest): Promise<void> {
    const deadlineMs = performance.now() + WAIT_MS
    while (queuePair.postSend(request) === 0) {
      this.#poll()
      if (performance.now() > deadlineMs) throw new Error(`no room to post ${request.opcode} for ${WAIT_MS} ms`)
      await sleep(1)
    }
  }

  /** Waits until all of these have completed. */
  async #take(ids: readonly number[]): Promise<Completion[]> {
    const deadlineMs = performance.now() + WAIT_MS
    const taken: Completion[] = []
    for (const id of ids) {
      for (this.#poll(); !this.#arrived.has(id); this.#poll()) {
        const waited = await this.completionQueue.wait({ timeoutMs: Math.max(0, deadlineMs - performance.now()) })
        if (!waited) throw new Error(`${ids.length} completions awaited, ${taken.length} came within ${WAIT_MS} ms`)
      }
      taken.push(this.#arrived.get(id)!)
      this.#arrived.delete(id)
    }
    return taken
  }

  #poll(): void {
    for (const completion of this.completionQueue.poll(64)) {
      const { id, opcode, status } = completion
      if (status !== 'success' && !this.#mayFail.has(id)) throw new Error(`${opcode} ${id} ended as ${status}`)
      this.#arrived.set(id, completion)
    }
  }
}

const blockByteLength = (plan: DemoPlan): number => plan.smallMessages * plan.smallByteLength + plan.largeByteLength

let job: DemoJob | undefined

function prepared(): DemoJob {
  if (job === undefined) throw new Error('ordered to work before it was prepared')
  return job
}

type Handlers = { readonly [Name in DemoOrderName]: (given: DemoArguments<Name>) => Promise<DemoAnswer<Name>> }

const handlers: Handlers = {
  async prepare(plan) {
    job = await DemoJob.prepare(plan)
    return { offers: job.offers(), datagram: job.datagram.address }
  },
  async connect({ offers }) {
    await prepared().connect(offers)
    return null
  },
  exchange: ({ round, without }) => prepared().exchange(round, without),
  scatter: () => prepared().scatter(),
  gather: ({ share, into }) => prepared().gather(share, into),
  count: ({ at, windowKey, times }) => prepared().count(at, windowKey, times),
  'read-counter': async () => ({ value: prepared().readCounter() }),
  share: async () => ({ handle: prepared().share() }),
  'post-stream': ({ handle, stream, messages }) => prepared().postStream(handle, stream, messages),
  'receive-streams': async ({ streams, messages }) => ({ inOrder: await prepared().receiveStreams(streams, messages) }),
  async arm({ victim }) {
    prepared().arm(victim)
    return null
  },
  mourn: async ({ victim }) => ({ verdicts: await prepared().mourn(victim) }),
  async finish() {
    await prepared().session.close()
    return null
  },
}

async function obey({ order, arguments: given }: DemoOrder): Promise<DemoReply> {
  try {
    const handler = handlers[order] as (given: unknown) => Promise<unknown>
    return { order, answer: await handler(given) }
  } catch (error) {
    return { order, failure: error instanceof Error ? (error.stack ?? error.message) : String(error) }
  }
}

let last: Promise<void> = Promise.resolve()
process.on('message', (message: DemoOrder) => {
  last = last.then(async () => {
    const reply = await obey(message)
    process.send?.(reply, () => {
      if (message.order === 'finish') process.disconnect()
    })
  })
})
// A demo that is gone leaves nobody behind.
process.on('disconnect', () => process.exit())
