/**
 * Lanes through their life: create (provider queue pair, memory), connect (ready-to-receive, ready-to-send, probe), completions, failure,
 * destruction. Completion queues of the provider are pooled; each is sized for every request outstanding on its lanes, signaled or not,
 * because all of them complete when a lane fails.
 */

import type { LaneParameters } from '../../protocol/link.js'
import { counterIndex } from '../../protocol/node-file.js'
import { status, statusName } from '../../protocol/statuses.js'
import { mapAnonymous, munmap, view } from '../../shm/libc.js'
import { Memory } from '../../shm/memory.js'
import type {
  Device,
  Done,
  ProviderCompletionQueue,
  ProviderFailure,
  ProviderQueuePair,
  QueuePairAddress,
  QueuePairAttributes,
  RegisteredMemory,
} from '../provider/provider.js'
import { chunkSettled } from './bulk.js'
import { takeFrame } from './dispatch.js'
import type { Engine } from './engine.js'
import { Lane } from './lane.js'
import { LaneGroup } from './lane-group.js'
import { pathKey } from './lane-path.js'
import { laneIdIncarnation, laneIdIndex, laneIdIsReceive, laneSizes } from './lane-sizes.js'
import { askAgain, dropGroup } from './remote-keys.js'
import type { SendRequest } from './request.js'
import { suspendFlow } from './suspend.js'

const POOL_CAPACITY = 32_767
const POLLS_PER_TURN = 8

export interface CompletionPool {
  readonly queue: ProviderCompletionQueue
  used: number
}

/** A control call of the provider as a promise; only cold paths use it. */
function call<Result>(start: (done: Done<Result>) => void): Promise<Result> {
  return new Promise((resolve, reject) => {
    start((failure, result) => (failure || result === null ? reject(failure ?? unexpected()) : resolve(result)))
  })
}
const unexpected = (): ProviderFailure => ({ code: 'invalid', message: 'the provider answered nothing' })

export async function createLane(
  engine: Engine,
  of: {
    lane: number
    job: number
    peer: number
    peerNode: string
    incarnation: number
    shared: number
    trafficClass: number
    index: number
    parameters: LaneParameters
  },
): Promise<QueuePairAddress> {
  const { device } = engine
  const sizes = laneSizes(of.parameters)
  const domain = engine.jobs.get(of.job)!.domain
  const address = mapAnonymous(sizes.byteLength)
  const depth = sizes.sendDepth + of.parameters.bounceCount
  let registered: RegisteredMemory | null = null
  let poolIndex = -1
  try {
    const rights = { localWrite: true, remoteRead: false, remoteWrite: false }
    registered = await call<RegisteredMemory>((done) =>
      device.registerMemory(domain, address, sizes.byteLength, rights, done),
    )
    poolIndex = await takePool(engine, depth)
    const { queue } = engine.pools[poolIndex]!
    const limits = {
      sendDepth: sizes.sendDepth,
      receiveDepth: of.parameters.bounceCount,
      scatterGather: 1,
      inlineByteLength: 0,
    }
    const queuePair = await call<ProviderQueuePair>((done) =>
      device.createQueuePair(domain, queue, queue, limits, done),
    )
    const lane = new Lane({
      index: of.lane,
      incarnation: of.incarnation,
      job: of.job,
      peer: of.peer,
      peerNode: of.peerNode,
      group: groupOf(engine, of.job, of.peer),
      path: { job: of.job, peer: of.peer, trafficClass: of.trafficClass, index: of.index },
      shared: of.shared,
      parameters: of.parameters,
      queuePair,
      memory: new Memory(view(address, sizes.byteLength), address),
      registered,
      queueIndex: poolIndex,
    })
    engine.lanes[of.lane] = lane
    postBounceBuffers(device, lane)
    return device.addressOf(queuePair)
  } catch (failure) {
    if (poolIndex >= 0) engine.pools[poolIndex]!.used -= depth
    if (registered) await call<true>((done) => device.deregisterMemory(registered!, done)).catch(() => {})
    munmap(address, sizes.byteLength)
    throw failure
  }
}

async function takePool(engine: Engine, depth: number): Promise<number> {
  const fitting = engine.pools.findIndex((pool) => pool.used + depth <= pool.queue.capacity)
  if (fitting >= 0) {
    engine.pools[fitting]!.used += depth
    return fitting
  }
  const capacity = Math.min(POOL_CAPACITY, Math.max(depth, engine.device.capabilities.maxCompletionQueueDepth))
  const queue = await call<ProviderCompletionQueue>((done) => engine.device.createCompletionQueue(capacity, done))
  engine.pools.push({ queue, used: depth })
  return engine.pools.length - 1
}

function groupOf(engine: Engine, job: number, peer: number): LaneGroup {
  const key = job * 0x10000 + peer
  let group = engine.groups.get(key)
  if (!group) {
    group = new LaneGroup(job, peer)
    engine.groups.set(key, group)
  }
  return group
}

function postBounceBuffers(device: Device, lane: Lane): void {
  for (let buffer = 0; buffer < lane.bounceCount; buffer++) addBounce(lane, buffer)
  device.postReceive(lane.queuePair, lane.receiveBatch)
  lane.receiveBatch.clear()
}

function addBounce(lane: Lane, buffer: number): void {
  lane.receiveBatch.begin(buffer, lane.receiveIdHigh, 0, 0, 0, 0)
  lane.receiveBatch.addSge(
    lane.memory.address + lane.bounceOffset(buffer),
    lane.bounceByteLength,
    lane.registered.localKey,
  )
}

/** Settles when a probe longer than two MTUs went both ways. */
export async function connectLane(
  engine: Engine,
  lane: Lane,
  remote: QueuePairAddress,
  parameters: LaneParameters,
  initiator: boolean,
  timeoutMs: number,
): Promise<void> {
  const { device } = engine
  const attributes: QueuePairAttributes = {
    readsInitiated: parameters.readsInitiated,
    readsAccepted: parameters.readsAccepted,
    pathMtu: parameters.mtu,
    // 2.1 s × 7: longer than the brokers' heartbeats take to decide who is dead, which is theirs to decide (verbs-semantics H16). A machine
    // with more runnable processes than cores keeps an engine waiting for seconds.
    timeoutExponent: 19,
    retryCount: 6,
    rnrRetryCount: 7,
    rnrTimerMs: 1,
    trafficClass: parameters.trafficClass,
  }
  lane.agree(parameters)
  lane.initiator = initiator
  const up = new Promise<void>((resolve, reject) => {
    lane.onUp = (failure) =>
      failure === null ? resolve() : reject({ code: 'unreachable', message: failure } satisfies ProviderFailure)
  })
  // The lane may be lost while the provider is still asked: nobody waits for the probe then.
  up.catch(() => {})
  // The peer's probe may arrive as soon as the provider is ready, before this function goes on.
  lane.state = 'opening'
  lane.group.lanes.add(lane)
  await call<true>((done) => device.toReadyToReceive(lane.queuePair, remote, attributes, done))
  await call<true>((done) => device.toReadyToSend(lane.queuePair, attributes, done))
  // Not earlier: the peer's probe may have been taken meanwhile, and a device that is not ready to send refuses the answer.
  lane.mayPost = true
  if (initiator) lane.probeDue = true
  engine.markBusy(lane)
  const patience = engine.timers.after(engine.nowMs, timeoutMs, () => {
    if (lane.state !== 'opening') return
    lane.onUp?.(`no probe came back from ${lane.peerNode} within ${timeoutMs} ms`)
    lane.onUp = null
  })
  await up.finally(() => engine.timers.cancel(patience))
}

/** Takes the provider's completions: retires what was sent, handles frames, gives bounce buffers back. */
export function takeCompletions(engine: Engine): number {
  let work = 0
  for (let index = 0; index < engine.pools.length; index++) {
    const { queue } = engine.pools[index]!
    for (let polls = 0; polls < POLLS_PER_TURN; polls++) {
      const batch = engine.completions
      batch.count = 0
      const count = engine.device.poll(queue, batch)
      for (let at = 0; at < count; at++) takeCompletion(engine, at)
      repost(engine)
      work += count
      if (count < batch.capacity) break
    }
  }
  return work
}

function takeCompletion(engine: Engine, at: number): void {
  const { completions } = engine
  const idHigh = completions.idHigh[at]!
  const lane = engine.lanes[laneIdIndex(idHigh)]
  // A late completion of a lane that is gone, or of its predecessor in the row, reaches nobody.
  if (lane === undefined || (lane.incarnation & 0x7fff) !== laneIdIncarnation(idHigh) || lane.state === 'failed') return
  const verdict = completions.status[at]!
  if (verdict !== status.success) {
    if (lane.state !== 'closing') engine.failLane(lane, `the device reports ${statusName(verdict)}`)
    return
  }
  if (!laneIdIsReceive(idHigh)) {
    lane.retire(completions.idLow[at]!, settler(engine))
    if (lane.bulk.length > 0 || lane.hasScheduled || lane.hasControl || lane.hasNews) engine.markBusy(lane)
    return
  }
  // What follows a frame that broke the protocol is not looked at.
  if (lane.failing) return
  const buffer = completions.idLow[at]!
  if (!takeFrame(engine, lane, lane.bounceOffset(buffer), completions.byteLength[at]!)) {
    engine.counters[counterIndex['protocol-errors']]!++
    engine.failLane(lane, 'the peer broke the lane protocol')
    return
  }
  if (lane.receiveBatch.count === 0) engine.emptiedLanes.push(lane)
  addBounce(lane, buffer)
  engine.markBusy(lane)
}

let settlerEngine: Engine | null = null
let settle: (request: SendRequest) => void = () => {}

/** The callback for retired chunks, made once for each engine. */
function settler(engine: Engine): (request: SendRequest) => void {
  if (settlerEngine !== engine) {
    settlerEngine = engine
    settle = (request) => chunkSettled(engine, request)
  }
  return settle
}

/** Bounce buffers go back before anybody is told that they did. */
function repost(engine: Engine): void {
  for (const lane of engine.emptiedLanes) {
    const { count } = lane.receiveBatch
    engine.device.postReceive(lane.queuePair, lane.receiveBatch)
    lane.receiveBatch.clear()
    lane.consumed = (lane.consumed + count) | 0
  }
  engine.emptiedLanes.length = 0
}

/**
 * The lane is broken. Fence first: our end goes to error, so nothing of the old incarnation can arrive or leave any more; then its flows
 * wait for a successor (suspend.ts).
 */
export function breakLane(engine: Engine, lane: Lane, reason: string): void {
  if (lane.state === 'failed' || engine.lanes[lane.index] !== lane) return
  const announce = lane.state !== 'closing'
  lane.state = 'failed'
  if (announce) engine.counters[counterIndex['lane-failures']]!++
  engine.device.toError(lane.queuePair, () => {})
  leaveGroup(engine, lane)
  if (lane.asking) engine.timers.cancel(lane.asking)
  if (lane.framesReceived + lane.framesSent > 0) engine.suspensions.remember(lane.path, lane)
  for (const flow of [...lane.flows]) suspendFlow(engine, lane, flow, reason)
  lane.flows.clear()
  lane.bulk.length = 0
  lane.onUp?.(reason)
  lane.onUp = null
  for (const [connection, accept] of engine.accepts) if (accept.lane === lane) engine.accepts.delete(connection)
  if (engine.datagramPaths.get(pathKey(lane.job, lane.peer)) === lane) engine.loseDatagramPath(lane.job, lane.peer)
  if (announce) engine.ports.emit('lane-failed', { lane: lane.index, incarnation: lane.incarnation, reason })
}

function leaveGroup(engine: Engine, lane: Lane): void {
  lane.group.lanes.delete(lane)
  if (lane.group.lanes.size === 0) dropGroup(engine, lane.group)
  else askAgain(engine, lane.group)
}

/** Destroys a lane; with `orderly` refused (false) unless nothing is in flight and no flow is bound to it. */
export async function destroyLane(engine: Engine, lane: Lane, orderly: boolean, reason: string): Promise<boolean> {
  if (orderly) {
    if (lane.state !== 'failed' && isLoaded(lane)) return false
    lane.state = 'closing'
  }
  if (lane.state !== 'failed') breakLaneQuietly(engine, lane, reason)
  // Asked twice, it goes once: its memory may be somebody else's by the second time.
  lane.destruction ??= dismantle(engine, lane)
  await lane.destruction
  return true
}

async function dismantle(engine: Engine, lane: Lane): Promise<void> {
  const { device } = engine
  await call<true>((done) => device.toError(lane.queuePair, done)).catch(() => {})
  await call<true>((done) => device.destroyQueuePair(lane.queuePair, done)).catch(() => {})
  await call<true>((done) => device.deregisterMemory(lane.registered, done)).catch(() => {})
  engine.pools[lane.queueIndex]!.used -= lane.sendDepth + lane.bounceCount
  munmap(lane.memory.address, lane.memory.byteLength)
  if (engine.lanes[lane.index] === lane) engine.lanes[lane.index] = undefined
}

/** Something is under way, or a connected queue pair is bound to it. Idle datagram flows give way; they come back by themselves. */
function isLoaded(lane: Lane): boolean {
  for (const flow of lane.flows) if (flow.connected || !flow.idle || flow.acknowledgementDue) return true
  return lane.outstanding > 0 || lane.hasControl || lane.hasScheduled
}

/** As a failure, but asked for: nobody is told again. */
function breakLaneQuietly(engine: Engine, lane: Lane, reason: string): void {
  if (lane.state !== 'closing') lane.state = 'closing'
  breakLane(engine, lane, reason)
}
