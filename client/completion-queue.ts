/** A completion queue: where the outcomes of work requests are polled, by one process or by several that share it. */
import type { ObjectHandle } from '../protocol/address.js'
import {
  completionQueueGeometry,
  completionQueueHeader,
  completionQueueMagic,
  side,
} from '../protocol/completion-queue-segment.js'
import type { RequestResult } from '../protocol/control.js'
import { SharedVerbsError } from '../protocol/errors.js'
import { abiVersion } from '../protocol/version.js'
import { clock } from '../shm/libc.js'
import type { Mapping } from '../shm/mapping.js'
import { ArmedBit } from './arming.js'
import type { Attachment } from './attachment.js'
import { type Completion, CompletionBatch } from './completion.js'
import { Patience } from './patience.js'
import { Poller, takeUnreferred } from './polling.js'
import type { QueuePairSegment } from './queue-pair-segment.js'
import type { Presentable } from './reattachment.js'
import { mapSegment } from './segments.js'

export interface WaitOptions {
  /** The wait ends with false after it. Default: no deadline. */
  readonly timeoutMs?: number
  /** Ends the wait: it rejects with `aborted`. */
  readonly signal?: AbortSignal
  /** Sleeps through completions of receives that were not sent as `solicited` and are no errors. Default false. */
  readonly solicitedOnly?: boolean
}

const deadlineOf = (timeoutMs: number | undefined): number =>
  timeoutMs === undefined ? Number.POSITIVE_INFINITY : clock.nowMs() + timeoutMs

export class CompletionQueue implements AsyncIterable<Completion> {
  readonly number: number
  readonly generation: number
  /** Completions the ring holds; more wait in their queue pairs until there is room, nothing is lost. */
  readonly capacity: number
  /** @internal */
  readonly attachment: Attachment
  readonly #mapping: Mapping
  readonly #poller: Poller
  readonly #patience = new Patience()
  readonly #look = (): boolean => this.available
  readonly #isEngineBeside = (): boolean => this.attachment.isEngineBeside
  readonly #armed: ArmedBit
  readonly #armedForSolicited: ArmedBit
  /** Completions taken from the ring before anybody asked for them, oldest first; polls serve them first. */
  readonly #stash: { readonly batch: CompletionBatch; next: number }[] = []
  readonly #nodeNames = (nodeIndex: number): string => this.attachment.nodeName(nodeIndex)
  #own = new CompletionBatch(16)
  #closing: Promise<void> | undefined
  #closed = false
  #failure: SharedVerbsError | undefined

  /**
   * @internal Applications call `session.createCompletionQueue` or `session.openCompletionQueue`. Takes over the
   * descriptor.
   */
  constructor(attachment: Attachment, grant: RequestResult<'createCompletionQueue'>, fd: number | undefined) {
    const geometry = completionQueueGeometry(grant.capacity)
    this.#mapping = mapSegment(fd, grant.byteLength, true)
    checkHeader(this.#mapping, grant, geometry.byteLength)
    this.attachment = attachment
    this.number = grant.number
    this.generation = grant.generation
    this.capacity = grant.capacity
    attachment.completionQueues.add(this)
    this.#poller = new Poller(attachment, this.#mapping, geometry)
    this.#armed = new ArmedBit(this.#mapping.words, attachment.member, false)
    this.#armedForSolicited = new ArmedBit(this.#mapping.words, attachment.member, true)
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Takes up to `most` completions; an empty array when there are none. Each is returned once, to one poller. */
  poll(most = 16): Completion[] {
    if (this.#own.capacity < most) this.#own = new CompletionBatch(most)
    const count = this.pollInto(this.#own, most)
    const completions: Completion[] = []
    for (let row = 0; row < count; row++) completions.push(this.#own.completion(row, this.#nodeNames))
    return completions
  }

  /** The same without allocating: fills `batch` anew, returns how many rows. */
  pollInto(batch: CompletionBatch, most = batch.capacity): number {
    const wanted = Math.min(most, batch.capacity)
    batch.count = 0
    if (this.#stash.length > 0) this.#unstash(batch, wanted)
    if (batch.count < wanted && !this.#closed) this.#poller.poll(batch, wanted)
    return batch.count
  }

  /**
   * Resolves true when there is something to poll, false at the deadline. Completions that are already there end the
   * wait at once, solicited or not. Rejects with `aborted`, `closed`, `broker-lost`, or `protocol-violation` when the
   * ring was scribbled over. Several waits may be pending at once. Polls of other processes may be faster: a poll after
   * true may come back empty.
   */
  async wait({ timeoutMs, signal, solicitedOnly = false }: WaitOptions = {}): Promise<boolean> {
    const deadlineMs = deadlineOf(timeoutMs)
    const armed = solicitedOnly ? this.#armedForSolicited : this.#armed
    for (let rings = 0; ; rings++) {
      if (signal?.aborted) throw new SharedVerbsError('aborted', 'the wait for completions was given up by its caller')
      if (this.#armAndLook(armed, solicitedOnly && rings > 0)) return true
      const leftMs = deadlineMs - clock.nowMs()
      if (leftMs <= 0) return this.available
      await this.#sleep(leftMs, signal)
    }
  }

  /**
   * The same, blocking this thread: nothing else of it runs meanwhile. No abort, and queue pairs never seen here are
   * not fetched.
   */
  waitSync({ timeoutMs, solicitedOnly = false }: Omit<WaitOptions, 'signal'> = {}): boolean {
    const armed = solicitedOnly ? this.#armedForSolicited : this.#armed
    if (this.available || (!solicitedOnly && this.#patience.wait(this.#look, this.#isEngineBeside))) return true
    if (this.#armAndLook(armed, false)) return true
    // The clock is read once for a wait that one sleep ends, and not at all for one that needs none.
    const deadlineMs = deadlineOf(timeoutMs)
    let leftMs = timeoutMs ?? Number.POSITIVE_INFINITY
    while (leftMs > 0) {
      this.attachment.sleepSync(leftMs)
      if (this.#armAndLook(armed, solicitedOnly)) return true
      leftMs = deadlineMs - clock.nowMs()
    }
    return this.available
  }

  /** True if a poll would return something. */
  get available(): boolean {
    return this.#stash.length > 0 || (!this.#closed && this.#poller.available())
  }

  /** Completions one by one, waiting for each; ends when the queue is closed. Leaving the loop loses nothing. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Completion, void, undefined> {
    const batch = new CompletionBatch(64)
    let row = 0
    try {
      while (await this.#readyOrClosed()) {
        this.pollInto(batch)
        for (row = 0; row < batch.count; ) yield batch.completion(row++, this.#nodeNames)
      }
    } finally {
      if (row < batch.count) this.#stash.unshift({ batch, next: row })
    }
  }

  /** Plain JSON with which another process of the job on this node opens the same completion queue. */
  share(): ObjectHandle {
    return { kind: 'completion-queue', number: this.number, generation: this.generation }
  }

  /**
   * Ends it: waits reject with `closed`, iterations end, what was not polled is gone. Rejects with `busy` while queue
   * pairs use it. May be called again.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  /** @internal */
  get presentable(): Presentable {
    const { number, generation } = this
    const closing = this.#closing !== undefined
    return { number, generation, descriptor: this.#mapping.fd, closing, presented: () => {} }
  }

  /** @internal The broker has given it up: waits reject with `error` once what is there was polled. */
  fail(error: SharedVerbsError): void {
    this.#failure = error
    this.attachment.doorbell.ring()
  }

  /** @internal Moves everything out of a full ring, so that the broker can publish more; true if it did. */
  relieve(): boolean {
    if (this.#closed || !this.#poller.full) return false
    const batch = new CompletionBatch(this.capacity)
    this.#poller.poll(batch, batch.capacity)
    return this.#stashed(batch)
  }

  /**
   * @internal Takes what is left of a queue pair that the broker has closed, in order: first what the ring refers to,
   * then the rest.
   */
  takeOver(segment: QueuePairSegment): void {
    if (this.#closed) return
    const batch = new CompletionBatch(segment.grant.sendSlots + segment.grant.receiveSlots)
    this.#poller.takeAllOf(segment, batch)
    if (segment.grant.sendCompletionQueue === this.number) takeUnreferred(segment, side.send, batch)
    if (segment.grant.receiveCompletionQueue === this.number) takeUnreferred(segment, side.receive, batch)
    this.#poller.depart(segment.number)
    if (this.#stashed(batch)) this.attachment.doorbell.ring()
  }

  /** @internal Another segment is looked up for this number from now on, or none. */
  forget(number: number): void {
    this.#poller.forget(number)
  }

  /** @internal Unmaps without asking the broker. */
  release(): void {
    if (this.#closed) return
    this.#closed = true
    this.#closing ??= Promise.resolve()
    this.#stash.length = 0
    this.attachment.completionQueues.delete(this)
    this.#mapping.close()
    this.attachment.doorbell.ring()
  }

  async #close(): Promise<void> {
    try {
      await this.attachment.request('closeCompletionQueue', { number: this.number, generation: this.generation })
    } catch (error) {
      if (error instanceof SharedVerbsError && error.code === 'busy') {
        this.#closing = undefined
        throw error
      }
      this.release()
      throw error
    }
    this.release()
  }

  /**
   * True if there is something to poll. Armed first, then looked again: what was published before the bit was there is
   * found now, and whoever publishes later rings. With `keepArmed`, a bit that is still set means that the ring was for
   * something else, such as an unsolicited completion: sleep on.
   */
  #armAndLook(armed: ArmedBit, keepArmed: boolean): boolean {
    if (keepArmed && armed.isSet && this.#stash.length === 0) {
      this.#checkOpen()
      return false
    }
    if (this.available) return true
    this.#checkOpen()
    armed.set()
    return this.available
  }

  #sleep(leftMs: number, signal: AbortSignal | undefined): Promise<'rung' | 'timeout' | 'aborted'> {
    const timeoutMs = Number.isFinite(leftMs) ? { timeoutMs: leftMs } : {}
    return this.attachment.doorbell.waitAsync(signal ? { ...timeoutMs, signal } : timeoutMs)
  }

  #checkOpen(): void {
    if (this.#closed) throw new SharedVerbsError('closed', `completion queue ${this.number} is closed`)
    if (this.attachment.ended) throw this.attachment.ended
    if (this.#failure) throw this.#failure
  }

  async #readyOrClosed(): Promise<boolean> {
    try {
      return await this.wait()
    } catch (error) {
      if (error instanceof SharedVerbsError && error.code === 'closed') return false
      throw error
    }
  }

  #unstash(batch: CompletionBatch, wanted: number): void {
    while (batch.count < wanted) {
      const first = this.#stash[0]
      if (first === undefined) return
      batch.copyRow(batch.count++, first.batch, first.next++)
      if (first.next === first.batch.count) this.#stash.shift()
    }
  }

  #stashed(batch: CompletionBatch): boolean {
    if (batch.count > 0) this.#stash.push({ batch, next: 0 })
    return batch.count > 0
  }
}

function checkHeader(mapping: Mapping, grant: RequestResult<'createCompletionQueue'>, neededByteLength: number): void {
  const found = completionQueueHeader.read(mapping.memory, 0)
  const fits =
    found.magic === completionQueueMagic &&
    found.version === abiVersion &&
    found.number === grant.number &&
    found.generation === grant.generation &&
    found.capacity === grant.capacity &&
    neededByteLength <= mapping.byteLength
  if (fits) return
  mapping.close()
  throw new SharedVerbsError(
    'segment-invalid',
    `segment of completion queue ${grant.number} is not what was granted; are client and broker of one version?`,
    { granted: grant, found },
  )
}
