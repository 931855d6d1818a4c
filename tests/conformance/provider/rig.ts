/**
 * What a provider case is made of: a rig that turns devices by hand, and players that post and collect completions.
 *
 *   await withRig(factory, (rig) => {
 *     const [a, b] = rig.pair()
 *     b.receive(1, { length: 64 })
 *     a.send(2, { length: 64 })
 *     rig.until(() => a.done(1) && b.done(1))
 *   })
 *
 * Nothing sleeps: `until` turns all devices under a bound on turns. Time is the rig's own and goes on a little with each
 * turn; `pass` lets more of it pass. A provider on a real clock gives the real time instead.
 */
import {
  CompletionBatch,
  type Device,
  type Done,
  type MemoryRights,
  type ProtectionDomain,
  type ProviderCompletionQueue,
  type ProviderEvent,
  type ProviderFailure,
  type ProviderQueuePair,
  type QueuePairAddress,
  type QueuePairAttributes,
  type QueuePairLimits,
  type RegisteredMemory,
  receiveOpcode,
  sendFlag,
  sendOpcode,
  WorkRequestBatch,
} from '../../../broker/provider/provider.js'
import type { FaultHooks } from '../../../broker/provider/soft-faults.js'
import { type StatusName, statusName } from '../../../protocol/statuses.js'
import { schedulerYield } from '../../../shm/libc.js'
import { Mapping } from '../../../shm/mapping.js'

/** How a suite gets devices of one provider. */
export interface DeviceFactory {
  readonly provider: Device['kind']
  /** Devices are opened anew for each case; hooks are for the soft provider only. */
  open(name: string, faults?: FaultHooks): Device
  /** Null: the rig makes up the time. */
  readonly clockMs: (() => number) | null
}

export interface Completion {
  readonly id: number
  readonly status: StatusName
  readonly opcode: number
  readonly byteLength: number
  readonly queuePair: number
}

export const allRights: MemoryRights = { localWrite: true, remoteRead: true, remoteWrite: true }

export const defaultAttributes: QueuePairAttributes = {
  readsInitiated: 4,
  readsAccepted: 4,
  pathMtu: 1024,
  timeoutExponent: 14,
  retryCount: 6,
  rnrRetryCount: 7,
  rnrTimerMs: 0.64,
  trafficClass: 0,
}

export const defaultLimits: QueuePairLimits = {
  sendDepth: 64,
  receiveDepth: 64,
  scatterGather: 4,
  inlineByteLength: 64,
}

const TURNS_MAX = 400_000
/** Instead of the bound on turns, where other processes or devices are waited for. */
const REAL_TIME_MAX_MS = 30_000
const TURN_MS = 0.001
const SETTLED_MS = 40
const MEMORY_BYTES = 8 << 20

export interface PlayerOptions {
  readonly limits?: Partial<QueuePairLimits>
  readonly queueCapacity?: number
  readonly memoryByteLength?: number
  readonly rights?: MemoryRights
  /** Another player of the same device whose domain, memory and completion queue are used. */
  readonly sharing?: Player
}

export interface PairOptions extends PlayerOptions {
  readonly attributes?: Partial<QueuePairAttributes>
  readonly responderAttributes?: Partial<QueuePairAttributes>
  readonly responder?: PlayerOptions
  readonly faults?: FaultHooks
}

/** Where a request's bytes are. */
export interface Span {
  readonly at?: number
  readonly length: number
  readonly key?: number
  /** Several entries instead of one: [offset, length] each. */
  readonly entries?: readonly (readonly [number, number])[]
  readonly signaled?: boolean
  readonly inline?: boolean
  /** Offset in the peer's memory, and another key than the peer's. */
  readonly to?: number
  readonly remoteKey?: number
}

export class Rig {
  readonly factory: DeviceFactory
  readonly devices: Device[] = []
  readonly players: Player[] = []
  readonly mappings: Mapping[] = []
  #nowMs = 1

  constructor(factory: DeviceFactory) {
    this.factory = factory
  }

  open(name: string, faults?: FaultHooks): Device {
    const device = this.factory.open(name, faults)
    this.devices.push(device)
    return device
  }

  /** Ends a device in the middle of a case. */
  closeDevice(device: Device): void {
    this.devices.splice(this.devices.indexOf(device), 1)
    device.close()
  }

  get nowMs(): number {
    return this.factory.clockMs?.() ?? this.#nowMs
  }

  turn(): number {
    this.#nowMs += TURN_MS
    let work = 0
    for (const device of this.devices) work += device.progress(this.nowMs)
    for (const player of this.players) work += player.collect()
    return work
  }

  until(condition: () => boolean, what = 'what the case waits for'): void {
    const { clockMs } = this.factory
    const deadlineMs = (clockMs?.() ?? 0) + REAL_TIME_MAX_MS
    for (let turn = 0; clockMs === null ? turn < TURNS_MAX : clockMs() < deadlineMs; turn++) {
      if (condition()) return
      if (this.turn() === 0 && clockMs !== null) schedulerYield()
    }
    throw new Error(`in time: ${what} did not happen; ${this.describe()}`)
  }

  /** Turns until nothing has happened for a while; a device that works by itself gets some real time for it. */
  settle(): void {
    const { clockMs } = this.factory
    let busyMs = this.nowMs
    for (let idle = 0; idle < 300 || (clockMs !== null && clockMs() - busyMs < SETTLED_MS); ) {
      const work = this.turn()
      idle = work === 0 ? idle + 1 : 0
      if (work > 0) busyMs = this.nowMs
    }
  }

  /** Lets time pass, a millisecond a turn. */
  pass(byMs: number): void {
    const end = this.nowMs + byMs
    while (this.nowMs < end) {
      this.#nowMs += 1
      if (this.turn() === 0 && this.factory.clockMs !== null) schedulerYield()
    }
  }

  /** Time goes on while nobody turns, as if this process had been stopped. A real clock cannot be moved. */
  skip(byMs: number): void {
    this.#nowMs += byMs
  }

  control<Result>(call: (done: Done<Result>) => void): Result {
    const { failure, result } = this.attempt(call)
    if (failure !== null) throw new Error(failure.message)
    return result!
  }

  /** A control call that may fail. */
  attempt<Result>(call: (done: Done<Result>) => void): { failure: ProviderFailure | null; result: Result | null } {
    let calls = 0
    let outcome: { failure: ProviderFailure | null; result: Result | null } = { failure: null, result: null }
    call((failure, result) => {
      calls++
      outcome = { failure, result }
    })
    this.until(() => calls > 0, 'the answer of a control call')
    if (calls !== 1) throw new Error(`a control call was answered ${calls} times`)
    return outcome
  }

  player(device: Device, options: PlayerOptions = {}): Player {
    const player = new Player(this, device, options)
    this.players.push(player)
    return player
  }

  /** Two devices with a connected queue pair each. */
  pair(options: PairOptions = {}): [Player, Player] {
    const a = this.player(this.open('a'), options)
    const b = this.player(this.open('b', options.faults), { ...options, ...options.responder })
    this.connect(a, b, options)
    return [a, b]
  }

  /** Another connected pair on the devices of the first, with the same completion queues and memory. */
  anotherPair(first: readonly [Player, Player], options: PairOptions = {}): [Player, Player] {
    const a = this.player(first[0].device, { ...options, sharing: first[0] })
    const b = this.player(first[1].device, { ...options, sharing: first[1] })
    this.connect(a, b, options)
    return [a, b]
  }

  connect(a: Player, b: Player, options: PairOptions = {}): void {
    const attributes = { ...defaultAttributes, ...options.attributes }
    a.connect(b, attributes)
    b.connect(a, { ...attributes, ...options.responderAttributes })
  }

  describe(): string {
    return this.players.map((player) => `${player.completions.length} completions in ${player.state}`).join(', ')
  }

  close(): void {
    for (const device of this.devices) device.close()
    for (const mapping of this.mappings) mapping.close()
  }
}

export class Player {
  readonly rig: Rig
  readonly device: Device
  readonly domain: ProtectionDomain
  readonly mapping: Mapping
  readonly memory: RegisteredMemory
  readonly queue: ProviderCompletionQueue
  readonly queuePair: ProviderQueuePair
  readonly completions: Completion[] = []
  /** Off: nothing is polled, completions stay where they are. */
  isPolling = true
  #peer: Player | null = null
  readonly #requests = new WorkRequestBatch(1)
  readonly #batch = new CompletionBatch(64)
  /** The player whose completion queue this one uses, and who polls it for both. */
  readonly #collector: Player
  readonly #routes = new Map<number, Player>()

  constructor(rig: Rig, device: Device, options: PlayerOptions) {
    const { sharing } = options
    this.rig = rig
    this.device = device
    this.domain = sharing?.domain ?? rig.control((done) => device.allocateProtectionDomain(done))
    this.mapping = sharing?.mapping ?? this.#map(options.memoryByteLength ?? MEMORY_BYTES)
    this.memory = sharing?.memory ?? this.register(options.rights ?? allRights)
    this.queue =
      sharing?.queue ?? rig.control((done) => device.createCompletionQueue(options.queueCapacity ?? 256, done))
    this.queuePair = rig.control((done) =>
      device.createQueuePair(this.domain, this.queue, this.queue, { ...defaultLimits, ...options.limits }, done),
    )
    this.#collector = sharing ?? this
    this.#collector.#routes.set(this.queuePair.number, this)
  }

  get bytes(): Uint8Array {
    return this.mapping.memory.u8
  }

  get state(): string {
    return this.device.stateOf(this.queuePair)
  }

  get address(): QueuePairAddress {
    return this.device.addressOf(this.queuePair)
  }

  get ids(): number[] {
    return this.completions.map((completion) => completion.id)
  }

  get statuses(): StatusName[] {
    return this.completions.map((completion) => completion.status)
  }

  get peer(): Player {
    if (this.#peer === null) throw new Error('the player is not connected')
    return this.#peer
  }

  #map(byteLength: number): Mapping {
    const mapping = Mapping.create('provider-case', byteLength)
    this.rig.mappings.push(mapping)
    return mapping
  }

  register(rights: MemoryRights, byteLength = this.mapping.byteLength, domain = this.domain): RegisteredMemory {
    const { address, fd } = this.mapping
    const file = { descriptor: fd, offset: 0 }
    return this.rig.control((done) => this.device.registerMemory(domain, address, byteLength, rights, done, file))
  }

  /** The provider is not told that a file is behind it. */
  registerWithoutFile(rights: MemoryRights): RegisteredMemory {
    const { address, byteLength } = this.mapping
    return this.rig.control((done) => this.device.registerMemory(this.domain, address, byteLength, rights, done))
  }

  /** Connects to a queue pair of another process. */
  connectTo(remote: QueuePairAddress, attributes: QueuePairAttributes): void {
    this.rig.control<true>((done) => this.device.toReadyToReceive(this.queuePair, remote, attributes, done))
    this.rig.control<true>((done) => this.device.toReadyToSend(this.queuePair, attributes, done))
  }

  connect(peer: Player, attributes: QueuePairAttributes): void {
    this.receiveFrom(peer, attributes)
    this.rig.control<true>((done) => this.device.toReadyToSend(this.queuePair, attributes, done))
  }

  receiveFrom(peer: Player, attributes: QueuePairAttributes): void {
    this.#peer = peer
    this.rig.control<true>((done) => this.device.toReadyToReceive(this.queuePair, peer.address, attributes, done))
  }

  /** Writes a pattern that differs from byte to byte and from seed to seed. */
  fill(at: number, length: number, seed: number): void {
    const { bytes } = this
    for (let index = 0; index < length; index++) bytes[at + index] = (seed * 31 + index * 7 + (index >> 8)) & 0xff
  }

  slice(at: number, length: number): Uint8Array {
    return this.bytes.slice(at, at + length)
  }

  /** How many completions there are at least. */
  done(count: number): boolean {
    return this.completions.length >= count
  }

  collect(): number {
    if (this.#collector !== this || !this.isPolling) return 0
    const batch = this.#batch
    batch.count = 0
    const polled = this.device.poll(this.queue, batch)
    for (let index = 0; index < polled; index++) {
      const queuePair = batch.queuePair[index]!
      const owner = this.#routes.get(queuePair) ?? this
      owner.completions.push({
        id: batch.idLow[index]! + batch.idHigh[index]! * 2 ** 32,
        status: statusName(batch.status[index]!),
        opcode: batch.opcode[index]!,
        byteLength: batch.byteLength[index]!,
        queuePair,
      })
    }
    return polled
  }

  events(): ProviderEvent['kind'][] {
    return this.device.takeEvents().map((event) => event.kind)
  }

  receive(id: number, span: Span): number {
    this.#begin(id, receiveOpcode, span)
    return this.device.postReceive(this.queuePair, this.#requests)
  }

  send(id: number, span: Span): number {
    return this.#post(id, sendOpcode.send, span)
  }

  write(id: number, span: Span): number {
    return this.#post(id, sendOpcode.write, span)
  }

  read(id: number, span: Span): number {
    return this.#post(id, sendOpcode.read, span)
  }

  /** Why the last post was refused. */
  get refusal(): string {
    return this.#requests.refusal
  }

  toError(): void {
    this.rig.control<true>((done) => this.device.toError(this.queuePair, done))
  }

  destroy(): void {
    this.rig.control<true>((done) => this.device.destroyQueuePair(this.queuePair, done))
  }

  #post(id: number, opcode: number, span: Span): number {
    this.#begin(id, opcode, span)
    return this.device.postSend(this.queuePair, this.#requests)
  }

  #begin(id: number, opcode: number, span: Span): void {
    const requests = this.#requests
    const flags = (span.signaled === false ? 0 : sendFlag.signaled) | (span.inline === true ? sendFlag.inline : 0)
    const remoteKey = span.remoteKey ?? this.#peer?.memory.remoteKey ?? 0
    requests.clear()
    requests.begin(id >>> 0, Math.floor(id / 2 ** 32), opcode, flags, span.to ?? 0, remoteKey)
    for (const [at, length] of span.entries ?? [[span.at ?? 0, span.length]]) {
      requests.addSge(this.memory.address + at, length, span.key ?? this.memory.localKey)
    }
  }
}

/** Runs a case and closes whatever it opened, also when it failed. */
export function withRig(factory: DeviceFactory, run: (rig: Rig) => void): void {
  const rig = new Rig(factory)
  try {
    run(rig)
  } finally {
    rig.close()
  }
}

/** Compares contents; assertions that explain differences are too slow for megabytes. */
export function isSame(actual: Uint8Array, expected: Uint8Array): boolean {
  return Buffer.compare(actual, expected) === 0
}
