/** A session: the membership of this process or worker thread in a job at the broker, and the maker of its objects. */
import { EventEmitter } from 'node:events'
import type { ObjectHandle, QueuePairAddress } from '../protocol/address.js'
import type { EventBody, EventName } from '../protocol/control.js'
import { SharedVerbsError } from '../protocol/errors.js'
import { packKey } from '../protocol/keys.js'
import { defaults } from '../protocol/limits.js'
import { type Status, statusName } from '../protocol/statuses.js'
import type { Attachment } from './attachment.js'
import { CompletionQueue } from './completion-queue.js'
import type { SessionEvent } from './events.js'
import { Listener, type ListenOptions } from './listener.js'
import { MemoryRegion, type MemoryRights } from './memory-region.js'
import { QueuePair, type QueuePairHandle } from './queue-pair.js'
import { QueuePairSegment } from './queue-pair-segment.js'

export interface CompletionQueueOptions {
  /** Completions the ring holds, rounded up to a power of two; 2 to 65,536. Default 1024. */
  readonly capacity?: number
}

export interface QueuePairOptions {
  /** connected: one peer, given by `connect`. datagram: any, given in each work request. Default connected. */
  readonly type?: 'connected' | 'datagram'
  /** Where completions of sends appear. */
  readonly sendCq: CompletionQueue
  /** Where completions of receives appear. Default: `sendCq`. */
  readonly receiveCq?: CompletionQueue
  /** Sends that can be outstanding, 4 to 4096. Default 128. */
  readonly maxSend?: number
  /** Receives that can be outstanding, 4 to 4096. Default 128. */
  readonly maxReceive?: number
  /** Bytes of an inline payload, up to 512. Default 64. */
  readonly maxInline?: number
  /** 0 to 255; queue pairs of different classes use different shared queue pairs. Default 0. */
  readonly trafficClass?: number
  /** Tries when the peer has no receive posted; 7 = without end. Default 7. */
  readonly rnrRetry?: number
  /** Pause between these tries. Default 10. */
  readonly rnrTimerMs?: number
}

/** Completion queues for a queue pair that another process made. Those that are not given are opened. */
export interface OpenQueuePairOptions {
  readonly sendCq?: CompletionQueue
  readonly receiveCq?: CompletionQueue
}

export interface CallOptions {
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

/** One attempt to prepare the way to a node for the next broker. */
const RESOLVE_AGAIN_MS = 30_000

interface SessionEvents {
  event: [SessionEvent]
}

/** Emits `event`; see `SessionEvent`. */
export class Session extends EventEmitter<SessionEvents> {
  /** Name of this node. */
  readonly node: string
  /** Number of this session in its job on this node. */
  readonly member: number
  /** What the broker drives the network with: `soft` or `verbs`. */
  readonly provider: string
  /** @internal */
  readonly attachment: Attachment
  readonly #listeners = new Map<string, Listener>()
  #closing: Promise<void> | undefined
  /** What the broker said when it ended the session itself. */
  #endedByBroker: string | undefined
  #lossError: SharedVerbsError | undefined

  /** @internal Applications call `attach`. */
  constructor(attachment: Attachment) {
    super()
    this.attachment = attachment
    this.node = attachment.grant.node
    this.member = attachment.grant.member
    this.provider = attachment.grant.provider
  }

  /** Allocates zeroed memory shared with the broker and registers it. Throws `limit-exceeded`, `no-memory`. */
  async registerMemory(byteLength: number, rights: MemoryRights = {}): Promise<MemoryRegion> {
    const { result, descriptors } = await this.attachment.request('registerMemory', { byteLength, rights })
    return new MemoryRegion(this.attachment, result, descriptors[0])
  }

  /** Maps a region that another process of the job on this node made. */
  async openMemory(handle: ObjectHandle): Promise<MemoryRegion> {
    checkKind(handle, 'memory-region')
    const key = packKey(handle.number, handle.generation)
    for (const region of this.attachment.regions) if (region.localKey === key && region.open) return region
    const { result, descriptors } = await this.attachment.request('openMemory', { key })
    return new MemoryRegion(this.attachment, result, descriptors[0])
  }

  async createCompletionQueue(options: CompletionQueueOptions = {}): Promise<CompletionQueue> {
    const { capacity = defaults.completionQueueCapacity } = options
    const { result, descriptors } = await this.attachment.request('createCompletionQueue', { capacity })
    return new CompletionQueue(this.attachment, result, descriptors[0])
  }

  /** Maps a completion queue that another process of the job on this node made: both may poll it. */
  async openCompletionQueue(handle: ObjectHandle): Promise<CompletionQueue> {
    checkKind(handle, 'completion-queue')
    const { number, generation } = handle
    const open = this.#completionQueue(number, generation)
    if (open) return open
    const { result, descriptors } = await this.attachment.request('openCompletionQueue', { number, generation })
    return new CompletionQueue(this.attachment, result, descriptors[0])
  }

  async createQueuePair(options: QueuePairOptions): Promise<QueuePair> {
    const { sendCq, receiveCq = sendCq } = options
    this.#checkOwn('sendCq', sendCq)
    this.#checkOwn('receiveCq', receiveCq)
    const { result, descriptors } = await this.attachment.request('createQueuePair', {
      type: options.type ?? 'connected',
      sendCompletionQueue: { number: sendCq.number, generation: sendCq.generation },
      receiveCompletionQueue: { number: receiveCq.number, generation: receiveCq.generation },
      maxSend: options.maxSend ?? defaults.maxSend,
      maxReceive: options.maxReceive ?? defaults.maxReceive,
      maxInline: options.maxInline ?? defaults.maxInline,
      trafficClass: options.trafficClass ?? 0,
      rnrRetry: options.rnrRetry ?? defaults.rnrRetry,
      rnrTimerMs: options.rnrTimerMs ?? defaults.rnrTimerMs,
    })
    const segment = QueuePairSegment.attach(descriptors[0], result, false)
    this.attachment.register(segment)
    return new QueuePair(this.attachment, segment, sendCq, receiveCq)
  }

  /** Opens a queue pair that another process of the job on this node made: both may post to it. */
  async openQueuePair(handle: ObjectHandle | QueuePairHandle, options: OpenQueuePairOptions = {}): Promise<QueuePair> {
    checkKind(handle, 'queue-pair')
    const { number, generation } = handle
    for (const open of this.attachment.queuePairs) {
      if (open.number === number && open.generation === generation && open.state !== 'closed') return open
    }
    const { result, descriptors } = await this.attachment.request('openQueuePair', { number, generation })
    const segment = QueuePairSegment.attach(descriptors[0], result, false)
    try {
      const sendCq = await this.#completionQueueFor(options.sendCq, result.sendCompletionQueue, handle, 'send')
      const receiveCq = await this.#completionQueueFor(
        options.receiveCq,
        result.receiveCompletionQueue,
        handle,
        'receive',
      )
      this.attachment.register(segment)
      return new QueuePair(this.attachment, segment, sendCq, receiveCq)
    } catch (error) {
      segment.close()
      this.attachment.request('closeQueuePair', { number, generation: result.generation }).catch(() => undefined)
      throw error
    }
  }

  /**
   * Accepts connections to a name on this node, which peers reach by `qp.connect({ node, service })`. Throws
   * `name-in-use`. `for await (const qp of listener)` yields connected queue pairs.
   */
  async listen(service: string, options: ListenOptions): Promise<Listener> {
    const { backlog = 128 } = options
    this.#checkOwn('sendCq', options.sendCq)
    if (this.#listeners.has(service)) {
      throw new SharedVerbsError('name-in-use', `this session listens on ${service} already`, { service })
    }
    // Known before the broker is asked: the first connection may come together with the reply.
    const listener = new Listener(this, service, backlog, options, () => this.#listeners.delete(service))
    this.#listeners.set(service, listener)
    try {
      await this.attachment.request('listen', { service, backlog })
      listener.registered = true
      return listener
    } catch (error) {
      listener.end()
      throw error
    }
  }

  /**
   * Prepares datagrams to a node, given by name or by an address on it: once per node, before the first post. Throws
   * `peer-unknown`, `peer-unreachable`, `timeout`.
   */
  async resolve(target: QueuePairAddress | string, { timeoutMs = 5000, signal }: CallOptions = {}): Promise<void> {
    const node = typeof target === 'string' ? target : target.node
    const deadlines = { timeoutMs: timeoutMs + 5000, signal }
    const { result } = await this.attachment.request('resolveNode', { node, timeoutMs }, deadlines)
    this.attachment.resolvedNodes.set(node, result.nodeIndex)
  }

  /** Name of a node by its index, as `CompletionBatch.sourceNode` gives it. */
  nodeName(nodeIndex: number): string {
    return this.attachment.nodeName(nodeIndex)
  }

  /**
   * Ends the session: the broker flushes and closes its objects, then everything is unmapped and nothing keeps the
   * process alive. What was not polled is gone. Never rejects; may be called again.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  /** @internal What the broker sent unasked. */
  receive<Name extends EventName>(name: Name, body: EventBody<Name>): void {
    if (this.attachment.blocking) queueMicrotask(() => this.receive(name, body))
    else if (name === 'connection-request') this.#connectionRequest(body as EventBody<'connection-request'>)
    else if (name === 'queue-pair-error') this.#queuePairError(body as EventBody<'queue-pair-error'>)
    else if (name === 'queue-pair-disconnected') this.#disconnected(body as EventBody<'queue-pair-disconnected'>)
    else if (name === 'queue-pair-room') this.#room(body as EventBody<'queue-pair-room'>)
    else if (name === 'completion-queue-error') this.#completionQueueError(body as EventBody<'completion-queue-error'>)
    else if (name === 'session-ended') this.#endedByBroker = (body as EventBody<'session-ended'>).reason
    else this.emit('event', { kind: name, ...body } as SessionEvent)
  }

  /** @internal The connection to the broker ended: the next broker is looked for, unless this one said that it is over. */
  brokerLost(error: SharedVerbsError): void {
    if (this.#closing || this.attachment.ended) return
    const { recovery } = this.attachment
    if (!recovery || this.#endedByBroker !== undefined || error.code !== 'broker-lost') {
      this.#end(error)
      return
    }
    recovery.begin()
    this.#tellLost(error, true)
    this.#lossError = error
  }

  /** @internal Another broker goes on with this session. */
  brokerBack(): void {
    const { epoch } = this.attachment
    for (const listener of this.#listeners.values()) listener.listenAgain()
    for (const node of this.attachment.resolvedNodes.keys()) void this.#resolveAgain(node)
    this.#tell({ kind: 'broker-back', epoch })
  }

  /** @internal No other broker came in time, or it refused. */
  brokerGone(refusal: SharedVerbsError | undefined): void {
    const lost = this.#lossError
    const why = refusal ? `the next broker refused it: ${refusal.message}` : 'no other broker came in time'
    const context = { reason: lost?.context['reason'], refusal: refusal?.code }
    const message = `the broker was lost, and ${why}; attach again when one runs`
    this.#end(new SharedVerbsError('broker-lost', message, context, refusal))
  }

  #end(error: SharedVerbsError): void {
    this.attachment.resign(error)
    for (const listener of this.#listeners.values()) listener.end(error)
    this.#tellLost(error, false)
  }

  #tellLost(error: SharedVerbsError, recovering: boolean): void {
    const reason = this.#endedByBroker ?? String(error.context['reason'] ?? error.message)
    this.#tell({ kind: 'broker-lost', reason, error, recovering })
  }

  /** Nothing of the application runs while its thread is blocked in a wait. */
  #tell(event: SessionEvent): void {
    if (this.attachment.blocking) queueMicrotask(() => this.emit('event', event))
    else this.emit('event', event)
  }

  /** The way that datagrams take is the broker's: each prepares it anew. */
  async #resolveAgain(node: string): Promise<void> {
    const { attachment } = this
    const { epoch } = attachment
    while (!attachment.ended && attachment.epoch === epoch) {
      try {
        const body = { node, timeoutMs: RESOLVE_AGAIN_MS }
        const options = { timeoutMs: 2 * RESOLVE_AGAIN_MS, keepAlive: false }
        const { result } = await attachment.request('resolveNode', body, options)
        attachment.resolvedNodes.set(node, result.nodeIndex)
        return
      } catch (error) {
        const passing = error instanceof SharedVerbsError && /^(timeout|peer-unreachable|path-lost)$/.test(error.code)
        if (!passing) return
      }
    }
  }

  async #close(): Promise<void> {
    for (const listener of this.#listeners.values()) listener.end()
    const relief = setInterval(() => {
      for (const completionQueue of this.attachment.completionQueues) completionQueue.relieve()
    }, 5)
    try {
      // A lost broker's successor finds out by the token that this member is gone.
      if (!this.attachment.lost) await this.attachment.request('detach', {})
    } catch {
      // Without a broker there is nobody left who would have to agree.
    } finally {
      clearInterval(relief)
      this.attachment.release()
    }
  }

  #connectionRequest(body: EventBody<'connection-request'>): void {
    const listener = this.#listeners.get(body.service)
    if (listener) listener.connectionRequest(body.connection)
    else this.attachment.request('rejectConnection', { connection: body.connection }).catch(() => undefined)
  }

  #queuePairError({ number, generation, status, reason }: EventBody<'queue-pair-error'>): void {
    const queuePair = this.#queuePair(number, generation)
    const event = {
      kind: 'queue-pair-error',
      number,
      generation,
      status: statusName(status as Status),
      reason,
      queuePair,
    } as const
    // An emitter throws for an `error` that nobody listens to; here the completions tell the story as well.
    if (queuePair && queuePair.listenerCount('error') > 0) queuePair.emit('error', event)
    this.emit('event', event)
  }

  #disconnected({ number, generation, reason }: EventBody<'queue-pair-disconnected'>): void {
    const queuePair = this.#queuePair(number, generation)
    const event = { kind: 'queue-pair-disconnected', number, generation, reason, queuePair } as const
    queuePair?.emit('disconnected', event)
    this.emit('event', event)
  }

  #room({ number, generation }: EventBody<'queue-pair-room'>): void {
    const queuePair = this.#queuePair(number, generation)
    queuePair?.emit('room')
    this.emit('event', { kind: 'queue-pair-room', number, generation, queuePair })
  }

  #completionQueueError(body: EventBody<'completion-queue-error'>): void {
    const { number, generation, reason } = body
    const text = `the broker gave up completion queue ${number}: ${reason}; close it and make another`
    this.#completionQueue(number, generation)?.fail(
      new SharedVerbsError('protocol-violation', text, { number, generation }),
    )
    this.emit('event', { kind: 'completion-queue-error', ...body })
  }

  #queuePair(number: number, generation: number): QueuePair | undefined {
    for (const open of this.attachment.queuePairs) {
      if (open.number === number && open.generation === generation) return open
    }
    return undefined
  }

  /** Generation 0 stands for whatever lives. */
  #completionQueue(number: number, generation: number): CompletionQueue | undefined {
    for (const open of this.attachment.completionQueues) {
      if (open.number === number && (generation === 0 || open.generation === generation)) return open
    }
    return undefined
  }

  async #completionQueueFor(
    given: CompletionQueue | undefined,
    number: number,
    handle: ObjectHandle | QueuePairHandle,
    kind: 'send' | 'receive',
  ): Promise<CompletionQueue> {
    if (given) {
      this.#checkOwn(`${kind}Cq`, given)
      if (given.number === number) return given
      throw new SharedVerbsError(
        'invalid-argument',
        `${kind}Cq is completion queue ${given.number}, but the queue pair was made with ${number}; open that one`,
        { given: given.number, expected: number },
      )
    }
    const shared = 'sendCompletionQueue' in handle ? handle[`${kind}CompletionQueue`] : undefined
    const generation = shared?.number === number ? shared.generation : 0
    return this.openCompletionQueue({ kind: 'completion-queue', number, generation })
  }

  #checkOwn(name: string, completionQueue: CompletionQueue): void {
    const own = completionQueue instanceof CompletionQueue && completionQueue.attachment === this.attachment
    if (own && !completionQueue.closed) return
    throw new SharedVerbsError('invalid-argument', `${name} must be an open completion queue of this session`, { name })
  }
}

function checkKind(handle: ObjectHandle, kind: ObjectHandle['kind']): void {
  if (handle?.kind === kind) return
  throw new SharedVerbsError('invalid-argument', `handle is of ${String(handle?.kind)}, expected ${kind}`, {
    kind: handle?.kind,
    expected: kind,
  })
}
