/**
 * Credit of one lane: two sides, real `Lane` objects and the real `takeFrame`, frames in flight between them. Each side has data and control
 * messages to send, every one a frame of its own, tells what it consumed by the engine's rules, and takes, uses and posts again its bounce
 * buffers at any time. The lane can be lost at any step; both sides then begin another one, and what did not arrive goes again.
 *
 *   H1   never more frames than the other side has bounce buffers for
 *   H5   at rest everything has arrived: nobody waits for credit that nobody can give
 *
 * Numbers of frames run for ever, so a state keeps them relative to what each side has received.
 */
import { laneHeader, messageType } from '../../protocol/wire.js'
import { Memory } from '../../shm/memory.js'
import type { Bounds, Scenario, Scene } from '../support/explorer.js'
import type { ActorSpec, Operation } from '../support/explorer-actor.js'
import { check } from '../support/explorer-runner.js'
import { World } from '../support/explorer-world.js'
import type { Code } from './load.js'

export interface CreditOptions {
  /** Bounce buffers of each side. */
  readonly buffers: readonly [number, number]
  /** Messages of each side. */
  readonly data: readonly [number, number]
  readonly control: readonly [number, number]
  /** Wrongly, a new lane begins with what the other side had promised on the old one. */
  readonly keepsCredit?: boolean
}

export function creditScenario(code: Code, name: string, options: CreditOptions, bounds: Bounds): Scenario {
  return { name, bounds, scene: () => creditScene(code, options) }
}

type Lane = InstanceType<Code['Lane']>

const kind = { data: 0, control: 1, acknowledgement: 2 } as const
interface Frame {
  readonly kind: number
  readonly news: boolean
  readonly limit: number
}

/** One side, and the frames on their way to it. */
interface Side {
  lastSequence: number
  peerLimit: number
  lastReceived: number
  consumed: number
  advertisedLimit: number
  consumedNews: number
  /** Not sent yet on this lane, by kind; not received yet on any lane. */
  readonly left: [number, number]
  readonly missing: [number, number]
  /** Deliveries are to be acknowledged. */
  newsDue: number
  /** Buffers with a frame that was taken and not posted again. */
  used: number
  readonly arriving: Frame[]
}

/** Where the fields of a side lie; the frames follow. */
const [LAST_SEQUENCE, PEER_LIMIT, CONSUMED, ADVERTISED, CONSUMED_NEWS] = [0, 1, 2, 3, 4]
const [LEFT, MISSING, NEWS_DUE, USED, ARRIVING, FIELDS] = [5, 7, 9, 10, 11, 12]
const FRAME_BYTES = 256
const other = (side: number): number => 1 - side

function creditScene(code: Code, { buffers, data, control, keepsCredit = false }: CreditOptions): Scene {
  const most = Math.max(...buffers) * 2 + 2
  const width = FIELDS + most
  const world = new World(2, 2 * width)
  const base = world.reserve(2 * width)
  const lanes = [laneOf(0), laneOf(1)] as const
  const counters = { counters: new Float64Array(256) } as unknown as Parameters<Code['takeFrame']>[0]

  function laneOf(side: number): Lane {
    const parameters = (bounceCount: number): Lane['parameters'] => ({
      providerKind: 'soft',
      readsInitiated: 1,
      readsAccepted: 1,
      bounceByteLength: FRAME_BYTES,
      bounceCount,
      chunkByteLength: 4096,
      mtu: 4096,
      trafficClass: 0,
      atomicWindow: 1,
      maxMessageByteLength: 1 << 30,
    })
    const { byteLength } = code.laneSizes(parameters(buffers[side]!))
    const path = { job: 1, peer: 1, trafficClass: 0 }
    const given = {
      index: 0,
      incarnation: 1,
      job: 1,
      peer: 1,
      peerNode: 'peer',
      path,
      shared: 1,
      group: new code.LaneGroup(1, 1),
      parameters: parameters(buffers[side]!),
      queuePair: {},
      memory: new Memory(new ArrayBuffer(byteLength)),
      registered: { localKey: 1, remoteKey: 2, address: 0, byteLength },
      queueIndex: 0,
    }
    const lane = new code.Lane(given as unknown as ConstructorParameters<Code['Lane']>[0])
    lane.agree(parameters(buffers[other(side)]!))
    return lane
  }

  // ---- states -------------------------------------------------------------------------------------------------------------

  const field = (side: number, at: number): number => world.read(base + side * width + at)
  const read = (side: number): Side => {
    const at = (index: number): number => field(side, index)
    const arriving: Frame[] = []
    for (let index = 0; index < at(ARRIVING); index++) {
      const packed = at(FIELDS + index)
      arriving.push({ kind: packed & 3, news: (packed & 4) !== 0, limit: packed >> 3 })
    }
    return {
      lastSequence: at(LAST_SEQUENCE),
      peerLimit: at(PEER_LIMIT),
      lastReceived: 0,
      consumed: at(CONSUMED),
      advertisedLimit: at(ADVERTISED),
      consumedNews: at(CONSUMED_NEWS),
      left: [at(LEFT), at(LEFT + 1)],
      missing: [at(MISSING), at(MISSING + 1)],
      newsDue: at(NEWS_DUE),
      used: at(USED),
      arriving,
    }
  }
  /** What a side sent and was promised counts from what the other received; what it received and promised from what it received itself. */
  const write = (sides: readonly [Side, Side]): number => {
    for (const index of [0, 1] as const) {
      const side = sides[index]
      const [ours, theirs] = [side.lastReceived, sides[other(index)]!.lastReceived]
      const put = (at: number, value: number): void => world.write(base + index * width + at, value)
      put(LAST_SEQUENCE, side.lastSequence - theirs)
      put(PEER_LIMIT, side.peerLimit - theirs)
      put(CONSUMED, side.consumed - ours)
      put(ADVERTISED, side.advertisedLimit - ours)
      put(CONSUMED_NEWS, side.consumedNews)
      for (const of of [0, 1] as const) {
        put(LEFT + of, side.left[of])
        put(MISSING + of, side.missing[of])
      }
      put(NEWS_DUE, side.newsDue)
      put(USED, side.used)
      put(ARRIVING, side.arriving.length)
      for (let at = 0; at < most; at++) {
        const frame = side.arriving[at]
        put(FIELDS + at, frame ? frame.kind | (frame.news ? 4 : 0) | ((frame.limit - theirs) << 3) : 0)
      }
    }
    return 0
  }
  const loadNumbers = (lane: Lane, at: number): void => {
    lane.lastSequence = field(at, LAST_SEQUENCE)
    lane.peerLimit = field(at, PEER_LIMIT)
    lane.lastReceived = 0
    lane.consumed = field(at, CONSUMED)
    lane.advertisedLimit = field(at, ADVERTISED)
    lane.consumedNews = field(at, CONSUMED_NEWS)
  }
  const store = (lane: Lane, side: Side): void => {
    const { lastSequence, peerLimit, lastReceived, consumed, advertisedLimit, consumedNews } = lane
    Object.assign(side, { lastSequence, peerLimit, lastReceived, consumed, advertisedLimit, consumedNews })
  }

  // ---- moves ----------------------------------------------------------------------------------------------------------------

  interface Move {
    readonly can: (at: number) => boolean
    /** Only where it can. */
    readonly act: (sides: readonly [Side, Side], at: number) => void
  }
  type Begin = (lane: Lane) => boolean

  /** A frame that is begun, closed and retired at once. False: there is no credit for it. */
  const frameOf = (at: number, begin: Begin): boolean => {
    const lane = lanes[at]!
    if (!begin(lane)) return false
    lane.closeFrame()
    lane.retire(lane.batch.idLow[0]!, () => {})
    return true
  }
  const couldSend = (at: number, begin: Begin): boolean => {
    const lane = lanes[at]!
    loadNumbers(lane, at)
    const could = frameOf(at, begin)
    lane.batch.clear()
    return could
  }
  const send = (sides: readonly [Side, Side], at: number, of: number, begin: Begin): void => {
    const lane = lanes[at]!
    loadNumbers(lane, at)
    frameOf(at, begin)
    const word = lane.batch.sgeAddress[0]! / 4
    const frame = lane.memory.i32[word + laneHeader.word.frame]!
    const limit = lane.memory.i32[word + laneHeader.word.laneLimit]!
    lane.batch.clear()
    store(lane, sides[at]!)
    const to = sides[other(at)]!
    to.arriving.push({ kind: of, news: (frame & 0x10000) === 0, limit })
    const posted = buffers[other(at)]! - to.used
    check(to.arriving.length <= posted, 'H1', `${to.arriving.length} frames in flight to ${posted} bounce buffers`)
  }
  const message = (of: 0 | 1, tier: 0 | 1): Move => {
    const begin: Begin = (lane) => lane.beginMessage(lane.payloadCapacity, tier) >= 0
    return {
      can: (at) => field(at, LEFT + of) > 0 && couldSend(at, begin),
      act: (sides, at) => {
        send(sides, at, of, begin)
        sides[at]!.left[of]--
      },
    }
  }
  const sendData = message(kind.data, code.creditTier.data)
  const sendControl = message(kind.control, code.creditTier.control)
  const beginNews: Begin = (lane) => lane.beginMessage(0, code.creditTier.acknowledgement) >= 0
  const acknowledge: Move = {
    can: (at) => field(at, NEWS_DUE) > 0 && couldSend(at, beginNews),
    act: (sides, at) => {
      send(sides, at, kind.acknowledgement, beginNews)
      sides[at]!.newsDue = 0
    },
  }
  const beginReport: Begin = (lane) => lane.reportConsumed() === 1
  /** The engine's rule: half of the buffers are unreported, or there is nothing else to do and something but acknowledgements came. */
  const isReportDue = (at: number): boolean => {
    loadNumbers(lanes[at]!, at)
    if (lanes[at]!.unreported >= lanes[at]!.bounceCount >> 1) return true
    const idle = field(at, USED) === 0 && ![sendData, sendControl, acknowledge].some(({ can }) => can(at))
    return idle && field(at, CONSUMED_NEWS) > 0
  }
  const report: Move = {
    can: (at) => isReportDue(at) && couldSend(at, beginReport),
    act: (sides, at) => send(sides, at, kind.acknowledgement, beginReport),
  }
  const receive: Move = {
    can: (at) => field(at, ARRIVING) > 0,
    act: (sides, at) => {
      const side = sides[at]!
      const { news, limit, kind: of } = side.arriving.shift()!
      const lane = lanes[at]!
      loadNumbers(lane, at)
      check(takeOne(lane, news, limit), 'H1', 'an honest frame is refused')
      store(lane, side)
      side.used++
      if (of === kind.acknowledgement) return
      side.missing[of as 0 | 1]--
      if (of === kind.data) side.newsDue = 1
    },
  }
  /** What the other side wrote, byte for byte, as far as credit goes; a marker stands for the message. */
  const takeOne = (lane: Lane, news: boolean, limit: number): boolean => {
    const offset = lane.bounceOffset(0)
    const marker = { type: messageType.marker, payloadByteLength: 0, sequence: 0, immediate: 0, write: () => {} }
    const nowhere = { destinationNumber: 0, destinationGeneration: 0, sourceNumber: 0, sourceGeneration: 0 }
    lane.writeLooseRoute(offset + laneHeader.byteLength, { ...marker, ...nowhere })
    const byteLength = laneHeader.byteLength + lane.payloadOffset(0)
    const frame = byteLength | (news ? 0 : 0x10000)
    laneHeader.write(lane.memory, offset, { frame, laneSequence: 1, laneAcknowledged: 0, laneLimit: limit })
    return code.takeFrame(counters, lane, offset, byteLength)
  }
  /** As the engine does: buffers first, then the number that tells of them. */
  const postAgain: Move = {
    can: (at) => field(at, USED) > 0,
    act: (sides, at) => {
      const side = sides[at]!
      side.consumed += side.used
      side.used = 0
    },
  }

  // ---- the lane ---------------------------------------------------------------------------------------------------------------

  const lose = (): void => {
    const sides = [read(0), read(1)] as const
    const fresh = ([0, 1] as const).map((at) => ({ ...beginning(at), missing: sides[at].missing })) as [Side, Side]
    fresh.forEach((side, at) => {
      side.left.splice(0, 2, ...sides[other(at) as 0 | 1].missing)
      if (keepsCredit) side.peerLimit += sides[at as 0 | 1].peerLimit - sides[at as 0 | 1].lastSequence
    })
    write(fresh)
  }
  const beginning = (at: 0 | 1): Side => {
    const from = other(at)
    const agreed = Math.min(...buffers)
    return {
      lastSequence: 0,
      peerLimit: agreed,
      lastReceived: 0,
      consumed: 0,
      advertisedLimit: agreed,
      consumedNews: 0,
      left: [data[at], control[at]],
      missing: [data[from]!, control[from]!],
      newsDue: 0,
      used: 0,
      arriving: [],
    }
  }

  // ---- actors -------------------------------------------------------------------------------------------------------------

  const actor = (name: string, { can, act }: Move, at: number): ActorSpec => {
    const operation: Operation = {
      name,
      when: () => can(at),
      run: (self) =>
        self.note(() => {
          const sides: [Side, Side] = [read(0), read(1)]
          act(sides, at)
          return write(sides)
        }),
    }
    return { name: `${'AB'[at]}-${name}`, role: 'side', member: -1, operations: [operation] }
  }
  const moves = { data: sendData, control: sendControl, acknowledge, report, receive, 'post-again': postAgain }
  const loss: ActorSpec = {
    name: 'loss',
    role: 'loss',
    member: -1,
    operations: [{ name: 'is there', when: () => false, run: () => undefined }],
    restartsAt: 0,
    died: lose,
  }
  const actors = [0, 1].flatMap((at) => Object.entries(moves).map(([name, move]) => actor(name, move, at)))
  write([beginning(0), beginning(1)])
  const atRest = (): void => {
    for (const at of [0, 1] as const) {
      const { missing, newsDue } = read(at)
      check(missing[0] + missing[1] === 0, 'H5', `side ${'AB'[at]} waits for ${missing[0]} + ${missing[1]} messages`)
      check(newsDue === 0, 'H5', `side ${'AB'[at]} cannot acknowledge`)
    }
  }
  return { world, actors: [...actors, loss], atRest }
}
