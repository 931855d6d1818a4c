/**
 * The `verbs` provider: an RDMA device through libibverbs, by foreign calls. See README.md for what was run where.
 *
 * The device moves the bytes and keeps its own timers, so a turn (`progress`) only looks for asynchronous events, and whether
 * the device is still there. Control calls run on the caller's thread: each is one or a few system calls, and on hardware a
 * command to the device's firmware, so that a call may take a millisecond (see README.md).
 */
import { randomBytes } from 'node:crypto'
import { closeDescriptor, EPOLLIN, epollAdd, epollCreate } from '../../shm/libc.js'
import type {
  CompletionBatch,
  Device,
  DeviceCapabilities,
  Done,
  MemoryRights,
  PathChoice,
  PortState,
  ProtectionDomain,
  ProviderCompletionQueue,
  ProviderCounters,
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
import { ibvConstants as ibv, ibvQueuePair } from './verbs-abi.js'
import { excessOf, isCount, refuse, refuseUnknown } from './verbs-checks.js'
import { VerbsCompletions } from './verbs-completions.js'
import { fieldsOf, VerbsContext } from './verbs-context.js'
import { VerbsCounters } from './verbs-counters.js'
import { chooseGid, type Gid } from './verbs-gid.js'
import { VerbsHoldings } from './verbs-holdings.js'
import { isNodePresent, type VerbsDeviceEntry, verbsDevices } from './verbs-inventory.js'
import { lastErrorNumber } from './verbs-library.js'
import { SERIAL_MAX, type VerbsCompletionQueue, type VerbsMemory, VerbsQueuePair } from './verbs-objects.js'
import { VerbsPosting } from './verbs-posting.js'
import { eventKindOf, failureOf, isQueuePairFailure } from './verbs-status.js'
import * as transitions from './verbs-transitions.js'

export interface VerbsDeviceOptions {
  readonly entry: VerbsDeviceEntry
  /** IPv4 address; where the port has it as its own, peers reach the device by it. */
  readonly host: string
  readonly path: PathChoice
}

export function openVerbsDevice(options: VerbsDeviceOptions): Device | ProviderFailure {
  const context = VerbsContext.open(options.entry)
  if (!(context instanceof VerbsContext)) return context
  return new OpenedVerbsDevice(context, options)
}

const EVENTS_EVERY_MS = 1
const NODE_EVERY_MS = 1000
const NO_EVENTS: readonly ProviderEvent[] = []

class OpenedVerbsDevice implements Device {
  readonly kind = 'verbs'
  readonly name: string
  readonly capabilities: DeviceCapabilities
  readonly counters: ProviderCounters
  #entry: VerbsDeviceEntry
  readonly #host: string
  readonly #path: PathChoice
  #context: VerbsContext
  #posting: VerbsPosting
  #completions: VerbsCompletions
  /** Stands for the descriptors of whatever device is there now, so that sleepers need not know that it was another one before. */
  readonly #wake = epollCreate()
  readonly #wakeDescriptors: readonly number[] = [this.#wake]
  readonly #holdings: VerbsHoldings
  readonly #queuePairs = new Map<number, VerbsQueuePair>()
  /** Null while the port does not have it. */
  #gid: Gid | null = null
  /** The address that peers know: the same one for life, wherever in the port's table it stands. */
  #address: string | null = null
  #events: ProviderEvent[] = []
  #lastSerial = 0
  #eventsLookedAtMs = Number.NEGATIVE_INFINITY
  #nodeLookedAtMs = Number.NEGATIVE_INFINITY
  /** The device said or showed that it is lost. */
  #isFatal = false
  /** 'vanished': closed because the device is not there any more, and looking for its return. */
  #life: 'open' | 'vanished' | 'closed' = 'open'

  constructor(context: VerbsContext, { entry, host, path }: VerbsDeviceOptions) {
    this.#path = path
    this.name = entry.name
    this.#entry = entry
    this.#host = host
    this.#context = context
    this.capabilities = context.queryCapabilities()
    this.counters = new VerbsCounters(entry)
    const most = this.capabilities.maxMessageByteLength
    this.#holdings = new VerbsHoldings(context, this.counters)
    this.#posting = new VerbsPosting(context.dataPath, this.counters, most, this.#holdings.starts)
    this.#completions = new VerbsCompletions(context.dataPath, this.counters, this.#queuePairs)
    this.#watch()
    this.#findGid()
  }

  port(): PortState {
    if (this.#life !== 'open') return { active: false, mtu: 0, linkLayer: this.#entry.linkLayer, address: '' }
    const { isActive, linkLayer, lid } = this.#context.queryPort()
    return { active: isActive, mtu: this.#mtu, linkLayer, address: this.#gid?.value ?? `lid ${lid}` }
  }

  get #mtu(): number {
    const { mtu } = this.#context.queryPort()
    return Math.min(mtu, this.#path.mtu ?? mtu)
  }

  #watch(): void {
    const { channelDescriptor, asyncDescriptor } = this.#context
    for (const fd of [channelDescriptor, asyncDescriptor]) epollAdd(this.#wake, fd, EPOLLIN, fd)
  }

  #findGid(): void {
    const { linkLayer } = this.#entry
    const gids = this.#context.queryGids()
    const known = linkLayer === 'ethernet' ? this.#address : null
    this.#gid =
      (known === null
        ? chooseGid(gids, linkLayer, this.#host, this.#path.gidIndex)
        : gids.find(({ isRouted, value }) => isRouted && value === known)) ?? null
    this.#address ??= this.#gid?.value ?? null
  }

  // ------------------------------------------------------------------------------------------------------- control

  allocateProtectionDomain(done: Done<ProtectionDomain>): void {
    if (!this.#isGone(done)) this.#holdings.allocateDomain(this.#context, done)
  }

  freeProtectionDomain(domain: ProtectionDomain, done: Done<true>): void {
    if (this.#isClosed(done)) return
    const isUsed = [...this.#queuePairs.values()].some((queuePair) => queuePair.parts.domain === domain.handle)
    this.#holdings.freeDomain(domain, isUsed, done)
  }

  registerMemory(
    domain: ProtectionDomain,
    address: number,
    byteLength: number,
    rights: MemoryRights,
    done: Done<RegisteredMemory>,
  ): void {
    if (this.#isGone(done)) return
    this.#holdings.registerMemory(this.#context, domain, address, byteLength, rights, done)
  }

  deregisterMemory(memory: RegisteredMemory, done: Done<true>): void {
    if (!this.#isClosed(done)) this.#holdings.deregisterMemory(memory as VerbsMemory, done)
  }

  createCompletionQueue(capacity: number, done: Done<ProviderCompletionQueue>): void {
    if (this.#isGone(done)) return
    const most = this.capabilities.maxCompletionQueueDepth
    if (isCount(capacity, most)) this.#holdings.createQueue(this.#context, capacity, done)
    else refuse(done, 'limit', `creating a completion queue of ${capacity}: 1 to ${most} are possible`)
  }

  destroyCompletionQueue(queue: ProviderCompletionQueue, done: Done<true>): void {
    if (this.#isClosed(done)) return
    const known = this.#holdings.queues.get(queue.handle)
    if (known === undefined) {
      refuseUnknown(done, 'completion queue', queue.handle)
      return
    }
    if (this.#life === 'open') this.#takeQueueEvents()
    this.#holdings.destroyQueue(known, done)
  }

  createQueuePair(
    domain: ProtectionDomain,
    sendQueue: ProviderCompletionQueue,
    receiveQueue: ProviderCompletionQueue,
    limits: QueuePairLimits,
    done: Done<ProviderQueuePair>,
  ): void {
    if (this.#isGone(done)) return
    const domainPointer = this.#holdings.domainPointer(domain)
    const sends = this.#holdings.queues.get(sendQueue.handle)
    const receives = this.#holdings.queues.get(receiveQueue.handle)
    const excess = excessOf(limits, this.capabilities)
    if (domainPointer === undefined) {
      refuseUnknown(done, 'protection domain', domain.handle)
      return
    }
    if (sends === undefined) {
      refuseUnknown(done, 'completion queue', sendQueue.handle)
      return
    }
    if (receives === undefined) {
      refuseUnknown(done, 'completion queue', receiveQueue.handle)
      return
    }
    if (excess !== null) {
      refuse(done, 'limit', `creating a queue pair with ${excess}`)
      return
    }
    this.#findGid()
    if (this.#gid === null && this.#entry.linkLayer === 'ethernet') {
      refuse(done, 'unreachable', `creating a queue pair: the port has no ${this.#address ?? 'RoCE v2 address'}`)
      return
    }
    const pointer = this.#context.createQueuePair(domainPointer, sends.pointer, receives.pointer, limits)
    if (pointer === 0) {
      done(failureOf('creating a queue pair', lastErrorNumber()), null)
      return
    }
    const result = this.#context.modifyQueuePair(pointer, transitions.toInit(this.#entry.port))
    if (result !== 0) {
      this.#context.library.destroyQueuePair(pointer)
      done(failureOf('moving a new queue pair to init', result), null)
      return
    }
    done(null, this.#adopt(pointer, domain.handle, sends, receives, limits))
  }

  #adopt(
    pointer: number,
    domain: number,
    sendQueue: VerbsCompletionQueue,
    receiveQueue: VerbsCompletionQueue,
    limits: QueuePairLimits,
  ): VerbsQueuePair {
    const { lid } = this.#context.queryPort()
    const number = fieldsOf(pointer, ibvQueuePair.byteLength).getUint32(ibvQueuePair.qp_num, true)
    const path = { gid: this.#gid?.value ?? '', lid, mtu: this.#mtu }
    const address: QueuePairAddress = { number, packetSequence: random24(), path }
    const serial = this.#takeSerial()
    const gid = this.#gid
    const copied = { ...limits }
    const parts = { serial, pointer, domain, gid, address, limits: copied, sendQueue, receiveQueue }
    const queuePair = new VerbsQueuePair(parts)
    this.#queuePairs.set(serial, queuePair)
    sendQueue.users++
    receiveQueue.users++
    this.counters.queuePairs++
    this.counters.queuePairsCreated++
    return queuePair
  }

  #takeSerial(): number {
    do this.#lastSerial = this.#lastSerial === SERIAL_MAX ? 1 : this.#lastSerial + 1
    while (this.#queuePairs.has(this.#lastSerial))
    return this.#lastSerial
  }

  addressOf(queuePair: ProviderQueuePair): QueuePairAddress {
    return (queuePair as VerbsQueuePair).parts.address
  }

  toReadyToReceive(
    queuePair: ProviderQueuePair,
    remote: QueuePairAddress,
    attributes: QueuePairAttributes,
    done: Done<true>,
  ): void {
    const known = this.#inState(queuePair, 'init', done)
    if (known === null) return
    const { port, linkLayer } = this.#entry
    const problem =
      transitions.problemOfAttributes(attributes, this.capabilities) ?? transitions.problemOfAddress(remote, linkLayer)
    const attempted = `moving queue pair ${known.number} to ready-to-receive`
    if (problem !== null) {
      refuse(done, 'invalid', `${attempted}: ${problem}`)
      return
    }
    const { trafficClass, serviceLevel } = this.#path
    const mtu = Number(known.parts.address.path.mtu)
    const path = { port, linkLayer, gidIndex: known.parts.gid?.index ?? 0, mtu, trafficClass, serviceLevel }
    this.#modify(known, transitions.toReadyToReceive(remote, attributes, path), 'ready-to-receive', done)
  }

  toReadyToSend(queuePair: ProviderQueuePair, attributes: QueuePairAttributes, done: Done<true>): void {
    const known = this.#inState(queuePair, 'ready-to-receive', done)
    if (known === null) return
    const problem = transitions.problemOfAttributes(attributes, this.capabilities)
    if (problem !== null) {
      refuse(done, 'invalid', `moving queue pair ${known.number} to ready-to-send: ${problem}`)
      return
    }
    const { packetSequence } = known.parts.address
    this.#modify(known, transitions.toReadyToSend(packetSequence, attributes), 'ready-to-send', done)
  }

  toError(queuePair: ProviderQueuePair, done: Done<true>): void {
    if (this.#isClosed(done)) return
    const known = this.#find(queuePair)
    if (known === null) refuseUnknown(done, 'queue pair', queuePair.number)
    else if (known.isLost) done(null, true)
    else this.#modify(known, transitions.toError, 'error', done)
  }

  #modify(
    queuePair: VerbsQueuePair,
    transition: transitions.Transition,
    state: QueuePairState,
    done: Done<true>,
  ): void {
    const result = this.#context.modifyQueuePair(queuePair.pointer, transition)
    if (result !== 0) {
      done(failureOf(`moving queue pair ${queuePair.number} to ${state}`, result), null)
      return
    }
    queuePair.state = state
    done(null, true)
  }

  /** Devices move a queue pair to error by themselves, and not all say so at once. */
  stateOf(queuePair: ProviderQueuePair): QueuePairState {
    const known = queuePair as VerbsQueuePair
    if (known.state === 'error' || this.#life !== 'open' || this.#find(known) === null) return known.state
    if (this.#context.queryState(known.pointer) > ibv.IBV_QPS_RTS) known.state = 'error'
    return known.state
  }

  destroyQueuePair(queuePair: ProviderQueuePair, done: Done<true>): void {
    if (this.#isClosed(done)) return
    const known = this.#find(queuePair)
    if (known === null) {
      refuseUnknown(done, 'queue pair', queuePair.number)
      return
    }
    // An event about it that nobody took would keep its destruction waiting for ever.
    if (!known.isLost) this.#takeAsyncEvents()
    const result = known.isLost ? 0 : this.#context.library.destroyQueuePair(known.pointer)
    if (result !== 0) {
      done(failureOf(`destroying queue pair ${known.number}`, result), null)
      return
    }
    this.#forget(known)
    done(null, true)
  }

  #forget(queuePair: VerbsQueuePair): void {
    const { serial, sendQueue, receiveQueue } = queuePair.parts
    this.#queuePairs.delete(serial)
    this.#completions.forget(sendQueue, queuePair.number)
    this.#completions.forget(receiveQueue, queuePair.number)
    sendQueue.users--
    receiveQueue.users--
    this.counters.queuePairs--
  }

  // ---------------------------------------------------------------------------------------------------------- data

  postSend(queuePair: ProviderQueuePair, batch: WorkRequestBatch): number {
    const known = queuePair as VerbsQueuePair
    // Kernels differ in what becomes of requests posted in the error state: none are.
    if (this.#life !== 'open' || known.state === 'error') return refuseBatch(batch, 'dead')
    if (known.state !== 'ready-to-send') return refuseBatch(batch, 'invalid')
    return this.#posting.postSend(known, batch)
  }

  postReceive(queuePair: ProviderQueuePair, batch: WorkRequestBatch): number {
    const known = queuePair as VerbsQueuePair
    if (this.#life !== 'open' || known.state === 'error') return refuseBatch(batch, 'dead')
    return this.#posting.postReceive(known, batch)
  }

  poll(queue: ProviderCompletionQueue, into: CompletionBatch): number {
    if (this.#life !== 'open') return 0
    const polled = this.#completions.poll(queue as VerbsCompletionQueue, into)
    if (this.#completions.failed.length > 0) this.#finishFailed()
    return polled
  }

  /**
   * Queue pairs whose first error was just seen. What was posted between the device's error and this moment is flushed by
   * some kernels only when the error state is asked for (rxe of 6.1 forgets receives otherwise).
   */
  #finishFailed(): void {
    for (const queuePair of this.#completions.failed.splice(0)) {
      this.#context.modifyQueuePair(queuePair.pointer, transitions.toError)
    }
  }

  // --------------------------------------------------------------------------------------------------------- turns

  progress(nowMs: number): number {
    if (this.#life === 'closed' || nowMs - this.#eventsLookedAtMs < EVENTS_EVERY_MS) return 0
    this.#eventsLookedAtMs = nowMs
    if (nowMs - this.#nodeLookedAtMs >= NODE_EVERY_MS) {
      this.#nodeLookedAtMs = nowMs
      if (this.#life === 'vanished') return this.#lookForReturn()
      // Some drivers say nothing when their device is removed; the kernel takes its node away first.
      if (this.#entry.node !== null && !isNodePresent(this.#entry.node)) this.#isFatal = true
    }
    const count = this.#takeAsyncEvents()
    if (this.#isFatal && this.#holdings.pending === 0) this.#leave()
    return count
  }

  /** The kernel goes on when the device is closed. What was outstanding never completes; what was held is kept in mind. */
  #leave(): void {
    this.#isFatal = false
    this.#takeQueueEvents()
    this.#life = 'vanished'
    for (const queuePair of this.#queuePairs.values()) {
      if (!queuePair.isLost) this.#context.library.destroyQueuePair(queuePair.pointer)
      queuePair.isLost = true
      queuePair.state = 'error'
    }
    this.#closeContext()
    this.#events.push({ kind: 'device-fatal', subject: 0 })
  }

  #closeContext(): void {
    this.#holdings.leave()
    this.#posting.close()
    this.#completions.close()
    this.#context.close()
  }

  /** A device of the same name and port is taken for the one that went. */
  #lookForReturn(): number {
    const { name, port } = this.#entry
    const entry = verbsDevices().find((one) => one.name === name && one.port === port)
    if (!entry?.isActive || !entry.isAccessible) return 0
    const context = VerbsContext.open(entry)
    if (!(context instanceof VerbsContext)) return 0
    if (this.#holdings.enter(context) !== null) {
      context.close()
      return 0
    }
    this.#entry = entry
    this.#context = context
    const { maxMessageByteLength } = this.capabilities
    this.#posting = new VerbsPosting(context.dataPath, this.counters, maxMessageByteLength, this.#holdings.starts)
    this.#completions = new VerbsCompletions(context.dataPath, this.counters, this.#queuePairs)
    this.#watch()
    this.#life = 'open'
    this.#events.push({ kind: 'port-active', subject: 0 })
    return 1
  }

  wakeDescriptors(): readonly number[] {
    return this.#wakeDescriptors
  }

  prepareSleep(): boolean {
    if (this.#life !== 'open') return true
    this.#takeAsyncEvents()
    this.#takeQueueEvents()
    // A registration that ends on another thread comes back by the event loop, which nobody turns in his sleep.
    let isQuiet = this.#events.length === 0 && !this.#isFatal && this.#holdings.pending === 0
    for (const queue of this.#holdings.queues.values()) if (!this.#completions.prepareSleep(queue)) isQuiet = false
    this.#finishFailed()
    return isQuiet
  }

  /** The device keeps its own timers. */
  nextTimerMs(): number {
    return Number.POSITIVE_INFINITY
  }

  takeEvents(): readonly ProviderEvent[] {
    if (this.#life === 'open') this.#takeAsyncEvents()
    if (this.#events.length === 0) return NO_EVENTS
    const events = this.#events
    this.#events = []
    return events
  }

  #takeQueueEvents(): void {
    for (let handle = this.#context.takeQueueEvent(); handle !== 0; handle = this.#context.takeQueueEvent()) {
      const queue = this.#holdings.queues.get(handle)
      if (queue !== undefined) queue.isArmed = false
    }
  }

  #takeAsyncEvents(): number {
    let count = 0
    for (let event = this.#context.takeAsyncEvent(); event !== null; event = this.#context.takeAsyncEvent()) {
      this.#note(event.type, event.element)
      count++
    }
    return count
  }

  #note(type: number, element: number): void {
    const kind = eventKindOf(type)
    if (kind === null) return
    if (kind === 'device-fatal') {
      this.#isFatal = true
      return
    }
    this.#events.push({ kind, subject: this.#subjectOf(type, element) })
  }

  #subjectOf(type: number, element: number): number {
    if (isQueuePairFailure(type)) {
      for (const queuePair of this.#queuePairs.values()) {
        if (queuePair.pointer !== element) continue
        queuePair.state = 'error'
        return queuePair.number
      }
    }
    if (type === ibv.IBV_EVENT_CQ_ERR) {
      for (const queue of this.#holdings.queues.values()) if (queue.pointer === element) return queue.handle
    }
    return 0
  }

  /**
   * In the order in which things depend on each other; a device that is gone answers with errors, which change nothing. Under a
   * registration on another thread nothing is freed: the kernel does it when the process ends.
   */
  close(): void {
    if (this.#life === 'closed') return
    const wasOpen = this.#life === 'open'
    if (wasOpen) {
      this.#takeAsyncEvents()
      this.#takeQueueEvents()
    }
    this.#life = 'closed'
    if (this.#holdings.pending > 0) return
    for (const queuePair of [...this.#queuePairs.values()]) {
      if (!queuePair.isLost) this.#context.library.destroyQueuePair(queuePair.pointer)
      this.#forget(queuePair)
    }
    if (wasOpen) this.#closeContext()
    closeDescriptor(this.#wake)
  }

  // ------------------------------------------------------------------------------------------------------- helpers

  #isClosed<Result>(done: Done<Result>): boolean {
    return this.#life === 'closed' && this.#isGone(done)
  }

  #isGone<Result>(done: Done<Result>): boolean {
    if (this.#life === 'open' && !this.#isFatal) return false
    refuse(done, 'device-gone', `device '${this.name}' is gone`)
    return true
  }

  #find(queuePair: ProviderQueuePair): VerbsQueuePair | null {
    const given = queuePair as VerbsQueuePair
    return this.#queuePairs.get(given.parts.serial) === given ? given : null
  }

  #inState(queuePair: ProviderQueuePair, state: QueuePairState, done: Done<true>): VerbsQueuePair | null {
    if (this.#isGone(done)) return null
    const known = this.#find(queuePair)
    if (known !== null && known.state === state) return known
    const found = known?.state ?? 'not there'
    refuse(done, 'invalid', `moving queue pair ${queuePair.number}: it should be in ${state} but is ${found}`)
    return null
  }
}

function refuseBatch(batch: WorkRequestBatch, refusal: WorkRequestBatch['refusal']): number {
  batch.refusal = refusal
  return 0
}

function random24(): number {
  return randomBytes(3).readUIntBE(0, 3)
}
