/** `traffic-sender.js <runtime directory> <service> <node>`: sends to whoever listens there until it is told to stop. */
import { randomInt } from 'node:crypto'
import { setTimeout as sleep, setImmediate as yieldTurn } from 'node:timers/promises'
import { attach, type CompletionQueue, type MemoryRegion, type QueuePair, type Session } from '../../../client/index.js'
import { DEPTH, JOB, LENGTHS, MESSAGE_BYTES_MAX, type Tally } from './traffic.js'
import { TrafficTeller } from './traffic-teller.js'

const [runtimeDir, service, node] = process.argv.slice(2) as [string, string, string]
const teller = new TrafficTeller()
const PAUSE_MS = 200
/** Longer than a node is taken for alive, and what waits for it is kept after that. */
const VERDICT_MS = 90_000

async function attachAndSend(): Promise<void> {
  const session = await attach({ runtimeDir, ...JOB })
  session.on('event', ({ kind }) => teller.count('events', kind))
  try {
    const cq = await session.createCompletionQueue({ capacity: 4 * DEPTH })
    const memory = await session.registerMemory(DEPTH * MESSAGE_BYTES_MAX)
    while (!teller.isStopping) await connectAndSend(session, cq, memory)
  } finally {
    await session.close()
  }
}

async function connectAndSend(session: Session, cq: CompletionQueue, memory: MemoryRegion): Promise<void> {
  const queuePair = await session.createQueuePair({ sendCq: cq, maxSend: DEPTH, maxReceive: 4 })
  try {
    await queuePair.connect({ node, service }, { timeoutMs: 5000 })
  } catch (error) {
    teller.refused(error)
    await queuePair.close()
    await sleep(PAUSE_MS)
    return
  }
  const connection = new Connection(queuePair, cq, memory)
  try {
    await connection.run()
  } finally {
    connection.tally.withoutVerdict += connection.outstanding
  }
  await queuePair.close()
}

class Connection {
  readonly tally: Tally = { success: 0, flushed: 0, uncertain: 0, withoutVerdict: 0 }
  readonly #number = randomInt(2 ** 32 - 1)
  readonly #queuePair: QueuePair
  readonly #cq: CompletionQueue
  readonly #memory: MemoryRegion
  readonly #bytes: Buffer
  #posted = 0
  #done = 0
  #isBroken = false

  constructor(queuePair: QueuePair, cq: CompletionQueue, memory: MemoryRegion) {
    this.#queuePair = queuePair
    this.#cq = cq
    this.#memory = memory
    const { buffer, byteOffset, byteLength } = memory.bytes
    this.#bytes = Buffer.from(buffer, byteOffset, byteLength)
    teller.tallies[this.#number] = this.tally
  }

  get outstanding(): number {
    return this.#posted - this.#done
  }

  async run(): Promise<void> {
    let heardMs = performance.now()
    while (this.outstanding > 0 || !(this.#isBroken || teller.isStopping)) {
      while (this.outstanding < DEPTH && !this.#isBroken && !teller.isStopping) this.#post()
      if (this.outstanding > 0) await this.#cq.wait({ timeoutMs: 1000 })
      // A wait that finds something at once never lets the parent's orders in.
      await yieldTurn()
      const before = this.#done
      for (const { id, status } of this.#cq.poll(DEPTH)) this.#take(id, status)
      if (this.#done > before) heardMs = performance.now()
      if (performance.now() - heardMs < VERDICT_MS) continue
      teller.failures.push(`connection ${this.#number}: ${this.outstanding} requests without a verdict`)
      return
    }
  }

  #post(): void {
    const sequence = this.#posted
    const length = LENGTHS[sequence % LENGTHS.length]!
    const offset = (sequence % DEPTH) * MESSAGE_BYTES_MAX
    this.#bytes.fill(sequence & 0xff, offset, offset + length)
    this.#bytes.writeUInt32LE(this.#number, offset)
    this.#bytes.writeUInt32LE(sequence, offset + 4)
    const local = [{ region: this.#memory, offset, length }]
    if (this.#queuePair.postSend({ id: sequence, opcode: 'send', local }) === 1) this.#posted++
    else this.#isBroken = true
  }

  #take(id: number, status: string): void {
    if (id !== this.#done) teller.failures.push(`connection ${this.#number}: verdict of ${id} instead of ${this.#done}`)
    this.#done++
    teller.count('verdicts', status)
    if (status === 'success') {
      if (this.#isBroken) teller.failures.push(`connection ${this.#number}: ${id} succeeded after a failure`)
      this.tally.success++
      return
    }
    this.#isBroken = true
    if (status === 'flushed') this.tally.flushed++
    else this.tally.uncertain++
  }
}

while (!teller.isStopping) {
  try {
    await attachAndSend()
  } catch (error) {
    teller.refused(error)
    await sleep(PAUSE_MS)
  }
}
teller.end()
