/**
 * The control plane's commands, one handler each. They run between turns on the engine's thread; what needs the provider or the peer
 * answers later. Failures are values with a stable code.
 */

import { isErrorCode } from '../../protocol/error-codes.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import { nodeFileGeometry, queuePairRow, sharedQueuePairRow } from '../../protocol/node-file.js'
import { queuePairState, receiveSlot, sendSlot } from '../../protocol/queue-pair-segment.js'
import { connectByService } from '../../protocol/wire.js'
import { Mapping } from '../../shm/mapping.js'
import { freeClaimedBy } from '../../shm/slot-state.js'
import type { Done, ProtectionDomain, ProviderFailure, RegisteredMemory } from '../provider/provider.js'
import { abandonPath, resumeJob } from './adoption.js'
import { beginRemoval } from './closure.js'
import { type EngineAnswer, type EngineArguments, type EngineCommandName, failureCodeOf } from './commands.js'
import { EngineCompletionQueue } from './completion-queue.js'
import { abandonConnect, acceptPending, beginConnect, sendReject } from './connection.js'
import { drainReceives, drainSends } from './drain.js'
import type { Engine } from './engine.js'
import { wrongLaneParameters } from './lane-parameters.js'
import { connectLane, createLane, destroyLane } from './lanes.js'
import { EngineQueuePair } from './queue-pair.js'
import { Region } from './region.js'
import { revokeEverywhere } from './remote-keys.js'

type Handlers = {
  [Name in EngineCommandName]: (engine: Engine, given: EngineArguments<Name>) => Promise<EngineAnswer<Name>>
}

const fail = (code: Parameters<typeof errorOf>[0], message: string): never => {
  throw errorOf(code, message)
}
const errorOf = (code: ConstructorParameters<typeof SharedVerbsError>[0], message: string): SharedVerbsError =>
  new SharedVerbsError(code, message)

/** What a thrown or rejected value means for the control plane. */
export function toFailure(error: unknown): { code: string; message: string } {
  if (error instanceof SharedVerbsError) return { code: error.code, message: error.message }
  if (isProviderFailure(error)) {
    const code = failureCodeOf[error.code]
    return { code: isErrorCode(code) ? code : 'internal-error', message: error.message }
  }
  return { code: 'internal-error', message: error instanceof Error ? (error.stack ?? error.message) : String(error) }
}

function isProviderFailure(error: unknown): error is ProviderFailure {
  return (
    typeof error === 'object' &&
    error !== null &&
    'code' in error &&
    'message' in error &&
    Object.hasOwn(failureCodeOf, String(error.code))
  )
}

function call<Result>(start: (done: Done<Result>) => void): Promise<Result> {
  return new Promise((resolve, reject) =>
    start((failure, result) => (failure || result === null ? reject(failure) : resolve(result))),
  )
}

function queuePairOf(engine: Engine, of: { number: number; generation: number }): EngineQueuePair {
  const queuePair = engine.queuePairs[of.number]
  if (!queuePair || queuePair.generation !== of.generation) {
    throw errorOf('no-such-object', `the engine knows no queue pair ${of.number} of generation ${of.generation}`)
  }
  return queuePair
}

const rowBase = (offset: number, rowByteLength: number, row: number): number => (offset + row * rowByteLength) / 8

export const handlers: Handlers = {
  'add-job': async (engine, { job, activity }) => {
    const mapping = Mapping.at(activity.address, activity.byteLength)
    const domain = await call<ProtectionDomain>((done) => engine.device.allocateProtectionDomain(done))
    engine.jobs.set(job, { number: job, activity: mapping, domain, members: new Map() })
    return null
  },
  'remove-job': async (engine, { job }) => {
    const row = engine.jobs.get(job)
    if (!row) return null
    engine.jobs.delete(job)
    for (const key of [...engine.groups.keys()]) if (Math.floor(key / 0x10000) === job) engine.groups.delete(key)
    for (const key of [...engine.datagramPaths.keys()])
      if (Math.floor(key / 0x10000) === job) engine.datagramPaths.delete(key)
    for (const key of [...engine.lostDatagramPaths])
      if (Math.floor(key / 0x10000) === job) engine.lostDatagramPaths.delete(key)
    engine.suspensions.forget(job, null)
    row.activity.close()
    await call<true>((done) => engine.device.freeProtectionDomain(row.domain, done))
    return null
  },
  'add-member': async (engine, { job, member, doorbell }) => {
    engine.doorbells[member] = doorbell
    engine.memberJobs[member] = job
    return null
  },
  'remove-member': async (engine, { member }) => {
    delete engine.doorbells[member]
    return null
  },
  'add-completion-queue': async (engine, given) => {
    engine.completionQueues[given.number] = new EngineCompletionQueue(
      given,
      Mapping.at(given.span.address, given.span.byteLength),
    )
    return null
  },
  'remove-completion-queue': async (engine, { number, generation }) => {
    const queue = engine.completionQueues[number]
    if (!queue || queue.generation !== generation) return null
    if (queue.users > 0)
      fail('busy', `completion queue ${number} is used by ${queue.users} queue pairs; close them first`)
    engine.completionQueues[number] = undefined
    engine.forgetQueue(queue)
    queue.mapping.close()
    return null
  },
  'add-queue-pair': async (engine, given) => {
    const sendQueue = engine.completionQueues[given.sendCompletionQueue]
    const receiveQueue = engine.completionQueues[given.receiveCompletionQueue]
    if (!sendQueue || !receiveQueue)
      throw errorOf('no-such-object', 'a completion queue of the new queue pair does not exist')
    const queuePair = new EngineQueuePair(
      given,
      Mapping.at(given.span.address, given.span.byteLength),
      sendQueue,
      receiveQueue,
    )
    const table = nodeFileGeometry.sections.queuePairs
    queuePair.counterBase = rowBase(table.offset, table.rowByteLength, given.number)
    queuePair.describe = (flow) => {
      queuePairRow.write(engine.nodeFile.memory, queuePair.counterBase * 8, {
        lane: flow.lane?.index ?? 0xffffffff,
        peerNumber: flow.remoteNumber,
        peerGeneration: flow.remoteGeneration,
        peerNode: flow.lane?.peerNode ?? engine.options.node,
        peer: flow.peer,
        laneIndex: flow.path?.index ?? 0,
        connected: 1,
      })
    }
    queuePair.onState = () => {
      const { state: condition, errorStatus } = queuePair
      queuePairRow.write(engine.nodeFile.memory, queuePair.counterBase * 8, { condition, errorStatus })
    }
    sendQueue.users++
    receiveQueue.users++
    engine.queuePairs[given.number] = queuePair
    if (given.adopt) engine.adopted.set(queuePair, given.adopt)
    else if (!queuePair.connected) queuePair.setState(queuePairState.connected)
    return null
  },
  'resume-job': async (engine, { job }) => ({ queuePairs: resumeJob(engine, job) }),
  'abandon-path': async (engine, { job, peer, trafficClass, reason }) => ({
    queuePairs: abandonPath(engine, job, peer, trafficClass, reason),
  }),
  'remove-queue-pair': (engine, given) => {
    const queuePair = engine.queuePairs[given.number]
    if (!queuePair || queuePair.generation !== given.generation) return Promise.resolve(null)
    if (queuePair.closing) throw errorOf('busy', `queue pair ${given.number} is being closed already`)
    abandonConnect(engine, queuePair, 'closed', `queue pair ${given.number} was closed while connecting`)
    return new Promise((resolve) =>
      beginRemoval(engine, queuePair, given.discard, () => {
        forgetQueuePair(engine, queuePair)
        resolve(null)
      }),
    )
  },
  'connect-queue-pair': (engine, given) => {
    const queuePair = queuePairOf(engine, given)
    if (!queuePair.connected)
      fail('invalid-argument', `queue pair ${given.number} is a datagram queue pair and is not connected`)
    if (queuePair.state !== queuePairState.idle || queuePair.closing)
      fail('already-connected', `queue pair ${given.number} is not idle`)
    const lane = given.lane === null ? null : engine.lanes[given.lane]
    if (lane === undefined || (lane && lane.state !== 'up'))
      fail('path-lost', `the lane to peer ${given.peer} is not up`)
    return new Promise((resolve, reject) => {
      const cookie = engine.nextCookie()
      const late = `the peer of queue pair ${given.number} did not accept within ${given.timeoutMs} ms`
      const patience = engine.timers.after(engine.nowMs, given.timeoutMs, () => {
        if (engine.connects.get(queuePair)?.cookie === cookie) abandonConnect(engine, queuePair, 'timeout', late)
      })
      beginConnect(engine, queuePair, lane ?? null, given.peer, given.remote, {
        queuePair,
        cookie,
        settle: (failure, remote) => {
          engine.timers.cancel(patience)
          if (remote) resolve(remote)
          else reject(errorOf(failureCode(failure), failure?.message ?? 'not connected'))
        },
      })
    })
  },
  'disconnect-queue-pair': async (engine, given) => {
    const queuePair = queuePairOf(engine, given)
    for (let visit = 0; visit < 64 && drainSends(engine, queuePair, 4096); visit++);
    const flow = queuePair.flow
    if (!flow || queuePair.state !== queuePairState.connected)
      fail('not-connected', `queue pair ${given.number} is not connected`)
    // What was posted before the disconnect is delivered first: the failure begins when the flow is quiet, or at the deadline.
    await new Promise<void>((resolve) => {
      const deadlineMs = engine.nowMs + given.timeoutMs
      const look = (): void => {
        const quiet = !flow || (flow.waiting.size === 0 && flow.inFlight.size === 0)
        if (quiet || engine.nowMs >= deadlineMs || queuePair.state !== queuePairState.connected) resolve()
        else engine.timers.after(engine.nowMs, 0.2, look)
      }
      look()
    })
    engine.failQueuePair(queuePair, 5, 'disconnected', true)
    return null
  },
  'accept-connection': async (engine, given) => {
    const accept = engine.accepts.get(given.connection)
    if (!accept)
      throw errorOf(
        'no-such-object',
        `connection request ${given.connection} is gone: the peer gave up or the path was lost`,
      )
    const queuePair = queuePairOf(engine, given)
    if (queuePair.state !== queuePairState.idle || !queuePair.connected)
      fail('already-connected', `queue pair ${given.number} cannot accept`)
    engine.accepts.delete(given.connection)
    acceptPending(engine, queuePair, accept)
    return { number: accept.number, generation: accept.generation, peer: accept.peer }
  },
  'reject-connection': async (engine, { connection, reason }) => {
    const accept = engine.accepts.get(connection)
    if (!accept) return null
    engine.accepts.delete(connection)
    const numbers = {
      sourceNumber: accept.number,
      sourceGeneration: accept.generation,
      destinationNumber: connectByService,
      destinationGeneration: 0,
    }
    sendReject(engine, accept.lane, numbers, accept.cookie, reason)
    return null
  },
  'add-datagram-path': async (engine, { job, peer, lane }) => {
    const known = lane === null ? null : engine.lanes[lane]
    if (known === undefined) throw errorOf('path-lost', `lane ${lane} does not exist`)
    engine.setDatagramPath(job, peer, known)
    return null
  },
  'add-region': async (engine, given) => {
    const job = engine.jobs.get(given.job)
    if (!job) throw errorOf('no-such-object', `job ${given.job} is not known`)
    const mapping = Mapping.at(given.span.address, given.span.byteLength)
    const region = new Region({ ...given, memory: mapping.memory })
    const rights = { localWrite: true, remoteRead: true, remoteWrite: true }
    const { address, byteLength } = given.span
    const file = { descriptor: given.descriptor, offset: 0 }
    region.registered = await call<RegisteredMemory>((done) =>
      engine.device.registerMemory(job.domain, address, byteLength, rights, done, file),
    )
    region.onDrop = () => mapping.close()
    engine.regions.set(region)
    return { deviceKey: region.registered.remoteKey }
  },
  'remove-region': async (engine, { number, generation }) => {
    const region = engine.regions.get(number)
    if (!region || region.generation !== generation) return null
    if (!region.removal) {
      engine.regions.close(region)
      region.removal = removeRegion(engine, region)
    }
    await region.removal
    return null
  },
  'create-lane': (engine, given) => {
    if (!engine.jobs.has(given.job)) throw errorOf('no-such-object', `job ${given.job} is not known`)
    if (engine.lanes[given.lane]) throw errorOf('busy', `lane ${given.lane} exists`)
    const wrong = wrongLaneParameters(given.parameters)
    if (wrong) throw errorOf('invalid-argument', wrong)
    return createLane(engine, { ...given, parameters: { ...given.parameters } })
  },
  'connect-lane': async (engine, given) => {
    const lane = engine.lanes[given.lane]
    if (!lane || lane.incarnation !== given.incarnation) throw errorOf('no-such-object', `lane ${given.lane} is gone`)
    await connectLane(engine, lane, given.remote, given.parameters, given.initiator, given.timeoutMs)
    const table = nodeFileGeometry.sections.sharedQueuePairs
    lane.row = table.offset + given.lane * sharedQueuePairRow.byteLength
    return null
  },
  'destroy-lane': async (engine, given) => {
    const lane = engine.lanes[given.lane]
    if (!lane || lane.incarnation !== given.incarnation) return null
    if (!(await destroyLane(engine, lane, given.orderly, given.reason))) fail('busy', `lane ${given.lane} is in use`)
    return null
  },
  'sweep-member': async (engine, { job, member }) => {
    let slotsSwept = 0
    for (const queuePair of engine.queuePairs) {
      if (queuePair?.job === job) slotsSwept += sweepQueuePair(engine, queuePair, member)
    }
    return { slotsSwept }
  },
  drain: (engine, { timeoutMs, handover }) => {
    engine.quiescing = true
    engine.handingOver = handover
    return new Promise((resolve) => {
      const deadlineMs = engine.nowMs + timeoutMs
      const look = (): void => {
        const outstanding = engine.outstanding(handover)
        if (outstanding > 0 && engine.nowMs < deadlineMs) {
          engine.timers.after(engine.nowMs, 1, look)
          return
        }
        if (outstanding > 0 && handover) engine.serveAgain()
        resolve({ outstanding })
      }
      look()
    })
  },
  stop: async (engine) => {
    engine.stopping = true
    return null
  },
}

type ErrorName = ConstructorParameters<typeof SharedVerbsError>[0]
function failureCode(failure: { code: string } | null): ErrorName {
  return failure && isErrorCode(failure.code) ? failure.code : 'connection-rejected'
}

async function removeRegion(engine: Engine, region: Region): Promise<void> {
  await new Promise<void>((resolve) => {
    region.onIdle = resolve
    revokeEverywhere(engine, region)
    region.settle()
  })
  if (region.registered) {
    await call<true>((done) => engine.device.deregisterMemory(region.registered!, done)).catch((failure: unknown) => {
      // A device that is gone holds no memory any more.
      if (!isProviderFailure(failure) || failure.code !== 'device-gone') throw failure
    })
  }
  engine.regions.delete(region)
  region.onDrop?.()
}

function forgetQueuePair(engine: Engine, queuePair: EngineQueuePair): void {
  engine.queuePairs[queuePair.number] = undefined
  engine.adopted.delete(queuePair)
  for (const flow of queuePair.everyFlow()) engine.dropFlow(flow)
  queuePair.sendQueue.users--
  queuePair.receiveQueue.users--
  queuePair.setState(queuePairState.closed)
  queuePair.mapping.close()
}

/** Rings first, to the end: what a dead member committed was posted. Then what it only claimed is free again. */
export function sweepQueuePair(engine: Engine, queuePair: EngineQueuePair, member: number): number {
  for (let visit = 0; visit < 64 && drainSends(engine, queuePair, 4096); visit++);
  for (let visit = 0; visit < 64 && drainReceives(engine, queuePair, 4096); visit++);
  const { geometry, memory, words } = queuePair
  let swept = 0
  for (let slot = 0; slot < geometry.sendSlots; slot++) {
    const word = queuePair.sendSlotWord(slot)
    if (freeClaimedBy(words, word, member, memory.i32[word + sendSlot.word.generation]!)) swept++
  }
  for (let slot = 0; slot < geometry.receiveSlots; slot++) {
    const word = queuePair.receiveSlotWord(slot)
    if (freeClaimedBy(words, word, member, memory.i32[word + receiveSlot.word.generation]!)) swept++
  }
  engine.tellRoom(queuePair)
  return swept
}
