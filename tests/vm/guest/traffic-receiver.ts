/** `traffic-receiver.js <runtime directory> <service>`: takes what comes until it is told to stop, each message once and in order. */
import { setTimeout as sleep, setImmediate as yieldTurn } from 'node:timers/promises'
import {
  attach,
  type Completion,
  type CompletionQueue,
  type MemoryRegion,
  type QueuePair,
  type Session,
} from '../../../client/index.js'
import { DEPTH, JOB, LENGTHS, MESSAGE_BYTES_MAX } from './traffic.js'
import { TrafficTeller } from './traffic-teller.js'

const [runtimeDir, service] = process.argv.slice(2) as [string, string]
const teller = new TrafficTeller()
const PAUSE_MS = 200

interface Arrivals {
  readonly queuePair: QueuePair
  readonly memory: MemoryRegion
}

class Receiver {
  readonly #session: Session
  readonly #cq: CompletionQueue
  readonly #arrivals = new Map<number, Arrivals>()

  constructor(session: Session, cq: CompletionQueue) {
    this.#session = session
    this.#cq = cq
  }

  async run(): Promise<void> {
    const onQueuePair = (queuePair: QueuePair): Promise<void> => this.#prepare(queuePair)
    const options = { sendCq: this.#cq, maxSend: 4, maxReceive: DEPTH, onQueuePair }
    const listener = await this.#session.listen(service, options)
    const accepting = this.#accept(listener)
    while (!teller.isStopping) {
      await this.#cq.wait({ timeoutMs: 500 })
      // A wait that finds something at once never lets the parent's orders in.
      await yieldTurn()
      for (const completion of this.#cq.poll(2 * DEPTH)) this.#take(completion)
    }
    await listener.close()
    await accepting
  }

  async #accept(listener: AsyncIterable<QueuePair>): Promise<void> {
    try {
      for await (const queuePair of listener) queuePair.once('disconnected', () => this.#drop(queuePair.number))
    } catch (error) {
      teller.refused(error)
    }
  }

  async #prepare(queuePair: QueuePair): Promise<void> {
    const memory = await this.#session.registerMemory(DEPTH * MESSAGE_BYTES_MAX)
    this.#arrivals.set(queuePair.number, { queuePair, memory })
    for (let slot = 0; slot < DEPTH; slot++) post(queuePair, memory, slot)
  }

  #take({ id, status, byteLength, queuePair: number }: Completion): void {
    const arrivals = this.#arrivals.get(number)
    if (status !== 'success') {
      this.#drop(number)
      return
    }
    if (arrivals === undefined) return
    verify(arrivals.memory.bytes, id * MESSAGE_BYTES_MAX, byteLength)
    post(arrivals.queuePair, arrivals.memory, id)
  }

  #drop(number: number): void {
    const arrivals = this.#arrivals.get(number)
    if (arrivals === undefined) return
    this.#arrivals.delete(number)
    arrivals.queuePair
      .close()
      .then(() => arrivals.memory.close())
      .catch((error) => teller.refused(error))
  }
}

function post(queuePair: QueuePair, memory: MemoryRegion, slot: number): void {
  const local = [{ region: memory, offset: slot * MESSAGE_BYTES_MAX, length: MESSAGE_BYTES_MAX }]
  queuePair.postReceive({ id: slot, local })
}

function verify({ buffer, byteOffset }: Uint8Array, offset: number, byteLength: number): void {
  const message = Buffer.from(buffer, byteOffset + offset, byteLength)
  const connection = message.readUInt32LE(0)
  const sequence = message.readUInt32LE(4)
  const expected = teller.received[connection] ?? 0
  teller.received[connection] = expected + 1
  if (sequence !== expected)
    teller.failures.push(`connection ${connection}: message ${sequence} instead of ${expected}`)
  const isWhole =
    byteLength === LENGTHS[sequence % LENGTHS.length] && message.subarray(8).every((byte) => byte === (sequence & 0xff))
  if (!isWhole)
    teller.failures.push(`connection ${connection}: message ${sequence} of ${byteLength} bytes is not what was sent`)
}

while (!teller.isStopping) {
  try {
    const session = await attach({ runtimeDir, ...JOB })
    session.on('event', ({ kind }) => teller.count('events', kind))
    try {
      await new Receiver(session, await session.createCompletionQueue({ capacity: 512 })).run()
    } finally {
      await session.close()
    }
  } catch (error) {
    teller.refused(error)
    await sleep(PAUSE_MS)
  }
}
teller.end()
