/**
 * Frames that no broker sends. Whatever stands in a bounce buffer, the engine neither throws nor reads outside it: it ignores the message
 * or fails the lane, and queue pairs of other peers do not notice.
 */
import test, { type ExecutionContext } from 'ava'
import { takeFrame } from '../../../broker/engine/dispatch.js'
import type { Lane } from '../../../broker/engine/lane.js'
import { laneHeader, messageType, packKind, routeHeader } from '../../../protocol/wire.js'
import { connect, EngineNode, JOB, link, turnToRest, turnUntil } from '../../support/engine-node.js'
import { Choices, End } from '../../support/engine-stage.js'

interface Scene {
  readonly victim: EngineNode
  readonly nodes: EngineNode[]
  readonly lane: Lane
  readonly near: End
  readonly far: End
}

/** A victim with a lane to a peer that will be played badly, and one to an honest third. */
async function scene(t: ExecutionContext): Promise<Scene> {
  const nodes = await Promise.all(['alpha', 'beta', 'gamma'].map((name) => new EngineNode(name).start()))
  t.teardown(() => {
    for (const node of nodes) node.close()
  })
  const [victim, bad, honest] = nodes as [EngineNode, EngineNode, EngineNode]
  await link(victim, bad, 0)
  await link(victim, honest, 1)
  const end = async (node: EngineNode, type: 'connected' | 'datagram'): Promise<End> => {
    const queue = await node.completionQueue()
    return new End(await node.queuePair(queue, { type, receiveSlots: 128 }), queue, await node.region(1 << 16))
  }
  for (const type of ['connected', 'connected', 'datagram'] as const) {
    const here = await end(victim, type)
    const there = await end(bad, type)
    if (type === 'connected') await connect(here.queuePair, there.queuePair)
    for (let id = 0; id < 64; id++) here.queuePair.receive({ id, local: here.at(0, 5000) })
    // Work under way in each state that a message may speak of.
    for (let id = 100; id < 110; id++) {
      const where =
        type === 'datagram' ? { destination: { node: 1, number: there.queuePair.number, generation: 1 } } : {}
      here.queuePair.send({ id, opcode: 'send', local: here.at(0, id % 2 === 0 ? 100 : 50_000), ...where })
      here.queuePair.send({
        id,
        opcode: 'fetch-and-add',
        local: here.at(0, 8),
        remote: { key: there.memory.key, offset: 0 },
        swap: 1n,
        ...where,
      })
    }
  }
  await victim.call('add-datagram-path', { job: 1, peer: 1, lane: 0, trafficClass: 0 })
  const near = await end(victim, 'connected')
  const far = await end(honest, 'connected')
  await connect(near.queuePair, far.queuePair, 1)
  for (let turn = 0; turn < 10; turn++) victim.turn()
  return { victim, nodes, lane: victim.engine.lanes[0]!, near, far }
}

const EDGES = [0, 1, 2, 3, 4, 5, 8, 16, 23, 24, 40, 100, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff]
const LENGTHS = [Number.NaN, Number.POSITIVE_INFINITY, -1, 0.5, 0, 8, 1e6, 2 ** 53, 2 ** 60, 1e300]

/** A frame whose parts are plausible one by one: true header, true or invented routes, payload of edges and noise. */
function forge(choices: Choices, lane: Lane, offset: number): number {
  const { u32, f64 } = lane.memory
  let at = offset + laneHeader.byteLength
  const end = offset + lane.bounceByteLength
  for (let messages = choices.below(4); messages >= 0; messages--) {
    const payload = choices.pick([0, 8, 16, 24, 40, 48, 80, 96, 200, 1000])
    const length = routeHeader.byteLength + payload
    if (at + length > end) break
    for (let word = at / 4; word < (at + length) / 4; word++)
      u32[word] = choices.chance(2) ? choices.pick(EDGES) : choices.word()
    for (let word = at / 8 + 5; word < Math.floor((at + length) / 8); word++)
      if (choices.chance(4)) f64[word] = choices.pick(LENGTHS)
    const type = choices.below(Object.keys(messageType).length + 3)
    if (type === messageType.row && payload > 8 && !choices.chance(4)) {
      const entry = (at + routeHeader.byteLength) / 4
      u32[entry] = packKind(0, choices.below(2), choices.pick([0, 8, payload - 8, payload - 8]))
      u32[entry + 1] = choices.below(40)
    }
    const told = choices.chance(30) ? choices.below(70_000) & 0xffff : length
    u32[(at + routeHeader.offset.kind) / 4] = packKind(type, choices.below(32), told)
    // Most routes name queue pairs that exist on both sides.
    if (!choices.chance(6)) {
      u32[(at + routeHeader.offset.destinationNumber) / 4] = choices.below(24)
      u32[(at + routeHeader.offset.destinationGeneration) / 4] = 1
      u32[(at + routeHeader.offset.sourceNumber) / 4] = choices.below(24)
      u32[(at + routeHeader.offset.sourceGeneration) / 4] = 1
      u32[(at + routeHeader.offset.sequence) / 4] = choices.below(40)
      u32[(at + routeHeader.offset.delivered) / 4] = choices.below(40)
      u32[(at + routeHeader.offset.receiveLimit) / 4] = choices.below(200)
      u32[(at + routeHeader.offset.segmentOffset) / 4] = choices.pick([0, 0, 0, 8, 4000])
    }
    at += Math.ceil(length / 8) * 8
  }
  return at - offset
}

function header(choices: Choices, lane: Lane, offset: number, byteLength: number): void {
  const { u32 } = lane.memory
  u32[(offset + laneHeader.offset.frame) / 4] = byteLength | (choices.below(2) << 16)
  u32[(offset + laneHeader.offset.laneSequence) / 4] = lane.lastReceived + 1
  u32[(offset + laneHeader.offset.laneAcknowledged) / 4] = choices.chance(4) ? choices.word() : lane.lastSequence
  // Credit that the peer does not have would only make its own device refuse.
  u32[(offset + laneHeader.offset.laneLimit) / 4] = lane.peerLimit
}

async function honestWorks({ nodes, near, far }: Scene, count: number): Promise<boolean> {
  const goal = near.done.length + count
  let [sent, received] = [0, 0]
  await turnUntil(
    nodes,
    () => {
      while (received < count && far.queuePair.receive({ id: received, local: far.at(0, 64) }) > 0) received++
      while (sent < received && near.queuePair.send({ id: sent, opcode: 'send', local: near.at(0, 64) }) > 0) sent++
      far.poll()
      return near.poll() >= goal
    },
    'the honest peer is served',
  )
  return [...near.done, ...far.done].every(({ status }) => status === 'success')
}

for (const seed of [1, 2, 3, 4, 5, 6]) {
  test.serial(`forged frames: seed ${seed}`, async (t) => {
    const choices = new Choices(seed)
    const stage = await scene(t)
    const { victim, lane } = stage
    const offset = lane.bounceOffset(0)
    let refused = 0
    for (let round = 0; round < 3000; round++) {
      const byteLength = forge(choices, lane, offset)
      header(choices, lane, offset, byteLength)
      if (!takeFrame(victim.engine, lane, offset, byteLength)) refused++
      if (choices.chance(20)) victim.turn()
      if (round % 500 === 0) await new Promise(setImmediate)
    }
    t.true(refused > 100 && refused < 2900, `${refused} of 3000 refused`)
    t.log(`${refused} of 3000 refused`)
    t.true(await honestWorks(stage, 1000))
    // The lane is beyond repair; its end must still be an end.
    victim.engine.failLane(lane, 'test')
    // A broker's engine is told at once that the connection broke; here the device would take half a minute of retries to find out.
    const theirs = stage.nodes[1]!.engine.lanes[0]
    if (theirs) stage.nodes[1]!.engine.failLane(theirs, 'test')
    await turnUntil(stage.nodes, () => lane.state === 'failed', 'the lane is given up')
    await victim.call('abandon-path', { job: JOB, peer: lane.peer, trafficClass: null, reason: 'test' })
    await turnUntil(
      stage.nodes,
      () =>
        [...victim.engine.queuePairs].every(
          (queuePair) => !queuePair?.flow || queuePair.flow.inFlight.size === 0 || queuePair.flow.lane?.state === 'up',
        ),
      'every request has its verdict',
    )
    t.true(await honestWorks(stage, 100))
    await turnToRest(stage.nodes)
  })
}

test.serial('frames of noise, of wrong lengths and out of order fail the lane and nothing else', async (t) => {
  const choices = new Choices(99)
  const stage = await scene(t)
  const { victim, lane } = stage
  const offset = lane.bounceOffset(1)
  for (let round = 0; round < 2000; round++) {
    const { u32 } = lane.memory
    for (let word = offset / 4; word < (offset + lane.bounceByteLength) / 4; word++) u32[word] = choices.word()
    const byteLength = choices.pick([0, 4, 8, 15, 16, 17, 56, 100, lane.bounceByteLength])
    if (choices.chance(2)) header(choices, lane, offset, byteLength)
    const taken = takeFrame(victim.engine, lane, offset, byteLength)
    if (taken && byteLength !== 16) t.log(`noise of ${byteLength} bytes was taken in round ${round}`)
  }
  t.true(await honestWorks(stage, 200))
})
