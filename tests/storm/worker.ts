/** One process of the job in a storm: posts, polls, checks, and writes down what it sees. It may be killed or stopped anywhere. */
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import {
  attach,
  CompletionBatch,
  type CompletionQueue,
  type MemoryRegion,
  type ObjectHandle,
  opcode,
  type QueuePair,
  type QueuePairAddress,
  type QueuePairHandle,
  type Session,
  SharedVerbsError,
  status,
} from '../../client/index.js'
import { JournalWriter, machineMs, recordType } from './journal.js'
import {
  BUFFER_BYTES,
  bufferOffset,
  columnOf,
  flagIndex,
  isWhole,
  kindNumber,
  landingOffset,
  OWN_BYTES,
  OWN_SLOTS,
  PATTERN_OFFSET,
  POLL_BATCH,
  patternByte,
  queueOfSeat,
  queuePairsOf,
  readHeader,
  resultOffset,
  SMALL_BYTES,
  SMALL_SLOTS,
  unpackId,
  unpackImmediate,
} from './plan.js'
import { Posts } from './posts.js'

/** What the supervisor tells a process at its start. */
export interface WorkerPlan {
  readonly runtimeDirectory: string
  readonly job: string
  readonly jobKey: string
  readonly name: string
  readonly seat: number
  readonly process: number
  /** Most processes of this storm. */
  readonly processes: number
  readonly seed: number
  readonly journal: string
  readonly home: ObjectHandle
  readonly queues: readonly ObjectHandle[]
  readonly queuePairs: readonly QueuePairHandle[]
  readonly remoteKey: number
  readonly peerNode: string
  readonly peerDatagram: QueuePairAddress
  readonly firstBuffer: number
  readonly buffersEach: number
  /** Requests a second. */
  readonly rate: number
}

export type ToWorker = 'stop' | 'end'
export type FromWorker = { readonly ready: true } | { readonly stopped: true } | { readonly event: string }

const ATTACH_MS = 40_000
const IDLE_MS = 10
/** A landing that is being written again looks torn for so long at most. */
const LANDING_MS = 2000

export interface Parts {
  readonly plan: WorkerPlan
  readonly journal: JournalWriter
  readonly session: Session
  readonly home: MemoryRegion
  /** Its bytes and words. */
  readonly bytes: Buffer
  readonly flags: Int32Array
  readonly own: MemoryRegion
  readonly ownBytes: Buffer
  readonly queue: CompletionQueue
  /** Index → handle, those of this seat. */
  readonly queuePairs: ReadonlyMap<number, QueuePair>
}

/** A landing that was not right when it was looked at. */
interface Landing {
  readonly process: number
  readonly queuePair: number
  readonly kind: number
  readonly sequence: number
  readonly offset: number
  readonly dueMs: number
}

const bufferOf = ({ buffer, byteOffset, byteLength }: Uint8Array): Buffer => Buffer.from(buffer, byteOffset, byteLength)

class Worker {
  readonly #parts: Parts
  readonly #posts: Posts
  readonly #batch = new CompletionBatch(POLL_BATCH)
  readonly #indexOf = new Map<number, number>()
  /** Receives that found no room or a busy lock. */
  readonly #unposted: { readonly queuePair: number; readonly buffer: number }[] = []
  #landings: Landing[] = []
  stopping = false
  ending = false

  constructor(parts: Parts) {
    this.#parts = parts
    this.#posts = new Posts(parts)
    for (const [index, { number }] of parts.queuePairs) this.#indexOf.set(number, index)
    let buffer = parts.plan.firstBuffer
    for (const index of parts.queuePairs.keys()) {
      for (let count = 0; count < parts.plan.buffersEach; count++) this.#receiveInto(index, buffer++)
    }
  }

  async run(): Promise<void> {
    const { queue } = this.#parts
    while (!this.ending) {
      const taken = this.#poll()
      this.#lookAgain()
      for (const { queuePair, buffer } of this.#unposted.splice(0)) this.#receiveInto(queuePair, buffer)
      if (!this.stopping) this.#posts.post()
      if (taken === 0) await queue.wait({ timeoutMs: IDLE_MS })
      else await turn()
    }
  }

  #receiveInto(queuePair: number, buffer: number): void {
    const { plan, home, queuePairs } = this.#parts
    const local = [{ region: home, offset: bufferOffset(plan.processes, buffer), length: BUFFER_BYTES }]
    const accepted = queuePairs.get(queuePair)!.postReceive({ id: buffer, local })
    if (accepted === 0) this.#unposted.push({ queuePair, buffer })
  }

  /** What was taken is written down before anything else happens. */
  #poll(): number {
    const batch = this.#batch
    const count = this.#parts.queue.pollInto(batch)
    if (count === 0) return 0
    const timeMs = machineMs()
    for (let row = 0; row < count; row++) this.#record(row, timeMs)
    this.#parts.journal.write()
    for (let row = 0; row < count; row++) this.#act(row)
    this.#parts.journal.write()
    return count
  }

  #isReceive(row: number): boolean {
    const what = this.#batch.opcode[row]!
    return what === opcode.receive || what === opcode.receiveWithImmediate
  }

  #record(row: number, timeMs: number): void {
    const { bytes, journal, plan } = this.#parts
    const batch = this.#batch
    const id = batch.id[row]!
    if (!this.#isReceive(row)) {
      const { process, queuePair, kind, slot, sequence } = unpackId(id)
      const found = batch.status[row] === status.success && slot > 0 && slot <= SMALL_SLOTS
      const value = found ? Number(bytes.readBigUInt64LE(resultOffset(process, slot - 1))) : 0
      const told = { status: batch.status[row]!, process, queuePair, kind, sequence, count: 0, timeMs, value }
      journal.add({ type: recordType.verdict, ...told })
      return
    }
    const offset = bufferOffset(plan.processes, id)
    const success = batch.status[row] === status.success
    const immediate = this.#noticeOf(row)
    const header = success && !immediate ? readHeader(bytes, offset) : undefined
    journal.add({
      type: recordType.received,
      kind: header?.kind ?? kindNumber('write-with-immediate'),
      queuePair: this.#indexOf.get(batch.queuePair[row]!) ?? 255,
      status: success ? 1 : 0,
      process: header?.process ?? immediate?.process ?? 0,
      sequence: header?.sequence ?? immediate?.sequence ?? 0,
      count: id,
      timeMs,
      value: batch.byteLength[row]!,
    })
  }

  /** Of a write with immediate: nothing came into the receive's memory. A send with immediate says so in its header. */
  #noticeOf(row: number): { process: number; slot: number; sequence: number } | undefined {
    const batch = this.#batch
    if (batch.opcode[row] !== opcode.receiveWithImmediate) return undefined
    const immediate = unpackImmediate(batch.immediate[row]!)
    // The slot of a send with immediate is 7, which no landing has.
    return immediate.slot === 7 ? undefined : immediate
  }

  #act(row: number): void {
    const batch = this.#batch
    const { flags, bytes, plan } = this.#parts
    const id = batch.id[row]!
    const success = batch.status[row] === status.success
    if (!this.#isReceive(row)) {
      const request = unpackId(id)
      if (success && request.kind === kindNumber('read')) this.#checkRead(request, batch.byteLength[row]!)
      if (request.slot > 0) Atomics.store(flags, flagIndex(request.process, request.slot - 1), 0)
      return
    }
    const queuePair = this.#indexOf.get(batch.queuePair[row]!)!
    if (success) {
      const notice = this.#noticeOf(row)
      if (notice) this.#checkLanding(notice.process, queuePair, kindNumber('write-with-immediate'), notice)
      else {
        const offset = bufferOffset(plan.processes, id)
        const header = readHeader(bytes, offset)
        const { process, sequence, kind, byteLength, noticeSlot, noticeSequence } = header
        const whole = isWhole(bytes, offset, BUFFER_BYTES)
        if (!whole || header.queuePair !== queuePair || byteLength !== batch.byteLength[row])
          this.#spoilt({ process, queuePair, kind, sequence }, 1)
        else if (noticeSlot > 0) {
          const write = { slot: noticeSlot - 1, sequence: noticeSequence }
          this.#checkLanding(process, queuePair, kindNumber('write'), write)
        }
      }
    }
    if (success) this.#receiveInto(queuePair, id)
  }

  #checkRead(
    request: { process: number; queuePair: number; kind: number; sequence: number; slot: number },
    byteLength: number,
  ): void {
    const { bytes } = this.#parts
    const from = resultOffset(request.process, request.slot - 1)
    for (let index = 0; index < byteLength; index++) {
      if (bytes[from + index] === patternByte(PATTERN_OFFSET + index)) continue
      this.#spoilt(request, 2)
      return
    }
  }

  #checkLanding(
    process: number,
    queuePair: number,
    kind: number,
    { slot, sequence }: { slot: number; sequence: number },
  ): void {
    const offset = landingOffset(process, columnOf(queuePair, kind), slot)
    const landing = { process, queuePair, kind, sequence, offset, dueMs: machineMs() + LANDING_MS }
    if (!this.#landingIsRight(landing)) this.#landings.push(landing)
  }

  /** Right: what was told of, whole; or something later, which will be told of itself. */
  #landingIsRight({ process, sequence, offset }: Landing): boolean {
    const { bytes } = this.#parts
    const header = readHeader(bytes, offset)
    if (header.process !== process) return false
    return header.sequence > sequence || (header.sequence === sequence && isWhole(bytes, offset, SMALL_BYTES))
  }

  #lookAgain(): void {
    if (this.#landings.length === 0) return
    const nowMs = machineMs()
    this.#landings = this.#landings.filter((landing) => {
      if (this.#landingIsRight(landing)) return false
      if (nowMs < landing.dueMs) return true
      this.#spoilt(landing, 3)
      return false
    })
    this.#parts.journal.write()
  }

  #spoilt(what: { process: number; queuePair: number; kind: number; sequence: number }, how: number): void {
    const { process, queuePair, kind, sequence } = what
    const record = { process, queuePair, kind, sequence, status: how, count: 0, timeMs: machineMs(), value: 0 }
    this.#parts.journal.add({ type: recordType.spoilt, ...record })
  }
}

const tell = (message: FromWorker): void => {
  if (process.connected) process.send?.(message, () => {})
}

async function attachPatiently(plan: WorkerPlan): Promise<Session> {
  const deadlineMs = performance.now() + ATTACH_MS
  const { runtimeDirectory: runtimeDir, job, jobKey, name } = plan
  for (;;) {
    try {
      return await attach({ runtimeDir, job, jobKey, name, timeoutMs: 20_000, reconnectTimeoutMs: 60_000 })
    } catch (error) {
      const passing =
        error instanceof SharedVerbsError && /^(broker-not-running|broker-lost|draining|timeout)$/.test(error.code)
      if (!passing || performance.now() > deadlineMs) throw error
    }
    await sleep(50)
  }
}

async function resolvePatiently(session: Session, node: string): Promise<void> {
  const deadlineMs = performance.now() + ATTACH_MS
  for (;;) {
    try {
      return await session.resolve(node, { timeoutMs: 10_000 })
    } catch (error) {
      const passing = error instanceof SharedVerbsError && /^(timeout|peer-unreachable|path-lost)$/.test(error.code)
      if (!passing || performance.now() > deadlineMs) throw error
    }
    await sleep(50)
  }
}

async function prepare(plan: WorkerPlan): Promise<Parts> {
  const journal = new JournalWriter(plan.journal)
  const session = await attachPatiently(plan)
  session.on('event', (event) => {
    const more = event.kind === 'queue-pair-error' ? ` ${event.status} ${event.reason}` : ''
    const lost = event.kind === 'broker-lost' ? ` ${event.recovering} ${event.error.message}` : ''
    tell({ event: `${event.kind}${more}${lost}` })
  })
  const home = await session.openMemory(plan.home)
  const bytes = bufferOf(home.bytes)
  const flags = new Int32Array(home.bytes.buffer, home.bytes.byteOffset, home.byteLength / 4)
  const queue = await session.openCompletionQueue(plan.queues[queueOfSeat(plan.seat)]!)
  const queuePairs = new Map<number, QueuePair>()
  for (const index of queuePairsOf(plan.seat)) {
    queuePairs.set(index, await session.openQueuePair(plan.queuePairs[index]!, { sendCq: queue, receiveCq: queue }))
  }
  const own = await session.registerMemory(OWN_SLOTS * OWN_BYTES)
  await resolvePatiently(session, plan.peerNode)
  return { plan, journal, session, home, bytes, flags, own, ownBytes: bufferOf(own.bytes), queue, queuePairs }
}

const plan = JSON.parse(process.argv[2] ?? '{}') as WorkerPlan
// Nobody is left to say when it is over.
const orphaned = (): void => process.exit(1)
process.on('disconnect', orphaned)
const parts = await prepare(plan)
const worker = new Worker(parts)
process.on('message', (message: ToWorker) => {
  worker.stopping = true
  tell({ stopped: true })
  if (message === 'end') worker.ending = true
})
tell({ ready: true })
await worker.run()
parts.journal.close()
await parts.session.close()
process.off('disconnect', orphaned)
process.disconnect()
