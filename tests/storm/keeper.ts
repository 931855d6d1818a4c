/** What outlives every process of the storm on a node: a session that made the shared objects, and never posts or polls. */
import { attach, type CompletionQueue, type MemoryRegion, type QueuePair, type Session } from '../../client/index.js'
import { SLOT_FREE, SLOT_STATE_NAMES, stateOf } from '../../shm/slot-state.js'
import {
  homeByteLength,
  type NodeName,
  PAIRS,
  PATTERN_BYTES,
  PATTERN_OFFSET,
  patternByte,
  QUEUES,
  queueOf,
} from './plan.js'

export const job = { job: 'storm', jobKey: 'key of the storm' } as const

const DEPTH = 64
const RECEIVES = 256

export class Keeper {
  readonly name: NodeName
  readonly session: Session
  readonly home: MemoryRegion
  readonly queues: readonly CompletionQueue[]
  /** Connected ones, then the datagram one. */
  readonly queuePairs: readonly QueuePair[]
  /** What must not happen to it. */
  readonly trouble: string[] = []

  constructor(parts: Pick<Keeper, 'name' | 'session' | 'home' | 'queues' | 'queuePairs'>) {
    this.name = parts.name
    this.session = parts.session
    this.home = parts.home
    this.queues = parts.queues
    this.queuePairs = parts.queuePairs
    this.session.on('event', (event) => {
      if (event.kind === 'queue-pair-error') this.trouble.push(`${this.name}: ${event.status}: ${event.reason}`)
      if (event.kind === 'broker-lost' && !event.recovering) this.trouble.push(`${this.name}: ${event.error.message}`)
    })
  }

  static async make(name: NodeName, runtimeDir: string, processes: number, buffers: number): Promise<Keeper> {
    const session = await attach({ runtimeDir, ...job, name: 'keeper', reconnectTimeoutMs: 120_000 })
    const rights = { remoteRead: true, remoteWrite: true, remoteAtomic: true }
    const home = await session.registerMemory(homeByteLength(processes, buffers), rights)
    for (let index = 0; index < PATTERN_BYTES; index++)
      home.bytes[PATTERN_OFFSET + index] = patternByte(PATTERN_OFFSET + index)
    const queues: CompletionQueue[] = []
    for (let index = 0; index < QUEUES; index++) queues.push(await session.createCompletionQueue({ capacity: 1024 }))
    const queuePairs: QueuePair[] = []
    for (let index = 0; index <= PAIRS; index++) {
      const type = index < PAIRS ? 'connected' : 'datagram'
      const sizes = { maxSend: DEPTH, maxReceive: RECEIVES, maxInline: 128 }
      queuePairs.push(await session.createQueuePair({ type, sendCq: queues[queueOf(index)]!, ...sizes }))
    }
    return new Keeper({ name, session, home, queues, queuePairs })
  }

  async connect(other: Keeper): Promise<void> {
    const connects = this.queuePairs
      .slice(0, PAIRS)
      .map((queuePair, index) => queuePair.connect(other.queuePairs[index]!.address, { timeoutMs: 20_000 }))
    await Promise.all([...connects, this.session.resolve(other.name, { timeoutMs: 20_000 })])
  }

  /** Sends that are not over, by the state of their slots. */
  unfinished(): string[] {
    return this.#slots('send').flatMap(({ state, where }) =>
      state === SLOT_FREE ? [] : [`${where} ${SLOT_STATE_NAMES[state]}`],
    )
  }

  /** Completions of receives that nobody has taken. */
  untaken(): number {
    return this.#slots('receive').filter(({ state }) => SLOT_STATE_NAMES[state] === 'done').length
  }

  #slots(which: 'send' | 'receive'): { readonly state: number; readonly where: string }[] {
    return this.queuePairs.flatMap(({ number }, index) => {
      const segment = this.session.attachment.segments.get(number)
      if (!segment) throw new Error(`the keeper of ${this.name} has lost queue pair ${index}`)
      const { slotBase, slotWords, slotCount } = segment[which]
      return Array.from({ length: slotCount }, (_, slot) => ({
        state: stateOf(segment.words.load(slotBase + slot * slotWords)),
        where: `${this.name} ${index} slot ${slot}`,
      }))
    })
  }
}
