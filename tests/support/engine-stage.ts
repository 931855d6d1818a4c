/**
 * A stage for engine tests: two nodes with one lane, or one node that talks to itself, and short ways to say who sends what to whom.
 * `left` and `right` are the same node on a local stage, so a case written for one runs on both.
 */
import type { ExecutionContext } from 'ava'
import type { EngineOptions } from '../../broker/engine/commands.js'
import type { Flow } from '../../broker/engine/flow.js'
import type { Lane } from '../../broker/engine/lane.js'
import type { FaultHooks } from '../../broker/provider/soft-faults.js'
import type { LaneParameters } from '../../protocol/link.js'
import { SLOT_FREE, stateOf } from '../../shm/slot-state.js'
import {
  addressOf,
  connect,
  EngineNode,
  type Entry,
  JOB,
  link,
  type TestCompletion,
  type TestCompletionQueue,
  type TestQueuePair,
  type TestRegion,
  turnDuring,
  turnToRest,
  turnUntil,
} from './engine-node.js'

/** One end of a conversation: a queue pair, its completion queue, memory, and what completed so far. */
export class End {
  readonly queuePair: TestQueuePair
  readonly queue: TestCompletionQueue
  readonly memory: TestRegion
  readonly done: TestCompletion[] = []

  constructor(queuePair: TestQueuePair, queue: TestCompletionQueue, memory: TestRegion) {
    this.queuePair = queuePair
    this.queue = queue
    this.memory = memory
  }

  get node(): EngineNode {
    return this.queuePair.node
  }

  get u8(): Uint8Array {
    return this.memory.mapping.memory.u8
  }

  /** Takes what completed; how many in all so far. */
  poll(): number {
    this.done.push(...this.queue.poll())
    return this.done.length
  }

  /** Part of this end's memory as a scatter/gather list of one entry. */
  at(offset: number, length: number): Entry[] {
    return [{ region: this.memory, offset, length }]
  }

  fill(offset: number, length: number, seed: number): void {
    const { u8 } = this
    for (let index = 0; index < length; index++) u8[offset + index] = pattern(seed, index)
  }

  /** Whether the bytes are those of `fill` with the same seed. */
  holds(offset: number, length: number, seed: number): boolean {
    const { u8 } = this
    for (let index = 0; index < length; index++) if (u8[offset + index] !== pattern(seed, index)) return false
    return true
  }

  /** `id status` of each completion, for comparison with a list. */
  get story(): string[] {
    return this.done.map(({ id, status }) => `${id} ${status}`)
  }
}

export const pattern = (seed: number, index: number): number => (seed * 31 + index * 7 + (index >>> 8) * 13) & 0xff

export interface EndOptions {
  readonly memoryByteLength?: number
  readonly queueCapacity?: number
  readonly queue?: TestCompletionQueue
  readonly sendSlots?: number
  readonly receiveSlots?: number
  readonly inlineByteLength?: number
  readonly rnrRetry?: number
  readonly rnrTimerMs?: number
  readonly rights?: number
}

export class Stage {
  readonly left: EngineNode
  readonly right: EngineNode
  readonly nodes: readonly EngineNode[]

  private constructor(t: ExecutionContext, left: EngineNode, right: EngineNode) {
    this.left = left
    this.right = right
    this.nodes = left === right ? [left] : [left, right]
    t.teardown(() => {
      for (const node of this.nodes) node.close()
    })
  }

  /** Two nodes with one lane between them. */
  static async remote(
    t: ExecutionContext,
    options: Partial<EngineOptions> = {},
    parameters: Partial<LaneParameters> = {},
    faults: readonly (FaultHooks | undefined)[] = [],
  ): Promise<Stage> {
    const stage = new Stage(
      t,
      await new EngineNode('alpha', options, faults[0]).start(),
      await new EngineNode('beta', options, faults[1]).start(),
    )
    await link(stage.left, stage.right, 0, parameters)
    return stage
  }

  static async local(t: ExecutionContext, options: Partial<EngineOptions> = {}): Promise<Stage> {
    const node = await new EngineNode('alpha', options).start()
    return new Stage(t, node, node)
  }

  get isLocal(): boolean {
    return this.left === this.right
  }

  /** The left node's end of the lane. */
  get lane(): Lane {
    return this.left.engine.lanes[0]!
  }

  async end(node: EngineNode, type: 'connected' | 'datagram', options: EndOptions = {}): Promise<End> {
    const { memoryByteLength = 1 << 16, queueCapacity = 256, rights = 15, queue, ...shape } = options
    const ring = queue ?? (await node.completionQueue(queueCapacity))
    const queuePair = await node.queuePair(ring, { type, ...shape })
    return new End(queuePair, ring, await node.region(memoryByteLength, rights))
  }

  /** Two connected queue pairs, left and right. */
  async pair(options: EndOptions = {}, rightOptions: EndOptions = options): Promise<[End, End]> {
    const left = await this.end(this.left, 'connected', options)
    const right = await this.end(this.right, 'connected', rightOptions)
    await connect(left.queuePair, right.queuePair)
    return [left, right]
  }

  /** A datagram queue pair on each side, with a path both ways. */
  async datagrams(options: EndOptions = {}, rightOptions: EndOptions = options): Promise<[End, End]> {
    await this.datagramPaths()
    return [await this.end(this.left, 'datagram', options), await this.end(this.right, 'datagram', rightOptions)]
  }

  async datagramPaths(): Promise<void> {
    if (this.isLocal) return
    for (const [node, peer] of [
      [this.left, this.right],
      [this.right, this.left],
    ] as const) {
      await node.call('add-datagram-path', { job: JOB, peer: node.peerOf(peer), lane: 0, trafficClass: 0 })
    }
  }

  async remove(end: End, discard = false): Promise<void> {
    const { number, generation } = end.queuePair
    await this.during(end.node.call('remove-queue-pair', { number, generation, discard, reason: 'test' }))
  }

  until(holds: () => boolean, what: string, timeoutMs?: number): Promise<void> {
    return turnUntil(this.nodes, holds, what, timeoutMs)
  }

  during<Result>(promise: Promise<Result>): Promise<Result> {
    return turnDuring(this.nodes, promise)
  }

  rest(timeoutMs?: number): Promise<void> {
    return turnToRest(this.nodes, timeoutMs)
  }

  /** A number of turns of each node, whether it would sleep or not. */
  turns(count: number): void {
    for (let turn = 0; turn < count; turn++) for (const node of this.nodes) node.turn()
  }

  /** Until both ends have completed so many. */
  async completed(counts: readonly (readonly [End, number])[], timeoutMs?: number): Promise<void> {
    const story = (): string => counts.map(([end, count]) => `${end.done.length}/${count}`).join(' ')
    const holds = (): boolean => counts.every(([end, count]) => end.poll() >= count)
    await this.until(holds, `completions ${counts.map(([, count]) => count).join(' and ')}`, timeoutMs).catch(
      (error) => {
        throw new Error(`${error.message}: ${story()}`)
      },
    )
  }
}

export const destination = addressOf

/** Everything that must be back where it was when nothing is under way. `posted`: receives that tests left posted, by queue pair. */
export function checkAtRest(
  t: ExecutionContext,
  nodes: readonly EngineNode[],
  posted = new Map<TestQueuePair, number>(),
): void {
  for (const node of nodes) {
    for (const queuePair of node.queuePairs.values()) {
      if (node.engine.queuePairs[queuePair.number] === undefined) continue
      t.is(
        busySlots(queuePair),
        posted.get(queuePair) ?? 0,
        `${node.name}: busy slots of queue pair ${queuePair.number}`,
      )
      const { flows, flow, receives } = node.engine.queuePairs[queuePair.number]!
      t.is(receives.size, posted.get(queuePair) ?? 0, `${node.name}: receives of queue pair ${queuePair.number}`)
      for (const each of flow ? [flow] : flows.values()) t.deepEqual(remains(each), nothing, `${node.name}: flow`)
    }
    for (const region of node.engine.regions) t.is(region.uses, 0, `${node.name}: uses of region ${region.number}`)
    for (const lane of node.engine.lanes) if (lane && lane.state !== 'failed') checkLane(t, node, lane)
    for (const group of node.engine.groups.values()) {
      for (const region of group.remoteRegions.values()) t.is(region.uses, 0, `${node.name}: remote uses`)
      t.is(group.keyWaiters.size, 0)
    }
    t.is(node.engine.timers.nextMs(0), Number.POSITIVE_INFINITY, `${node.name}: timers`)
    t.is(node.engine.outstanding(), 0)
    t.is(node.engine.device.counters.receiverNotReady, 0, `${node.name}: receiver-not-ready on the device`)
  }
}

function checkLane(t: ExecutionContext, node: EngineNode, lane: Lane): void {
  t.is(lane.state, 'up', `${node.name}: lane`)
  t.is(lane.outstanding, 0, `${node.name}: ledger`)
  t.is(lane.bulk.length + lane.bulkChunks + lane.readsOutstanding + lane.bulkPostedByteLength, 0, `${node.name}: bulk`)
  t.false(lane.hasScheduled || lane.hasControl || lane.hasNews, `${node.name}: lists of the lane`)
}

const nothing = {
  waiting: 0,
  inFlight: 0,
  flushed: 0,
  inbound: 0,
  announced: 0,
  unposted: 0,
  atomics: 0,
  resending: false,
}

function remains(flow: Flow): typeof nothing {
  return {
    waiting: flow.waiting.size,
    inFlight: flow.inFlight.size,
    flushed: flow.flushed.size,
    inbound: flow.inbound.size,
    announced: flow.announced,
    unposted: flow.unposted,
    atomics: flow.atomicsOutstanding,
    resending: flow.resending,
  }
}

/** Slots of either side that are not free. */
export function busySlots(queuePair: TestQueuePair): number {
  const { geometry, mapping } = queuePair
  let busy = 0
  for (let slot = 0; slot < geometry.sendSlots; slot++) {
    const word = (geometry.sendSlotsOffset + slot * geometry.sendSlotByteLength) / 4
    if (stateOf(mapping.words.load(word)) !== SLOT_FREE) busy++
  }
  for (let slot = 0; slot < geometry.receiveSlots; slot++) {
    const word = (geometry.receiveSlotsOffset + slot * geometry.receiveSlotByteLength) / 4
    if (stateOf(mapping.words.load(word)) !== SLOT_FREE) busy++
  }
  return busy
}

/** Reproducible choices: a seed that a failing test prints brings them back. */
export class Choices {
  readonly seed: number
  #state: number

  constructor(seed: number) {
    this.seed = seed
    this.#state = (seed ^ 0x9e3779b9) >>> 0 || 1
  }

  /** 32 bits. */
  word(): number {
    let state = this.#state
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    this.#state = state >>> 0
    return this.#state
  }

  below(bound: number): number {
    return this.word() % bound
  }

  chance(of: number): boolean {
    return this.below(of) === 0
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)]!
  }
}
