/**
 * The `verbs` provider: an RDMA device through libibverbs, by foreign calls. See README.md for what was run where.
 *
 * The device moves the bytes and keeps its own timers, so a turn (`progress`) only looks for asynchronous events, and whether
 * the device is still there. Control calls run on the caller's thread: each is one or a few system calls, and on hardware a
 * command to the device's firmware, so that a call may take a millisecond (see README.md).
 */
import { randomBytes } from 'node:crypto'
import { memlockLimit } from '../../shm/libc.js'
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
import { ibvCompletionQueue, ibvConstants as ibv, ibvMemoryRegion, ibvQueuePair } from './verbs-abi.js'
import { VerbsCompletions } from './verbs-completions.js'
import { fieldsOf, VerbsContext } from './verbs-context.js'
import {
  chooseGid,
  type Gid,
  gidsOf,
  isNodePresent,
  receiverNotReadyCount,
  type VerbsDeviceEntry,
} from './verbs-inventory.js'
import { lastErrorNumber } from './verbs-library.js'
import { SERIAL_MAX, VerbsCompletionQueue, type VerbsMemory, VerbsQueuePair } from './verbs-objects.js'
import { VerbsPosting } from './verbs-posting.js'
import { eventKindOf, failureOf, isQueuePairEvent } from './verbs-status.js'
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

class VerbsCounters implements ProviderCounters {
  queuePairs = 0
  queuePairsCreated = 0
  memoryRegions = 0
  messagesSent = 0
  bytesSent = 0
  bytesReceived = 0
  systemCalls = 0
  readonly #entry: VerbsDeviceEntry
  readonly #notReadyBefore: number

  constructor(entry: VerbsDeviceEntry) {
    this.#entry = entry
    this.#notReadyBefore = receiverNotReadyCount(entry.name, entry.port)
  }

  /** The device counts them, for all its users together: an upper bound of ours. */
  get receiverNotReady(): number {
    return receiverNotReadyCount(this.#entry.name, this.#entry.port) - this.#notReadyBefore
  }
}

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
    return chooseGid(gidsOf(this.name, this.#entry.port), this.#entry.linkLayer, this.#host) ?? null
  }

  // ------------------------------------------------------------------------------------------------------- control

  allocateProtectionDomain(done: Done<ProtectionDomain>): void {
    if (this.#isGone(done)) return
    const pointer = this.#context.allocateDomain()
    if (pointer === 0) return done(failureOf('allocating a protection domain', lastErrorNumber()), null)
    const handle = ++this.#lastHandle
    this.#domains.set(handle, pointer)
    done(null, { handle })
  }

  freeProtectionDomain(domain: ProtectionDomain, done: Done<true>): void {
    if (this.#isGone(done)) return
    const pointer = this.#domains.get(domain.handle)
    if (pointer === undefined) return refuseUnknown(done, 'protection domain', domain.handle)
    if (this.#isDomainUsed(domain.handle)) {
      const message = `freeing protection domain ${domain.handle}: it still has memory or queue pairs`
      return refuse(done, 'invalid', message)
    }
    const result = this.#context.library.freeDomain(pointer)
    if (result !== 0) return done(failureOf(`freeing protection domain ${domain.handle}`, result), null)
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
    if (pointer === undefined) return refuseUnknown(done, 'protection domain', domain.handle)
    if (!Number.isSafeInteger(address) || address <= 0 || !Number.isSafeInteger(byteLength) || byteLength <= 0) {
      return refuse(done, 'invalid', `${attempted} at address ${address}`)
    }
    if (rights.remoteWrite && !rights.localWrite) {
      return refuse(done, 'invalid', `${attempted} with remote but without local write right`)
    }
    const region = this.#context.library.registerMemory(pointer, address, byteLength, 0, accessOf(rights))
    if (region === 0) return done(failureOf(attempted, lastErrorNumber(), memlockHint(byteLength)), null)
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
    if (known === undefined || known !== memory) return refuseUnknown(done, 'memory with local key', memory.localKey)
    const result = this.#context.library.deregisterMemory(known.pointer)
    if (result !== 0) return done(failureOf(`deregistering ${memory.byteLength} bytes`, result), null)
    this.#memories.delete(memory.localKey)
    this.#starts.delete(memory.localKey)
    this.counters.memoryRegions--
    done(null, true)
  }

  createCompletionQueue(capacity: number, done: Done<ProviderCompletionQueue>): void {
    if (this.#isGone(done)) return
    const most = this.capabilities.maxCompletionQueueDepth
    const attempted = `creating a completion queue of ${capacity}`
    if (!isCount(capacity, most)) return refuse(done, 'limit', `${attempted}: 1 to ${most} are possible`)
    const handle = ++this.#lastHandle
    const pointer = this.#context.createQueue(capacity, handle)
    if (pointer === 0) return done(failureOf(attempted, lastErrorNumber()), null)
    const actual = fieldsOf(pointer, ibvCompletionQueue.byteLength).getInt32(ibvCompletionQueue.cqe, true)
    const queue = new VerbsCompletionQueue(handle, pointer, actual)
    this.#queues.set(handle, queue)
    done(null, queue)
  }

  destroyCompletionQueue(queue: ProviderCompletionQueue, done: Done<true>): void {
    if (this.#isGone(done)) return
    const known = this.#queues.get(queue.handle)
    if (known === undefined) return refuseUnknown(done, 'completion queue', queue.handle)
    const attempted = `destroying completion queue ${queue.handle}`
    if (known.users > 0) return refuse(done, 'invalid', `${attempted}: ${known.users} queues complete there`)
    this.#takeQueueEvents()
    const result = this.#context.library.destroyQueue(known.pointer)
    if (result !== 0) return done(failureOf(attempted, result), null)
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
    if (domainPointer === undefined) return refuseUnknown(done, 'protection domain', domain.handle)
    if (sends === undefined) return refuseUnknown(done, 'completion queue', sendQueue.handle)
    if (receives === undefined) return refuseUnknown(done, 'completion queue', receiveQueue.handle)
    if (excess !== null) return refuse(done, 'limit', `creating a queue pair with ${excess}`)
    const pointer = this.#context.createQueuePair(domainPointer, sends.pointer, receives.pointer, limits)
    if (pointer === 0) return done(failureOf('creating a queue pair', lastErrorNumber()), null)
    const result = this.#context.modifyQueuePair(pointer, transitions.toInit(this.#entry.port))
    if (result !== 0) {
      this.#context.library.destroyQueuePair(pointer)
      return done(failureOf('moving a new queue pair to init', result), null)
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
    if (problem !== null) return refuse(done, 'invalid', `${attempted}: ${problem}`)
    const path = { port, linkLayer, gidIndex: known.parts.gid?.index ?? 0, mtu: Number(known.parts.address.path.mtu) }
    this.#modify(known, transitions.toReadyToReceive(remote, attributes, path), 'ready-to-receive', done)
  }

  toReadyToSend(queuePair: ProviderQueuePair, attributes: QueuePairAttributes, done: Done<true>): void {
    const known = this.#inState(queuePair, 'ready-to-receive', done)
    if (known === null) return
    const problem = transitions.problemOfAttributes(attributes, this.capabilities)
    if (problem !== null) {
      return refuse(done, 'invalid', `moving queue pair ${known.number} to ready-to-send: ${problem}`)
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

  #modify(queuePair: VerbsQueuePair, transition: transitions.Transition, state: QueuePairState, done: Done<true>): void {
    const result = this.#context.modifyQueuePair(queuePair.pointer, transition)
    if (result !== 0) return done(failureOf(`moving queue pair ${queuePair.number} to ${state}`, result), null)
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
    if (known === null) return refuseUnknown(done, 'queue pair', queuePair.number)
    // An event about it that nobody took would keep its destruction waiting for ever.
    this.#takeAsyncEvents()
    const result = this.#context.library.destroyQueuePair(known.pointer)
    if (result !== 0) return done(failureOf(`destroying queue pair ${known.number}`, result), null)
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
    return this.#completions.poll(queue as VerbsCompletionQueue, into)
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
    return isQuiet
  }

  /** The device keeps its own timers; only its presence is looked at now and then. */
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
    if (isQueuePairEvent(type)) {
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

function refuse<Result>(done: Done<Result>, code: ProviderFailure['code'], message: string): void {
  done({ code, message: `${code}: ${message}` }, null)
}

function refuseUnknown<Result>(done: Done<Result>, what: string, handle: number): void {
  refuse(done, 'invalid', `there is no ${what} ${handle}`)
}

function random24(): number {
  return randomBytes(3).readUIntBE(0, 3)
}

function accessOf(rights: MemoryRights): number {
  return (
    (rights.localWrite ? ibv.IBV_ACCESS_LOCAL_WRITE : 0) |
    (rights.remoteRead ? ibv.IBV_ACCESS_REMOTE_READ : 0) |
    (rights.remoteWrite ? ibv.IBV_ACCESS_REMOTE_WRITE : 0)
  )
}

function memlockHint(byteLength: number): string {
  const limit = memlockLimit()
  return Number.isFinite(limit) ? `this process may lock ${limit} bytes (ulimit -l) and ${byteLength} are needed` : ''
}

function isCount(value: number, most: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= most
}

/** Which wish goes beyond the device, or null. */
function excessOf(limits: QueuePairLimits, most: DeviceCapabilities): string | null {
  if (!isCount(limits.sendDepth, most.maxSendDepth)) return `send depth ${limits.sendDepth}`
  if (!isCount(limits.receiveDepth, most.maxReceiveDepth)) return `receive depth ${limits.receiveDepth}`
  if (!isCount(limits.scatterGather, most.maxScatterGather)) return `${limits.scatterGather} scatter/gather entries`
  if (limits.inlineByteLength === 0 || isCount(limits.inlineByteLength, most.maxInlineByteLength)) return null
  return `${limits.inlineByteLength} inline bytes`
}
