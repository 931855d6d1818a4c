/**
 * The `soft` provider: reliable connected queue pairs in software, over TCP. See README.md for the wire format, what it
 * imitates and its limits.
 *
 * One turn (`progress`): send what was posted ─► epoll ─► receive and execute ─► send answers ─► timers. Each queue pair has a bounded
 * budget of a turn and queues up behind the others for the next.
 */
import { randomBytes } from 'node:crypto'
import type {
  CompletionBatch,
  Device,
  DeviceCapabilities,
  Done,
  MemoryFile,
  MemoryRights,
  PortState,
  ProtectionDomain,
  ProviderCompletionQueue,
  ProviderEvent,
  ProviderFailure,
  ProviderQueuePair,
  QueuePairAddress,
  QueuePairAttributes,
  QueuePairLimits,
  QueuePairState,
  RegisteredMemory,
  WorkRequestBatch,
} from './provider.js'
import { SoftCompletionQueue } from './soft-completion-queue.js'
import { SoftContext, type SoftCounters } from './soft-context.js'
import type { FaultHooks } from './soft-faults.js'
import type { Greeting } from './soft-hello.js'
import { addressProblem, attributesProblem, boundedLimits, excessOf, isCount } from './soft-limits.js'
import { type HelloVerdict, SoftListener } from './soft-listener.js'
import { type RandomBytes, REGION_BYTES_MAX, SoftRegion } from './soft-memory.js'
import { SoftQueuePair } from './soft-queue-pair.js'

export interface SoftDeviceOptions {
  readonly name: string
  /** IPv4 address to listen on, and under which peers reach this device. */
  readonly host: string
  /** 0 = any free port. */
  readonly port: number
  readonly random?: RandomBytes
  readonly limits?: Partial<DeviceCapabilities>
  readonly faults?: FaultHooks
  /** Error completions then show garbage in the fields that verbs leave undefined. */
  readonly poisonErrors?: boolean
}

export interface SoftDevice extends Device {
  readonly kind: 'soft'
  readonly counters: SoftCounters
}

/** Listens at once; throws only if the port cannot be had. */
export function openSoftDevice(options: SoftDeviceOptions): SoftDevice {
  return new OpenedSoftDevice(options)
}

/** While few queue pairs are busy they are asked directly, and epoll only every so often. */
const HOT_QUEUE_PAIRS_MAX = 4
const TURNS_BETWEEN_EPOLL = 16
/** Numbers that were used last are not given out again. */
const RECENT_NUMBERS = 1024
const TIMER_RESOLUTION_MS = 1

class OpenedSoftDevice implements SoftDevice {
  readonly kind = 'soft'
  readonly name: string
  readonly capabilities: DeviceCapabilities
  readonly counters: SoftCounters
  readonly #host: string
  readonly #poisonErrors: boolean
  readonly #context: SoftContext<SoftQueuePair>
  readonly #listener: SoftListener
  readonly #domains = new Set<number>()
  readonly #completionQueues = new Map<number, SoftCompletionQueue>()
  readonly #queuePairs = new Map<number, SoftQueuePair>()
  readonly #recentNumbers: number[] = []
  readonly #wakeDescriptors: readonly number[]
  #lastHandle = 0
  #turn = 0
  #timersLookedAtMs = Number.NEGATIVE_INFINITY
  /** 'vanished': still open, but nothing answers any more (fault hook). */
  #life: 'open' | 'vanished' | 'closed' = 'open'

  constructor(options: SoftDeviceOptions) {
    this.name = options.name
    this.capabilities = boundedLimits(options.limits ?? {})
    this.#host = options.host
    this.#poisonErrors = options.poisonErrors ?? false
    this.#context = new SoftContext(this.capabilities, options.random ?? randomBytes, options.faults ?? null)
    this.counters = this.#context.counters
    this.#listener = new SoftListener(this.#context, options.host, options.port, (hello, fd, tag) =>
      this.#judgeHello(hello, fd, tag),
    )
    this.#wakeDescriptors = [this.#context.sockets.descriptor]
    options.faults?.attach({
      vanish: () => this.#vanish(),
      overrun: (queue) => this.#overrun(queue),
    })
  }

  port(): PortState {
    const address = `${this.#host}:${this.#listener.port}`
    return { active: this.#life === 'open', mtu: 4096, linkLayer: 'tcp', address }
  }

  // ------------------------------------------------------------------------------------------------------- control

  allocateProtectionDomain(done: Done<ProtectionDomain>): void {
    if (this.#isGone(done)) return
    const handle = ++this.#lastHandle
    this.#domains.add(handle)
    done(null, { handle })
  }

  freeProtectionDomain(domain: ProtectionDomain, done: Done<true>): void {
    if (this.#isGone(done)) return
    const isUsed = this.#context.table.usesDomain(domain.handle) || this.#hasQueuePairIn(domain.handle)
    if (isUsed) fail(done, 'invalid', `freeing protection domain ${domain.handle}: it still has memory or queue pairs`)
    else if (!this.#domains.delete(domain.handle)) failUnknown(done, 'protection domain', domain.handle)
    else done(null, true)
  }

  registerMemory(
    domain: ProtectionDomain,
    address: number,
    byteLength: number,
    rights: MemoryRights,
    done: Done<RegisteredMemory>,
    file: MemoryFile | null = null,
  ): void {
    if (this.#isGone(done)) return
    if (!this.#domains.has(domain.handle)) {
      failUnknown(done, 'protection domain', domain.handle)
    } else if (!Number.isSafeInteger(address) || address <= 0 || !Number.isSafeInteger(byteLength) || byteLength <= 0) {
      fail(done, 'invalid', `registering ${byteLength} bytes at address ${address}`)
    } else if (rights.remoteWrite && !rights.localWrite) {
      fail(done, 'invalid', 'registering memory with remote but without local write right')
    } else if (byteLength > REGION_BYTES_MAX) {
      fail(done, 'limit', `registering ${byteLength} bytes: ${REGION_BYTES_MAX} are possible at once`)
    } else {
      const region = this.#context.table.register(address, byteLength, domain.handle, rights, file)
      this.counters.memoryRegions = this.#context.table.count
      if (region === null) fail(done, 'limit', `registering ${byteLength} bytes: no key is left`)
      else done(null, region)
    }
  }

  deregisterMemory(memory: RegisteredMemory, done: Done<true>): void {
    if (this.#isGone(done)) return
    if (!(memory instanceof SoftRegion) || !this.#context.table.deregister(memory)) {
      failUnknown(done, 'memory with local key', memory.localKey)
      return
    }
    for (const queuePair of this.#queuePairs.values()) queuePair.releaseRegion(memory)
    this.counters.memoryRegions = this.#context.table.count
    done(null, true)
  }

  createCompletionQueue(capacity: number, done: Done<ProviderCompletionQueue>): void {
    if (this.#isGone(done)) return
    const most = this.capabilities.maxCompletionQueueDepth
    if (!isCount(capacity, most)) {
      fail(done, 'limit', `creating a completion queue of ${capacity}: 1 to ${most} are possible`)
      return
    }
    const handle = ++this.#lastHandle
    const queue = new SoftCompletionQueue(handle, capacity, this.#poisonErrors, (overrun) =>
      this.#context.emit('completion-queue-error', overrun),
    )
    this.#completionQueues.set(handle, queue)
    done(null, queue)
  }

  destroyCompletionQueue(queue: ProviderCompletionQueue, done: Done<true>): void {
    if (this.#isGone(done)) return
    const known = this.#completionQueues.get(queue.handle)
    if (known === undefined) failUnknown(done, 'completion queue', queue.handle)
    else if (known.users > 0) {
      fail(done, 'invalid', `destroying completion queue ${queue.handle}: ${known.users} queues complete there`)
    } else {
      this.#completionQueues.delete(queue.handle)
      done(null, true)
    }
  }

  createQueuePair(
    domain: ProtectionDomain,
    sendQueue: ProviderCompletionQueue,
    receiveQueue: ProviderCompletionQueue,
    limits: QueuePairLimits,
    done: Done<ProviderQueuePair>,
  ): void {
    if (this.#isGone(done)) return
    const sendCompletions = this.#completionQueues.get(sendQueue.handle)
    const receiveCompletions = this.#completionQueues.get(receiveQueue.handle)
    const refusal = excessOf(limits, this.capabilities)
    if (!this.#domains.has(domain.handle)) failUnknown(done, 'protection domain', domain.handle)
    else if (sendCompletions === undefined) failUnknown(done, 'completion queue', sendQueue.handle)
    else if (receiveCompletions === undefined) failUnknown(done, 'completion queue', receiveQueue.handle)
    else if (refusal !== null) fail(done, 'limit', `creating a queue pair with ${refusal}`)
    else done(null, this.#makeQueuePair(domain.handle, sendCompletions, receiveCompletions, limits))
  }

  #makeQueuePair(
    domain: number,
    sendCompletions: SoftCompletionQueue,
    receiveCompletions: SoftCompletionQueue,
    limits: QueuePairLimits,
  ): SoftQueuePair {
    const address: QueuePairAddress = {
      number: this.#takeNumber(),
      packetSequence: this.#random24(),
      path: { host: this.#host, port: this.#listener.port, token: hexadecimal(this.#context.random(16)) },
    }
    const copied = { ...limits }
    const parts = { context: this.#context, address, domain, sendCompletions, receiveCompletions, limits: copied }
    const queuePair = new SoftQueuePair(parts)
    sendCompletions.users++
    receiveCompletions.users++
    this.#queuePairs.set(queuePair.number, queuePair)
    this.counters.queuePairs++
    this.counters.queuePairsCreated++
    return queuePair
  }

  addressOf(queuePair: ProviderQueuePair): QueuePairAddress {
    return (queuePair as SoftQueuePair).address
  }

  toReadyToReceive(
    queuePair: ProviderQueuePair,
    remote: QueuePairAddress,
    attributes: QueuePairAttributes,
    done: Done<true>,
  ): void {
    const known = this.#inState(queuePair, 'init', done)
    if (known === null) return
    const problem = attributesProblem(attributes, this.capabilities) ?? addressProblem(remote, known.address)
    if (problem !== null) {
      fail(done, 'invalid', `moving queue pair ${known.number} to ready-to-receive: ${problem}`)
      return
    }
    known.receiveFrom(remote, attributes)
    this.#listener.reconsider(known.number)
    done(null, true)
  }

  toReadyToSend(queuePair: ProviderQueuePair, attributes: QueuePairAttributes, done: Done<true>): void {
    const known = this.#inState(queuePair, 'ready-to-receive', done)
    if (known === null) return
    const problem = attributesProblem(attributes, this.capabilities)
    if (problem !== null) {
      fail(done, 'invalid', `moving queue pair ${known.number} to ready-to-send: ${problem}`)
      return
    }
    known.sendWith(attributes)
    done(null, true)
  }

  toError(queuePair: ProviderQueuePair, done: Done<true>): void {
    if (this.#isGone(done)) return
    const known = this.#queuePairs.get(queuePair.number)
    if (known === undefined) {
      failUnknown(done, 'queue pair', queuePair.number)
      return
    }
    known.toError()
    this.#listener.reconsider(known.number)
    done(null, true)
  }

  stateOf(queuePair: ProviderQueuePair): QueuePairState {
    return (queuePair as SoftQueuePair).state
  }

  destroyQueuePair(queuePair: ProviderQueuePair, done: Done<true>): void {
    if (this.#isGone(done)) return
    const known = this.#queuePairs.get(queuePair.number)
    if (known === undefined || known !== queuePair) {
      failUnknown(done, 'queue pair', queuePair.number)
      return
    }
    this.#forget(known)
    this.#listener.reconsider(known.number)
    done(null, true)
  }

  #forget(queuePair: SoftQueuePair): void {
    queuePair.destroy()
    queuePair.sendCompletions.users--
    queuePair.receiveCompletions.users--
    this.#queuePairs.delete(queuePair.number)
    this.#recentNumbers.push(queuePair.number)
    if (this.#recentNumbers.length > RECENT_NUMBERS) this.#recentNumbers.shift()
    this.counters.queuePairs--
  }

  // ---------------------------------------------------------------------------------------------------------- data

  postSend(queuePair: ProviderQueuePair, batch: WorkRequestBatch): number {
    if (this.#life !== 'open') return refuseDead(batch)
    return (queuePair as SoftQueuePair).postSend(batch)
  }

  postReceive(queuePair: ProviderQueuePair, batch: WorkRequestBatch): number {
    if (this.#life !== 'open') return refuseDead(batch)
    return (queuePair as SoftQueuePair).postReceive(batch)
  }

  poll(queue: ProviderCompletionQueue, into: CompletionBatch): number {
    if (this.#life !== 'open') return 0
    return (queue as SoftCompletionQueue).poll(into)
  }

  progress(nowMs: number): number {
    if (this.#life !== 'open') return 0
    const context = this.#context
    context.nowMs = nowMs
    // What was posted since the last turn goes out first: it need not wait for a look at the sockets.
    let work = this.#transmit(false)
    const isTimerTurn = nowMs - this.#timersLookedAtMs >= TIMER_RESOLUTION_MS
    // Before time is judged, every answer that has arrived must have been seen.
    if (isTimerTurn || this.#wantsEpoll()) work += this.#lookAtSockets()
    work += this.#receive(context.receiving.length <= HOT_QUEUE_PAIRS_MAX)
    work += this.#transmit(false)
    if (isTimerTurn) this.#lookAtClock(nowMs)
    return work
  }

  /** Only an edge tells that a full socket has room again. */
  #wantsEpoll(): boolean {
    const { receiving, blocked } = this.#context
    return receiving.length === 0 || blocked > 0 || ++this.#turn % TURNS_BETWEEN_EPOLL === 0
  }

  get owesBytes(): boolean {
    return this.#life === 'open' && this.#context.owing > 0
  }

  wakeDescriptors(): readonly number[] {
    return this.#wakeDescriptors
  }

  prepareSleep(): boolean {
    if (this.#life !== 'open') return true
    // Whoever was asked directly until now has edges in the epoll set that nobody has taken. What comes after this look makes the
    // set readable again, so one is enough.
    this.#lookAtSockets()
    const work = this.#receive(false) + this.#transmit(true)
    if (work > 0 || this.#context.receiving.length > 0 || this.#context.transmitting.length > 0) return false
    for (const queue of this.#completionQueues.values()) if (!queue.isEmpty) return false
    return true
  }

  nextTimerMs(nowMs: number): number {
    if (this.#life !== 'open') return Number.POSITIVE_INFINITY
    let next = this.#listener.nextTimerMs(nowMs)
    for (const queuePair of this.#queuePairs.values()) next = Math.min(next, queuePair.nextTimerMs(nowMs))
    return next
  }

  takeEvents(): readonly ProviderEvent[] {
    return this.#context.takeEvents()
  }

  close(): void {
    if (this.#life === 'closed') return
    if (this.#life === 'open') this.#releaseSockets()
    this.#life = 'closed'
    for (const queuePair of [...this.#queuePairs.values()]) this.#forget(queuePair)
    this.#completionQueues.clear()
    this.#domains.clear()
    this.#context.close()
  }

  // --------------------------------------------------------------------------------------------------------- turns

  #lookAtSockets(): number {
    this.counters.systemCalls++
    return this.#context.sockets.dispatch()
  }

  #receive(mayStayHot: boolean): number {
    const { receiving } = this.#context
    if (receiving.length === 0) return 0
    receiving.take()
    let work = 0
    for (let next = receiving.next(); next !== null; next = receiving.next()) work += next.receiveTurn(mayStayHot)
    return work
  }

  #transmit(isLast: boolean): number {
    const { transmitting } = this.#context
    if (transmitting.length === 0) return 0
    transmitting.take()
    let work = 0
    for (let next = transmitting.next(); next !== null; next = transmitting.next()) work += next.transmitTurn(isLast)
    return work
  }

  #lookAtClock(nowMs: number): void {
    this.#timersLookedAtMs = nowMs
    this.#listener.lookAtClock(nowMs)
    for (const queuePair of this.#queuePairs.values()) queuePair.lookAtClock(nowMs)
  }

  // ---------------------------------------------------------------------------------------------------- connections

  #judgeHello(hello: Greeting, fd: number, tag: number): HelloVerdict {
    const queuePair = this.#queuePairs.get(hello.targetNumber)
    if (queuePair === undefined) return 'refused'
    if (queuePair.mayExpect(hello)) return 'wait'
    if (!queuePair.link.expects(hello)) return 'refused'
    queuePair.link.adopt(fd, tag)
    return 'adopted'
  }

  // -------------------------------------------------------------------------------------------------------- helpers

  #isGone<Result>(done: Done<Result>): boolean {
    if (this.#life === 'open') return false
    fail(done, 'device-gone', `device '${this.name}' is gone`)
    return true
  }

  #inState(queuePair: ProviderQueuePair, state: QueuePairState, done: Done<true>): SoftQueuePair | null {
    if (this.#isGone(done)) return null
    const known = this.#queuePairs.get(queuePair.number)
    if (known !== undefined && known === queuePair && known.state === state) return known
    const found = known?.state ?? 'not there'
    fail(done, 'invalid', `moving queue pair ${queuePair.number}: it should be in ${state} but is ${found}`)
    return null
  }

  #hasQueuePairIn(domain: number): boolean {
    for (const queuePair of this.#queuePairs.values()) if (queuePair.domain === domain) return true
    return false
  }

  /** Numbers 0 and 1 mean something special on InfiniBand. */
  #takeNumber(): number {
    for (;;) {
      const number = this.#random24()
      if (number > 1 && !this.#queuePairs.has(number) && !this.#recentNumbers.includes(number)) return number
    }
  }

  #random24(): number {
    const [a, b, c] = this.#context.random(3)
    return (a! << 16) | (b! << 8) | c!
  }

  #releaseSockets(): void {
    this.#listener.close()
    for (const queuePair of this.#queuePairs.values()) queuePair.link.break()
  }

  #vanish(): void {
    if (this.#life !== 'open') return
    this.#releaseSockets()
    this.#life = 'vanished'
  }

  #overrun(queue: ProviderCompletionQueue): void {
    const known = this.#completionQueues.get(queue.handle)
    if (known !== undefined) known.overrunNext = true
  }
}

function refuseDead(batch: WorkRequestBatch): number {
  batch.refusal = 'dead'
  return 0
}

function fail<Result>(done: Done<Result>, code: ProviderFailure['code'], message: string): void {
  done({ code, message: `${code}: ${message}` }, null)
}

function failUnknown<Result>(done: Done<Result>, what: string, handle: number): void {
  fail(done, 'invalid', `there is no ${what} ${handle}`)
}

function hexadecimal(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
