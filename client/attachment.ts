/**
 * What all handles of one session share: who this member is, the words it rings the broker with, the kernel's word on
 * who lives, and the segments it has mapped. Internal; applications see `Session`.
 */
import { brokerPage, brokerPageGeometry, nodeNameRow } from '../protocol/broker-page.js'
import type { RequestBody, RequestName, RequestResult } from '../protocol/control.js'
import { SharedVerbsError } from '../protocol/errors.js'
import { markActive } from '../shm/activity.js'
import type { Doorbell } from '../shm/doorbell.js'
import { currentCore } from '../shm/libc.js'
import type { LivenessMonitor, LivenessToken } from '../shm/liveness.js'
import type { Mapping } from '../shm/mapping.js'
import type { Memory } from '../shm/memory.js'
import { ownerWord } from '../shm/robust-lock.js'
import type { Words } from '../shm/words.js'
import { BlockingSleep } from './blocking-sleep.js'
import type { CompletionQueue } from './completion-queue.js'
import {
  aborted,
  type ControlClient,
  closeAll,
  defaultRequestTimeoutMs,
  type Reply,
  type RequestOptions,
  timedOut,
} from './control-client.js'
import type { MemoryRegion } from './memory-region.js'
import type { QueuePair } from './queue-pair.js'
import { QueuePairSegment } from './queue-pair-segment.js'
import type { Recovery } from './recovery.js'

export type AttachGrant = RequestResult<'attach'>

export interface AttachmentParts {
  readonly grant: AttachGrant
  readonly activity: Mapping
  /** Descriptor of the job's liveness file. */
  readonly liveness: number
  readonly token: LivenessToken
  readonly monitor: LivenessMonitor
  readonly doorbell: Doorbell
  readonly broker: BrokerParts
}

/** What belongs to one broker and changes with it. */
export interface BrokerParts {
  readonly epoch: number
  readonly control: ControlClient
  readonly page: Mapping
  readonly engineDoorbell: Doorbell
}

/** How a request is made good that was under way when the broker was lost. */
export interface RepeatOptions<Name extends RequestName> extends RequestOptions {
  /** Asked after a re-attachment: the result, if the lost broker had done it. */
  readonly done?: () => RequestResult<Name> | undefined
}

/** Requests to end something; once the lost broker did it, the next one knows nothing of it. */
const endings: ReadonlySet<RequestName> = new Set<RequestName>([
  'closeCompletionQueue',
  'closeQueuePair',
  'closeMemory',
  'disconnectQueuePair',
  'unlisten',
])
const alreadyEnded = new Set<string>(['no-such-object', 'stale-handle', 'not-connected'])
/** As long as a timer may be. */
const KEEP_ALIVE_MS = 2 ** 31 - 1

const SLEEPING = brokerPage.word.sleeping
const CORE = brokerPage.word.core
const NAME_WORDS = nodeNameRow.byteLength / 4

interface RememberedName {
  readonly raw: Uint32Array
  readonly name: string
}

export class Attachment {
  readonly grant: AttachGrant
  /** Rung by whoever publishes what a wait of this session is armed for; also by ourselves to make waits look again. */
  readonly doorbell: Doorbell
  readonly monitor: LivenessMonitor
  /** How locks name this member. */
  readonly owner: number
  readonly member: number
  /** Queue pairs mapped here, by number: what references in completion rings are looked up in. */
  readonly segments = new Map<number, QueuePairSegment>()
  /** Handles that are open. */
  readonly queuePairs = new Set<QueuePair>()
  readonly completionQueues = new Set<CompletionQueue>()
  readonly regions = new Set<MemoryRegion>()
  /** Nodes that datagrams may name, with their indices. */
  readonly resolvedNodes = new Map<string, number>()
  /** Why nothing works any more; undefined while attached. */
  ended: SharedVerbsError | undefined
  /** Looks for the next broker while there is none; undefined: nobody does. */
  recovery: Recovery | undefined
  /** The thread is blocked in a wait: nothing of the application may run. */
  blocking = false
  readonly #parts: AttachmentParts
  readonly #activityWords: Words
  readonly #sleep: BlockingSleep
  #broker: BrokerParts
  #pageWords: Words
  #pageMemory: Memory
  readonly #names = new Map<number, RememberedName>()
  readonly #waiters = new Set<() => void>()

  constructor(parts: AttachmentParts) {
    this.#parts = parts
    this.grant = parts.grant
    this.#broker = parts.broker
    this.doorbell = parts.doorbell
    this.#sleep = new BlockingSleep(parts.doorbell.fd, parts.broker.control.descriptor)
    this.monitor = parts.monitor
    this.member = parts.grant.member
    this.owner = ownerWord(parts.grant.member, parts.grant.memberGeneration)
    this.#activityWords = parts.activity.words
    this.#pageWords = parts.broker.page.words
    this.#pageMemory = parts.broker.page.memory
  }

  get control(): ControlClient {
    return this.#broker.control
  }

  /** Of the broker now, or of the one that was lost. */
  get epoch(): number {
    return this.#broker.epoch
  }

  /** There is no broker, and the next one is looked for. */
  get lost(): boolean {
    return this.recovery?.active === true
  }

  /** What the next broker is shown first: liveness file, activity, doorbell. */
  get descriptors(): readonly number[] {
    return [this.#parts.liveness, this.#parts.activity.fd, this.doorbell.fd]
  }

  /** Another broker serves this session from now on. */
  renew(broker: BrokerParts): void {
    const before = this.#broker
    this.#broker = broker
    this.#pageWords = broker.page.words
    this.#pageMemory = broker.page.memory
    before.control.close()
    before.page.close()
    before.engineDoorbell.close()
    this.#sleep.connect(broker.control.descriptor)
    // What was published while nobody looked.
    broker.engineDoorbell.ring()
    this.doorbell.ring()
    this.#wakeWaiters()
  }

  /** Keeps the process alive until the returned function is called. */
  hold(): () => void {
    const keeper = setInterval(() => {}, KEEP_ALIVE_MS)
    return () => clearInterval(keeper)
  }

  /** Blocks this thread until the doorbell rings or the time is over; a broker that is lost meanwhile is replaced here. */
  sleepSync(timeoutMs: number): void {
    this.blocking = true
    try {
      if (this.lost) {
        this.recovery?.sleep(this.doorbell.fd, timeoutMs)
        // That looks at the counter, in which former sleeps have left their rings.
        this.doorbell.drain()
      } else if (this.#sleep.sleep(timeoutMs)) this.control.readNow()
    } finally {
      this.blocking = false
    }
  }

  /**
   * Control request of this session. While there is no broker it waits for the next one, and what was under way is asked again there:
   * what the lost broker made without telling is dropped by the next, because nobody presents it. Throws what `ControlClient.request`
   * throws, or why the session ended.
   */
  async request<Name extends RequestName>(
    name: Name,
    body: RequestBody<Name>,
    options: RepeatOptions<Name> = {},
  ): Promise<Reply<Name>> {
    const { timeoutMs = defaultRequestTimeoutMs, done, ...rest } = options
    const deadlineMs = performance.now() + timeoutMs
    for (let repeated = false; ; repeated = true) {
      if (this.lost) await this.#untilBack(name, timeoutMs, deadlineMs, rest)
      if (this.ended) throw this.ended
      const found = repeated ? done?.() : undefined
      if (found) return { result: found, descriptors: [] }
      const reply = await this.#requestOnce(
        name,
        body,
        { ...rest, timeoutMs: deadlineMs - performance.now() },
        repeated,
      )
      if (reply) return reply
    }
  }

  /** Undefined: the broker was lost under it. */
  async #requestOnce<Name extends RequestName>(
    name: Name,
    body: RequestBody<Name>,
    options: RequestOptions,
    repeated: boolean,
  ): Promise<Reply<Name> | undefined> {
    const { control } = this
    try {
      const reply = await control.request(name, body, options)
      if (!this.ended && control === this.control) return reply
      // The session was closed under the request, or it is an object of a broker that is gone and was not presented to the next.
      closeAll(reply.descriptors)
      if (this.ended) throw this.ended
      return undefined
    } catch (error) {
      const replaced = control !== this.control || this.lost
      if (error === control.ended && replaced && !this.ended) return undefined
      const code = error instanceof SharedVerbsError ? error.code : ''
      if (repeated && endings.has(name) && alreadyEnded.has(code)) return { result: {}, descriptors: [] } as never
      throw error
    }
  }

  #untilBack(
    name: RequestName,
    timeoutMs: number,
    deadlineMs: number,
    { signal, keepAlive = true }: RequestOptions,
  ): Promise<void> {
    if (signal?.aborted) return Promise.reject(aborted(name))
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): void => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', abort)
        this.#waiters.delete(back)
        settle()
      }
      const back = (): void => end(resolve)
      const abort = (): void => end(() => reject(aborted(name)))
      const leftMs = Math.min(KEEP_ALIVE_MS, Math.max(0, deadlineMs - performance.now()))
      const timer = setTimeout(() => end(() => reject(timedOut(name, timeoutMs))), leftMs)
      if (!keepAlive) timer.unref()
      signal?.addEventListener('abort', abort, { once: true })
      this.#waiters.add(back)
    })
  }

  #wakeWaiters(): void {
    for (const wake of [...this.#waiters]) wake()
  }

  /**
   * Tells the engine that a ring has something new; `bit` is the queue pair's number and the side. Only after
   * publishing: the bits are set leaf first, then the engine's `sleeping` is loaded; the engine stores `sleeping`, then
   * looks at the bits, so one of the two sees the other.
   */
  notify(bit: number): void {
    markActive(this.#activityWords, 0, bit)
    this.wakeEngine()
  }

  /** After making room in a completion ring that was full: completions may be waiting for it, and the engine asleep. */
  wakeEngine(): void {
    if (this.#pageWords.load(SLEEPING) !== 0) this.#broker.engineDoorbell.ring()
  }

  /** The engine turns, on another core than this thread: what it publishes is seen at once, and waiting for it takes nothing from it. */
  get isEngineBeside(): boolean {
    return this.#pageWords.load(SLEEPING) === 0 && this.#pageWords.peek(CORE) !== currentCore()
  }

  /** Name of a node by its index. Rows may be issued anew, so the remembered bytes are compared each time. */
  nodeName(nodeIndex: number): string {
    if (nodeIndex >= brokerPageGeometry.nodeNames) return ''
    const offset = brokerPageGeometry.nodeNamesOffset + nodeIndex * nodeNameRow.byteLength
    const known = this.#names.get(nodeIndex)
    if (known && sameWords(known.raw, this.#pageMemory.u32, offset / 4)) return known.name
    const raw = this.#pageMemory.u32.slice(offset / 4, offset / 4 + NAME_WORDS)
    const { name } = nodeNameRow.read(this.#pageMemory, offset)
    this.#names.set(nodeIndex, { raw, name })
    return name
  }

  /** Makes references find this segment, instead of one that was adopted before. */
  register(segment: QueuePairSegment): void {
    const before = this.segments.get(segment.number)
    this.segments.set(segment.number, segment)
    if (before === undefined) return
    for (const completionQueue of this.completionQueues) completionQueue.forget(segment.number)
    if (before.adopted) before.close()
  }

  /**
   * Maps a queue pair only to read its completions. The hold that comes with opening is given back at once: who polls
   * must not keep alive what its owners close; the mapping serves on without it. Throws `no-such-object` when it is
   * gone.
   */
  async adopt(number: number): Promise<void> {
    const { result, descriptors } = await this.request('openQueuePair', { number, generation: 0 })
    const segment = QueuePairSegment.attach(descriptors[0], result, true)
    this.request('closeQueuePair', { number, generation: result.generation }).catch(() => undefined)
    // A handle for it may have been opened while the request was on its way.
    if (this.segments.has(number)) segment.close()
    else this.register(segment)
  }

  /** References find this segment no more. */
  dismiss(segment: QueuePairSegment): void {
    if (this.segments.get(segment.number) === segment) this.segments.delete(segment.number)
    for (const completionQueue of this.completionQueues) completionQueue.forget(segment.number)
    if (segment.adopted) segment.close()
  }

  /** Ends the session for all handles: what is asked from now on throws `reason`. Mappings go with `release()`. */
  end(reason: SharedVerbsError): void {
    this.ended ??= reason
    this.recovery?.stop()
    this.doorbell.ring()
    this.#wakeWaiters()
  }

  /**
   * The session has ended by itself: from here on this member counts as dead, so that nobody waits for it. It holds no lock, and arms and
   * posts nothing any more; what is mapped can still be polled.
   */
  resign(reason: SharedVerbsError): void {
    this.end(reason)
    this.#parts.token.release()
  }

  /** Gives everything back to the kernel; the token last, because without it this member counts as dead. */
  release(): void {
    this.end(new SharedVerbsError('closed', 'the session is closed'))
    this.control.close()
    for (const queuePair of this.queuePairs) queuePair.release()
    for (const completionQueue of this.completionQueues) completionQueue.release()
    for (const region of this.regions) region.release()
    for (const segment of this.segments.values()) segment.close()
    this.segments.clear()
    this.#sleep.close()
    this.doorbell.close()
    this.#broker.engineDoorbell.close()
    this.#broker.page.close()
    this.#parts.activity.close()
    this.monitor.close()
    closeAll([this.#parts.liveness])
    this.#parts.token.release()
  }
}

function sameWords(known: Uint32Array, memory: Uint32Array, start: number): boolean {
  for (let index = 0; index < known.length; index++) if (known[index] !== memory[start + index]) return false
  return true
}
