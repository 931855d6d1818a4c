/**
 * The `verbs` provider: an RDMA device through libibverbs, by foreign calls. See README.md for what was run where.
 *
 * The device moves the bytes and keeps its own timers, so a turn (`progress`) only looks for asynchronous events, and whether
 * the device is still there. Control calls run on the caller's thread: each is one or a few system calls, and on hardware a
 * command to the device's firmware, so that a call may take a millisecond (see README.md).
 */
import { randomBytes } from 'node:crypto'
import type {
  CompletionBatch,
  Device,
  DeviceCapabilities,
  Done,
  MemoryRights,
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
import { ibvConstants as ibv, ibvCompletionQueue, ibvMemoryRegion, ibvQueuePair } from './verbs-abi.js'
import { accessOf, excessOf, isCount, memlockHint, refuse, refuseUnknown } from './verbs-checks.js'
import { VerbsCompletions } from './verbs-completions.js'
import { fieldsOf, VerbsContext } from './verbs-context.js'
import { VerbsCounters } from './verbs-counters.js'
import { chooseGid, type Gid } from './verbs-gid.js'
import { isNodePresent, type VerbsDeviceEntry } from './verbs-inventory.js'
import { lastErrorNumber } from './verbs-library.js'
import { SERIAL_MAX, VerbsCompletionQueue, type VerbsMemory, VerbsQueuePair } from './verbs-objects.js'
import { VerbsPosting } from './verbs-posting.js'
import { eventKindOf, failureOf, isQueuePairFailure } from './verbs-status.js'
import * as transitions from './verbs-transitions.js'

export interface VerbsDeviceOptions {
  readonly entry: VerbsDeviceEntry
  /** IPv4 address; where the port has it as its own, peers reach the device by it. */
  readonly host: string
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
  readonly #entry: VerbsDeviceEntry
  readonly #host: string
  readonly #context: VerbsContext
  readonly #posting: VerbsPosting
  readonly #completions: VerbsCompletions
  readonly #wakeDescriptors: readonly number[]
  /** Pointers of protection domains by handle. */
  readonly #domains = new Map<number, number>()
  readonly #memories = new Map<number, VerbsMemory>()
  readonly #starts = new Map<number, number>()
  readonly #queues = new Map<number, VerbsCompletionQueue>()
  readonly #queuePairs = new Map<number, VerbsQueuePair>()
  #gid: Gid | null
  #events: ProviderEvent[] = []
  #lastHandle = 0
  #lastSerial = 0
  #eventsLookedAtMs = Number.NEGATIVE_INFINITY
  #nodeLookedAtMs = Number.NEGATIVE_INFINITY
  /** 'vanished': still open, but the device is not there any more. */
  #life: 'open' | 'vanished' | 'closed' = 'open'

  constructor(context: VerbsContext, { entry, host }: VerbsDeviceOptions) {
    this.name = entry.name
    this.#entry = entry
    this.#host = host
    this.#context = context
    this.capabilities = context.queryCapabilities()
    this.counters = new VerbsCounters(entry)
    const most = this.capabilities.maxMessageByteLength
    this.#posting = new VerbsPosting(context.dataPath, this.counters, most, this.#starts)
    this.#completions = new VerbsCompletions(context.dataPath, this.counters, this.#queuePairs)
    this.#wakeDescriptors = [context.channelDescriptor, context.asyncDescriptor]
    this.#gid = this.#findGid()
  }

  port(): PortState {
    if (this.#life !== 'open') return { active: false, mtu: 0, linkLayer: this.#entry.linkLayer, address: '' }
    const { isActive, mtu, linkLayer, lid } = this.#context.queryPort()
    return { active: isActive, mtu, linkLayer, address: this.#gid?.value ?? `lid ${lid}` }
  }

  #findGid(): Gid | null {
    return chooseGid(this.#context.queryGids(), this.#entry.linkLayer, this.#host) ?? null
  }

  // ------------------------------------------------------------------------------------------------------- control

  allocateProtectionDomain(done: Done<ProtectionDomain>): void {
    if (this.#isGone(done)) return
    const pointer = this.#context.allocateDomain()
    if (pointer === 0) {
      done(failureOf('allocating a protection domain', lastErrorNumber()), null)
      return
    }
    const handle = ++this.#lastHandle
    this.#domains.set(handle, pointer)
    done(null, { handle })
  }

  freeProtectionDomain(domain: ProtectionDomain, done: Done<true>): void {
    if (this.#isGone(done)) return
    const pointer = this.#domains.get(domain.handle)
    if (pointer === undefined) {
      refuseUnknown(done, 'protection domain', domain.handle)
      return
    }
    if (this.#isDomainUsed(domain.handle)) {
      const message = `freeing protection domain ${domain.handle}: it still has memory or queue pairs`
      refuse(done, 'invalid', message)
      return
    }
    const result = this.#context.library.freeDomain(pointer)
    if (result !== 0) {
      done(failureOf(`freeing protection domain ${domain.handle}`, result), null)
      return
    }
    this.#domains.delete(domain.handle)
    done(null, true)
  }

  #isDomainUsed(handle: number): boolean {
    for (const memory of this.#memories.values()) if (memory.domain === handle) return true
    for (const queuePair of this.#queuePairs.values()) if (queuePair.parts.domain === handle) return true
    return false
  }

  registerMemory(
    domain: ProtectionDomain,
    address: number,
    byteLength: number,
    rights: MemoryRights,
    done: Done<RegisteredMemory>,
  ): void {
    if (this.#isGone(done)) return
    const pointer = this.#domains.get(domain.handle)
    const attempted = `registering ${byteLength} bytes`
    if (pointer === undefined) {
      refuseUnknown(done, 'protection domain', domain.handle)
      return
    }
    if (!Number.isSafeInteger(address) || address <= 0 || !Number.isSafeInteger(byteLength) || byteLength <= 0) {
      refuse(done, 'invalid', `${attempted} at address ${address}`)
      return
    }
    if (rights.remoteWrite && !rights.localWrite) {
      refuse(done, 'invalid', `${attempted} with remote but without local write right`)
      return
    }
    const region = this.#context.library.registerMemory(pointer, address, byteLength, 0, accessOf(rights))
    if (region === 0) {
      done(failureOf(attempted, lastErrorNumber(), memlockHint(byteLength)), null)
      return
    }
    const fields = fieldsOf(region, ibvMemoryRegion.byteLength)
    const localKey = fields.getUint32(ibvMemoryRegion.lkey, true)
    const remoteKey = fields.getUint32(ibvMemoryRegion.rkey, true)
    const memory = { pointer: region, domain: domain.handle, localKey, remoteKey, address, byteLength }
    this.#memories.set(localKey, memory)
    this.#starts.set(localKey, address)
    this.counters.memoryRegions++
    done(null, memory)
  }

  deregisterMemory(memory: RegisteredMemory, done: Done<true>): void {
    if (this.#isGone(done)) return
    const known = this.#memories.get(memory.localKey)
    if (known === undefined || known !== memory) {
      refuseUnknown(done, 'memory with local key', memory.localKey)
      return
    }
    const result = this.#context.library.deregisterMemory(known.pointer)
    if (result !== 0) {
      done(failureOf(`deregistering ${memory.byteLength} bytes`, result), null)
      return
    }
    this.#memories.delete(memory.localKey)
    this.#starts.delete(memory.localKey)
    this.counters.memoryRegions--
    done(null, true)
  }

  createCompletionQueue(capacity: number, done: Done<ProviderCompletionQueue>): void {
    if (this.#isGone(done)) return
    const most = this.capabilities.maxCompletionQueueDepth
    const attempted = `creating a completion queue of ${capacity}`
    if (!isCount(capacity, most)) {
      refuse(done, 'limit', `${attempted}: 1 to ${most} are possible`)
      return
    }
    const handle = ++this.#lastHandle
    const pointer = this.#context.createQueue(capacity, handle)
    if (pointer === 0) {
      done(failureOf(attempted, lastErrorNumber()), null)
      return
    }
    const actual = fieldsOf(pointer, ibvCompletionQueue.byteLength).getInt32(ibvCompletionQueue.cqe, true)
    const queue = new VerbsCompletionQueue(handle, pointer, actual)
    this.#queues.set(handle, queue)
    done(null, queue)
  }

  destroyCompletionQueue(queue: ProviderCompletionQueue, done: Done<true>): void {
    if (this.#isGone(done)) return
    const known = this.#queues.get(queue.handle)
    if (known === undefined) {
      refuseUnknown(done, 'completion queue', queue.handle)
      return
    }
    const attempted = `destroying completion queue ${queue.handle}`
    if (known.users > 0) {
      refuse(done, 'invalid', `${attempted}: ${known.users} queues complete there`)
      return
    }
    this.#takeQueueEvents()
    const result = this.#context.library.destroyQueue(known.pointer)
    if (result !== 0) {
      done(failureOf(attempted, result), null)
      return
    }
    this.#queues.delete(queue.handle)
    done(null, true)
  }

  createQueuePair(
    domain: ProtectionDomain,
    sendQueue: ProviderCompletionQueue,
    receiveQueue: ProviderCompletionQueue,
    limits: QueuePairLimits,
    done: Done<ProviderQueuePair>,
  ): void {
    if (this.#isGone(done)) return
    const domainPointer = this.#domains.get(domain.handle)
    const sends = this.#queues.get(sendQueue.handle)
    const receives = this.#queues.get(receiveQueue.handle)
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
    const { mtu, lid } = this.#context.queryPort()
    const number = fieldsOf(pointer, ibvQueuePair.byteLength).getUint32(ibvQueuePair.qp_num, true)
    const path = { gid: this.#gid?.value ?? '', lid, mtu }
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
      transitions.problemOfAttributes(attributes, this.capabilities) ??
      transitions.problemOfAddress(remote, linkLayer) ??
      (linkLayer === 'ethernet' && known.parts.gid === null ? 'the port has no RoCE v2 address' : null)
    const attempted = `moving queue pair ${known.number} to ready-to-receive`
    if (problem !== null) {
      refuse(done, 'invalid', `${attempted}: ${problem}`)
      return
    }
    const path = { port, linkLayer, gidIndex: known.parts.gid?.index ?? 0, mtu: Number(known.parts.address.path.mtu) }
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
    if (this.#isGone(done)) return
    const known = this.#find(queuePair)
    if (known === null) refuseUnknown(done, 'queue pair', queuePair.number)
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
    if (this.#isGone(done)) return
    const known = this.#find(queuePair)
    if (known === null) {
      refuseUnknown(done, 'queue pair', queuePair.number)
      return
    }
    // An event about it that nobody took would keep its destruction waiting for ever.
    this.#takeAsyncEvents()
    const result = this.#context.library.destroyQueuePair(known.pointer)
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
    if (this.#life !== 'open' || nowMs - this.#eventsLookedAtMs < EVENTS_EVERY_MS) return 0
    this.#eventsLookedAtMs = nowMs
    if (nowMs - this.#nodeLookedAtMs >= NODE_EVERY_MS) {
      this.#nodeLookedAtMs = nowMs
      this.#lookForNode()
    }
    return this.#takeAsyncEvents()
  }

  /** Some drivers say nothing when their device is removed; the kernel takes its node away first. */
  #lookForNode(): void {
    if (this.#entry.node === null || isNodePresent(this.#entry.node)) return
    this.#life = 'vanished'
    this.#events.push({ kind: 'device-fatal', subject: 0 })
  }

  wakeDescriptors(): readonly number[] {
    return this.#wakeDescriptors
  }

  prepareSleep(): boolean {
    if (this.#life !== 'open') return true
    this.#takeAsyncEvents()
    this.#takeQueueEvents()
    let isQuiet = this.#events.length === 0
    for (const queue of this.#queues.values()) if (!this.#completions.prepareSleep(queue)) isQuiet = false
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
      const queue = this.#queues.get(handle)
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
    if (kind === 'path-change' || kind === 'port-active') this.#gid = this.#findGid() ?? this.#gid
    if (kind === 'device-fatal') this.#life = 'vanished'
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
      for (const queue of this.#queues.values()) if (queue.pointer === element) return queue.handle
    }
    return 0
  }

  /** In the order in which things depend on each other; a device that is gone answers with errors, which change nothing. */
  close(): void {
    if (this.#life === 'closed') return
    this.#takeAsyncEvents()
    this.#takeQueueEvents()
    this.#life = 'closed'
    const { library } = this.#context
    for (const queuePair of [...this.#queuePairs.values()]) {
      library.destroyQueuePair(queuePair.pointer)
      this.#forget(queuePair)
    }
    for (const memory of this.#memories.values()) library.deregisterMemory(memory.pointer)
    for (const queue of this.#queues.values()) library.destroyQueue(queue.pointer)
    for (const pointer of this.#domains.values()) library.freeDomain(pointer)
    this.#posting.close()
    this.#completions.close()
    this.#context.close()
  }

  // ------------------------------------------------------------------------------------------------------- helpers

  #isGone<Result>(done: Done<Result>): boolean {
    if (this.#life === 'open') return false
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
