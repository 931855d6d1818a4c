/**
 * Engines turned by hand: one `EngineNode` is a broker's engine with its soft device, without threads, sockets or a control plane. Clients
 * are played by writing slots as the SDK does. Tests crank `turnAll` until something holds.
 */

import { resumeJob } from '../../broker/engine/adoption.js'
import { handlers } from '../../broker/engine/command-handlers.js'
import type { EngineAnswer, EngineArguments, EngineCommandName, EngineOptions } from '../../broker/engine/commands.js'
import type { Engine } from '../../broker/engine/engine.js'
import { Engine as EngineClass } from '../../broker/engine/engine.js'
import { defaultLaneParameters } from '../../broker/engine/lane-parameters.js'
import { type Device, type DeviceCapabilities, noPathChoice } from '../../broker/provider/provider.js'
import type { FaultHooks } from '../../broker/provider/soft-faults.js'
import { brokerPageGeometry } from '../../protocol/broker-page.js'
import { completionQueueGeometry } from '../../protocol/completion-queue-segment.js'
import { packKey } from '../../protocol/keys.js'
import { nodeFileGeometry, peerRow, queuePairRow } from '../../protocol/node-file.js'
import { queuePairGeometry, queuePairState, queuePairType } from '../../protocol/queue-pair-segment.js'
import { activityLayout } from '../../shm/activity.js'
import { clock, closeDescriptor, eventfdCreate } from '../../shm/libc.js'
import { Mapping } from '../../shm/mapping.js'
import { TestCompletionQueue, TestQueuePair, type TestRegion } from './engine-client.js'
import { openEngineDevice, patience, stillMs } from './engine-device.js'

export type {
  Entry,
  TestCompletion,
  TestCompletionQueue,
  TestQueuePair,
  TestRegion,
  TestSend,
} from './engine-client.js'

export const JOB = 1
const ARENA_BYTES = 1 << 22
/** Rounds in which everybody sleeps before it counts as an end: bytes in a kernel's socket need a moment. */
const STILL_ROUNDS = 20

export class EngineNode {
  readonly name: string
  engine: Engine
  readonly activity: Mapping
  readonly nodeFile: Mapping
  readonly events: { name: string; body: unknown }[] = []
  readonly queuePairs = new Map<number, TestQueuePair>()
  readonly doorbell = eventfdCreate()
  readonly #mappings: Mapping[] = []
  readonly #peers: string[] = []
  #arena: Mapping | null = null
  #arenaUsed = 0
  #next = 1
  #idleTurns = 0
  #epoch = 0
  readonly #open: () => Engine
  /** What a successor is told to adopt, in the order in which it was made. */
  readonly #made: (() => Promise<unknown>)[] = []

  /** Asleep as a broker is: it turns again only for what would wake it. */
  #asleep = false
  #wakeAtMs = 0

  constructor(
    name: string,
    options: Partial<EngineOptions> = {},
    faults?: FaultHooks,
    limits?: Partial<DeviceCapabilities>,
  ) {
    this.name = name
    const nodeFile = this.#map('node', nodeFileGeometry.byteLength)
    const page = this.#map('page', brokerPageGeometry.byteLength)
    const full = (): EngineOptions => ({
      provider: 'soft',
      device: null,
      path: noPathChoice,
      host: '127.0.0.1',
      port: 0,
      node: name,
      epoch: ++this.#epoch,
      nodeFile: { address: nodeFile.address, byteLength: nodeFile.byteLength },
      brokerPage: { address: page.address, byteLength: page.byteLength },
      doorbell: this.doorbell,
      idle: 'block',
      bounceByteLength: 4096,
      bounceCount: 16,
      bulkWindowByteLength: 1 << 20,
      faults: '',
      ...options,
    })
    const device = (): Device => openEngineDevice(name, faults, limits)
    this.nodeFile = nodeFile
    const ports = {
      emit: (event: string, body: unknown) => {
        this.events.push({ name: event, body })
      },
    }
    this.#open = () => new EngineClass(full(), device(), nodeFile, ports)
    this.engine = this.#open()
    this.activity = this.#map('activity', activityLayout.byteLength)
  }

  #map(name: string, byteLength: number): Mapping {
    const mapping = Mapping.create(name, byteLength)
    this.#mappings.push(mapping)
    return mapping
  }

  /** Small segments share files, or a thousand queue pairs would need a thousand descriptors. */
  #carve(byteLength: number): Mapping {
    const wanted = Math.ceil(byteLength / 64) * 64
    if (!this.#arena || this.#arenaUsed + wanted > this.#arena.byteLength) {
      this.#arena = this.#map('arena', Math.max(ARENA_BYTES, wanted))
      this.#arenaUsed = 0
    }
    const mapping = Mapping.at(this.#arena.address + this.#arenaUsed, wanted)
    this.#arenaUsed += wanted
    return mapping
  }

  call<Name extends EngineCommandName>(name: Name, given: EngineArguments<Name>): Promise<EngineAnswer<Name>> {
    const run = handlers[name] as (engine: Engine, given: EngineArguments<Name>) => Promise<EngineAnswer<Name>>
    this.#asleep = false
    return run(this.engine, given)
  }

  /** Row of another node in this one's table of peers; 0 is this node itself. */
  peerOf(other: EngineNode): number {
    if (other === this) return 0
    const known = this.#peers.indexOf(other.name)
    if (known >= 0) return known + 1
    const row = this.#peers.push(other.name)
    const { offset, rowByteLength } = nodeFileGeometry.sections.peers
    peerRow.write(this.nodeFile.memory, offset + row * rowByteLength, { state: 1, node: other.name })
    return row
  }

  /** A number that no object of this node has. */
  takeNumber(): number {
    return this.#next++
  }

  async start(): Promise<this> {
    await this.call('add-job', {
      job: JOB,
      activity: { address: this.activity.address, byteLength: this.activity.byteLength },
    })
    return this
  }

  async completionQueue(capacity = 1024): Promise<TestCompletionQueue> {
    const number = this.#next++
    const geometry = completionQueueGeometry(capacity)
    const mapping = this.#carve(geometry.byteLength)
    await this.#make(() =>
      this.call('add-completion-queue', {
        number,
        generation: 1,
        job: JOB,
        span: mapping,
        capacity: geometry.capacity,
      }),
    )
    return new TestCompletionQueue(this, number, mapping, geometry.capacity)
  }

  async queuePair(
    queue: TestCompletionQueue,
    options: Partial<EngineArguments<'add-queue-pair'>> = {},
  ): Promise<TestQueuePair> {
    const number = this.#next++
    const shape = {
      type: 'connected' as 'connected' | 'datagram',
      sendSlots: 64,
      receiveSlots: 64,
      inlineByteLength: 64,
      ...options,
    }
    const geometry = queuePairGeometry({
      ...shape,
      type: shape.type === 'connected' ? queuePairType.connected : queuePairType.datagram,
    })
    const mapping = this.#carve(geometry.byteLength)
    const given = {
      number,
      generation: 1,
      job: JOB,
      span: mapping,
      sendCompletionQueue: queue.number,
      receiveCompletionQueue: queue.number,
      rnrRetry: 7,
      rnrTimerMs: 1,
      trafficClass: 0,
      adopt: null,
      ...shape,
    }
    await this.call('add-queue-pair', given)
    this.#made.push(() => this.#adopt(given))
    const queuePair = new TestQueuePair(this, number, mapping, geometry)
    this.queuePairs.set(number, queuePair)
    return queuePair
  }

  async region(byteLength: number, rights = 15): Promise<TestRegion> {
    const number = this.#next++
    const mapping = this.#map('region', byteLength)
    await this.#make(() =>
      this.call('add-region', {
        number,
        generation: 1,
        job: JOB,
        span: mapping,
        descriptor: mapping.fd,
        byteLength,
        rights,
      }),
    )
    return { key: packKey(number, 1), mapping }
  }

  async #make(make: () => Promise<unknown>): Promise<void> {
    await make()
    this.#made.push(make)
  }

  async #adopt(given: EngineArguments<'add-queue-pair'>): Promise<void> {
    const { offset, rowByteLength } = nodeFileGeometry.sections.queuePairs
    const row = queuePairRow.read(this.nodeFile.memory, offset + given.number * rowByteLength)
    const { condition: state, errorStatus, peer, laneIndex: lane, peerNumber, peerGeneration } = row
    if (state === queuePairState.closed) return
    const connection = row.connected === 0 ? null : { peer, lane, number: peerNumber, generation: peerGeneration }
    await this.call('add-queue-pair', { ...given, adopt: { state, errorStatus, connection } })
  }

  /**
   * The broker died at whatever step it was; its successor adopts what is left. Lanes are made anew by the caller. `dies` runs the adoption
   * and says whether the successor died as well: then another one comes.
   */
  async restart(dies: (adopt: () => void) => boolean = () => false): Promise<void> {
    do {
      this.engine.device.close()
      this.engine = this.#open()
      this.#idleTurns = 0
      await this.start()
      for (const make of this.#made) await make()
    } while (dies(() => resumeJob(this.engine, JOB)))
    await this.call('resume-job', { job: JOB })
    await this.call('abandon-path', { job: JOB, peer: 0, trafficClass: null, reason: 'it was not presented' })
  }

  turn(): number {
    const work = this.engine.turn(clock.nowMs(), this.#idleTurns)
    this.#idleTurns = work === 0 ? this.#idleTurns + 1 : 0
    return work
  }

  /**
   * One turn as the broker's loop makes it: after an idle turn that found nothing it sleeps, and what would not wake it does not turn it.
   * So a wake-up that the engine misses shows as a test that stands still.
   */
  step(): void {
    const nowMs = clock.nowMs()
    if (this.#asleep && !this.#isWoken() && nowMs < this.#wakeAtMs) return
    this.#asleep = false
    const idle = this.#idleTurns > 0
    if (this.turn() > 0 || !idle || this.#isWoken()) return
    this.#asleep = true
    this.#wakeAtMs = nowMs + this.engine.nextDueMs(nowMs)
  }

  #isWoken(): boolean {
    return this.engine.restless || !this.engine.device.prepareSleep()
  }

  /** Whether it sleeps without a timer: only somebody else can wake it. */
  get rests(): boolean {
    return this.#asleep && this.engine.nextDueMs(clock.nowMs()) === Number.POSITIVE_INFINITY
  }

  close(): void {
    this.engine.device.close()
    for (const mapping of this.#mappings) mapping.close()
    closeDescriptor(this.doorbell)
  }
}

const breath = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/**
 * Turns engines until `holds`; promises of commands go on in between. Fails at `timeoutMs`, or at once when every engine sleeps and
 * nothing can wake any of them.
 */
export async function turnUntil(
  nodes: readonly EngineNode[],
  holds: () => boolean,
  what: string,
  timeoutMs = 30_000,
): Promise<void> {
  const deadlineMs = clock.nowMs() + timeoutMs * patience
  let still = 0
  let busyMs = clock.nowMs()
  for (let round = 0; !holds(); round++) {
    for (const node of nodes) node.step()
    still = nodes.every((node) => node.rests) ? still + 1 : 0
    if (still === 0) busyMs = clock.nowMs()
    if (round % 16 === 0 || still > 0) await breath()
    if (still > STILL_ROUNDS && clock.nowMs() - busyMs >= stillMs)
      throw new Error(`all engines sleep and nothing will wake them: ${what}`)
    if (clock.nowMs() > deadlineMs) throw new Error(`not within ${timeoutMs} ms: ${what}`)
  }
}

/** Turns engines until all of them sleep and nothing is due. */
export async function turnToRest(nodes: readonly EngineNode[], timeoutMs = 30_000): Promise<void> {
  let still = 0
  let busyMs = clock.nowMs()
  await turnUntil(
    nodes,
    () => {
      still = nodes.every((node) => node.rests) ? still + 1 : 0
      if (still === 0) busyMs = clock.nowMs()
      return still > STILL_ROUNDS / 2 && clock.nowMs() - busyMs >= stillMs / 10
    },
    'everything comes to rest',
    timeoutMs,
  )
}

/** Awaits a command while the engines turn. */
export async function turnDuring<Result>(nodes: readonly EngineNode[], promise: Promise<Result>): Promise<Result> {
  let settled = false
  const watched = promise.finally(() => {
    settled = true
  })
  watched.catch(() => {})
  await turnUntil(nodes, () => settled, 'a command was answered')
  return watched
}

/** One lane of the test job between two nodes. */
export async function link(
  left: EngineNode,
  right: EngineNode,
  lane = 0,
  change: Partial<ReturnType<typeof defaultLaneParameters>> = {},
): Promise<void> {
  const parameters = { ...defaultLaneParameters(left.engine.device, left.engine.options), ...change }
  await linkAgain(left, right, lane, parameters, 1)
}

/** As `link`, for a lane row that was used before. */
export async function linkAgain(
  left: EngineNode,
  right: EngineNode,
  lane: number,
  parameters: ReturnType<typeof defaultLaneParameters>,
  incarnation: number,
  index = lane,
): Promise<void> {
  const nodes = [left, right]
  const make = (node: EngineNode, peer: EngineNode) =>
    turnDuring(
      nodes,
      node.call('create-lane', {
        lane,
        job: JOB,
        peer: node.peerOf(peer),
        peerNode: peer.name,
        incarnation,
        shared: incarnation,
        index,
        trafficClass: 0,
        parameters,
      }),
    )
  const leftAddress = await make(left, right)
  const rightAddress = await make(right, left)
  const connect = (node: EngineNode, remote: typeof leftAddress, initiator: boolean) =>
    node.call('connect-lane', { lane, incarnation, remote, parameters, initiator, timeoutMs: 5000 * patience })
  await turnDuring(nodes, Promise.all([connect(left, rightAddress, true), connect(right, leftAddress, false)]))
}

/** One end's connect to another queue pair: over a lane, or on one node. */
export function connectTo(
  from: TestQueuePair,
  to: TestQueuePair,
  lane = 0,
  timeoutMs = 5000 * patience,
): Promise<EngineAnswer<'connect-queue-pair'>> {
  return from.node.call('connect-queue-pair', {
    number: from.number,
    generation: from.generation,
    lane: from.node === to.node ? null : lane,
    peer: from.node.peerOf(to.node),
    remote: { number: to.number, generation: to.generation },
    timeoutMs,
  })
}

/** Connects two queue pairs, both ends at once. */
export async function connect(left: TestQueuePair, right: TestQueuePair, lane = 0): Promise<void> {
  const both = left === right ? [connectTo(left, right)] : [connectTo(left, right, lane), connectTo(right, left, lane)]
  await turnDuring([left.node, right.node], Promise.all(both))
}

/** Where a datagram queue pair sends to reach `to`. */
export function addressOf(from: EngineNode, to: TestQueuePair): { node: number; number: number; generation: number } {
  return { node: from.peerOf(to.node), number: to.number, generation: to.generation }
}
