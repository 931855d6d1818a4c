/**
 * What all handles of one session share: who this member is, the words it rings the broker with, the kernel's word on
 * who lives, and the segments it has mapped. Internal; applications see `Session`.
 */
import { brokerPage, brokerPageGeometry, nodeNameRow } from '../protocol/broker-page.js'
import type { RequestBody, RequestName, RequestResult } from '../protocol/control.js'
import { SharedVerbsError } from '../protocol/errors.js'
import { markActive } from '../shm/activity.js'
import type { Doorbell } from '../shm/doorbell.js'
import type { LivenessMonitor, LivenessToken } from '../shm/liveness.js'
import type { Mapping } from '../shm/mapping.js'
import type { Memory } from '../shm/memory.js'
import { ownerWord } from '../shm/robust-lock.js'
import type { Words } from '../shm/words.js'
import type { CompletionQueue } from './completion-queue.js'
import { type ControlClient, closeAll, type Reply, type RequestOptions } from './control-client.js'
import type { MemoryRegion } from './memory-region.js'
import type { QueuePair } from './queue-pair.js'
import { QueuePairSegment } from './queue-pair-segment.js'

export type AttachGrant = RequestResult<'attach'>

export interface AttachmentParts {
  readonly grant: AttachGrant
  readonly control: ControlClient
  readonly page: Mapping
  readonly activity: Mapping
  readonly token: LivenessToken
  readonly monitor: LivenessMonitor
  readonly doorbell: Doorbell
  readonly engineDoorbell: Doorbell
}

const SLEEPING = brokerPage.word.sleeping
const NAME_WORDS = nodeNameRow.byteLength / 4

interface RememberedName {
  readonly raw: Uint32Array
  readonly name: string
}

export class Attachment {
  readonly grant: AttachGrant
  readonly control: ControlClient
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
  readonly #parts: AttachmentParts
  readonly #activityWords: Words
  readonly #pageWords: Words
  readonly #pageMemory: Memory
  readonly #names = new Map<number, RememberedName>()

  constructor(parts: AttachmentParts) {
    this.#parts = parts
    this.grant = parts.grant
    this.control = parts.control
    this.doorbell = parts.doorbell
    this.monitor = parts.monitor
    this.member = parts.grant.member
    this.owner = ownerWord(parts.grant.member, parts.grant.memberGeneration)
    this.#activityWords = parts.activity.words
    this.#pageWords = parts.page.words
    this.#pageMemory = parts.page.memory
  }

  /** Control request of this session. Throws what `ControlClient.request` throws, or why the session ended. */
  async request<Name extends RequestName>(
    name: Name,
    body: RequestBody<Name>,
    options: RequestOptions = {},
  ): Promise<Reply<Name>> {
    if (this.ended) throw this.ended
    const reply = await this.control.request(name, body, options)
    if (!this.ended) return reply
    // The session was closed under the request: nobody is left to use what came.
    closeAll(reply.descriptors)
    throw this.ended
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
    if (this.#pageWords.load(SLEEPING) !== 0) this.#parts.engineDoorbell.ring()
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
    this.doorbell.ring()
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
    this.doorbell.close()
    this.#parts.engineDoorbell.close()
    this.#parts.activity.close()
    this.#parts.page.close()
    this.monitor.close()
    this.#parts.token.release()
  }
}

function sameWords(known: Uint32Array, memory: Uint32Array, start: number): boolean {
  for (let index = 0; index < known.length; index++) if (known[index] !== memory[start + index]) return false
  return true
}
