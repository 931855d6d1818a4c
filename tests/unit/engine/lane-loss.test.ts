/**
 * Lost lanes: every request gets exactly one verdict, and it is true. `success` was delivered, `flushed` never is, `unknown` only where
 * nothing can prove it; what is not on the lane goes on, and what comes back does so on a new incarnation.
 */
import test, { type ExecutionContext } from 'ava'
import { laneIdHigh } from '../../../broker/engine/lane-sizes.js'
import type { CompletionBatch, Device } from '../../../broker/provider/provider.js'
import { FaultHooks } from '../../../broker/provider/soft-faults.js'
import { counterIndex } from '../../../protocol/node-file.js'
import { queuePairState } from '../../../protocol/queue-pair-segment.js'
import { type Status, status, statusNames } from '../../../protocol/statuses.js'
import { connectTo, type EngineNode, JOB, link, linkAgain } from '../../support/engine-node.js'
import { ADD_WORD, Program } from '../../support/engine-program.js'
import { checkAtRest, destination, type End, Stage } from '../../support/engine-stage.js'

const small = { bounceByteLength: 1024, bounceCount: 8, chunkByteLength: 4096 }

/** What the device says from now on passes through `change` first. */
function intercept(device: Device, change: (batch: CompletionBatch) => void): void {
  const poll = device.poll.bind(device)
  device.poll = (queue, batch) => {
    const before = batch.count
    poll(queue, batch)
    change(batch)
    return batch.count - before
  }
}

/** The next completion of the device is an error instead. */
function failNext(node: EngineNode, verdict: Status): void {
  let done = false
  intercept(node.engine.device, (batch) => {
    if (done || batch.count === 0) return
    done = true
    batch.status[0] = verdict
    // Devices leave garbage in every other field but the id.
    batch.opcode[0] = 0xee
    batch.byteLength[0] = -1
  })
}

const ways: Readonly<Record<string, (program: Program, faults: readonly FaultHooks[]) => (node: EngineNode) => void>> =
  {
    'given up': () => (node) => node.engine.failLane(node.engine.lanes[0]!, 'test'),
    'an error completion': () => (node) => failNext(node, status.retryExceeded),
    'the peer executes and cannot say so': (program, faults) => (node) => {
      const hooks = faults[program.stage.nodes.indexOf(node)]!
      hooks.of(node.engine.lanes[0]!.queuePair.number).dropAcknowledgements = true
    },
    'the peer stops executing': (program, faults) => (node) => {
      const hooks = faults[program.stage.nodes.indexOf(node)]!
      hooks.of(node.engine.lanes[0]!.queuePair.number).stopExecuting = true
    },
  }

async function survive(t: ExecutionContext, seed: number, way: keyof typeof ways, replayable: boolean): Promise<void> {
  const faults = [new FaultHooks(), new FaultHooks()]
  const stage = await Stage.remote(t, { bounceByteLength: 1024 }, small, faults)
  const program = new Program(stage, { seed, steps: 150, disturb: false, replayable })
  await program.set()
  for (let loss = 0; loss < 10; loss++) {
    await program.run()
    await program.loseLane(ways[way]!(program, faults))
  }
  await program.run()
  await program.finish()
  await stage.rest()
  program.oracle.conclude()
  t.deepEqual(program.oracle.problems, [], `seed ${seed}`)
  for (const [actor, { least, most }] of program.added) {
    const sum = actor.end.memory.mapping.memory.i64[ADD_WORD / 8]!
    t.true(sum >= least && sum <= most, `sum ${sum} of ${least} to ${most}, seed ${seed}`)
  }
  checkAtRest(t, stage.nodes)
  if (!replayable) return
  const verdicts = program.actors.flatMap((actor) => [...actor.sent.values()].flatMap(({ list }) => list))
  const odd = verdicts.filter(({ from, opcode, verdict }) => {
    return verdict === 'unknown' && (from.connected || opcode !== 'fetch-and-add')
  })
  t.deepEqual(odd, [], `seed ${seed}`)
  const resent = stage.nodes.reduce((sum, { engine }) => sum + engine.counters[counterIndex['requests-resent']]!, 0)
  t.log(`${verdicts.length} requests, ${resent} sent again, seed ${seed}`)
  t.true(resent > 0)
}

for (const [index, way] of Object.keys(ways).entries()) {
  for (const seed of [1, 2]) {
    test.serial(`verdicts are true when the lane is lost: ${way}, seed ${seed}`, (t) =>
      survive(t, 100 * index + seed, way, false),
    )
    test.serial(`63 nothing is lost, doubled or unknown when the lane is lost: ${way}, seed ${seed}`, (t) =>
      survive(t, 1000 + 100 * index + seed, way, true),
    )
  }
}

async function restore(stage: Stage, incarnation: number): Promise<void> {
  const { parameters } = stage.left.engine.lanes[0]!
  const old = stage.left.engine.lanes[0]!.incarnation
  const gone = { lane: 0, incarnation: old, orderly: false, reason: 'test' }
  await stage.during(Promise.all(stage.nodes.map((node) => node.call('destroy-lane', gone))))
  await linkAgain(stage.left, stage.right, 0, parameters, incarnation)
}

/** The other node will not come back. */
async function giveUp(node: EngineNode, peer: EngineNode): Promise<void> {
  await node.call('abandon-path', { job: JOB, peer: node.peerOf(peer), trafficClass: null, reason: 'it is gone' })
}

async function bothLose(stage: Stage): Promise<void> {
  const lanes = stage.nodes.map(({ engine }) => engine.lanes[0]!)
  for (const [index, { engine }] of stage.nodes.entries()) engine.failLane(lanes[index]!, 'test')
  await stage.until(() => lanes.every(({ state }) => state === 'failed'), 'both ends are fenced')
}

const send = (end: End, id: number, length = 16) => ({ id, opcode: 'send', local: end.at(0, length) }) as const

for (const name of statusNames.filter((each) => each !== 'success')) {
  test.serial(`50 the device reports ${name}: the lane is given up, told once, and rebuilt`, async (t) => {
    const stage = await Stage.remote(t)
    const [left, right] = await stage.pair()
    const number = Object.entries(status).find(([key]) => key.toLowerCase() === name.replaceAll('-', ''))
    const verdict = number?.[1] ?? status.localQueuePairError
    for (let id = 0; id < 4; id++) right.queuePair.receive({ id, local: right.at(0, 64) })
    left.queuePair.send(send(left, 1), send(left, 2))
    failNext(stage.left, verdict)
    await stage.until(() => stage.lane.state === 'failed', 'the lane is given up')
    stage.right.engine.failLane(stage.right.engine.lanes[0]!, 'the peer lost it')
    stage.turns(5)
    left.queuePair.send(send(left, 3))
    t.is(stage.left.events.filter(({ name: event }) => event === 'lane-failed').length, 1)
    await restore(stage, 2)
    await stage.completed([
      [left, 3],
      [right, 3],
    ])
    t.deepEqual(left.story, ['1 success', '2 success', '3 success'])
    t.deepEqual(right.story, ['0 success', '1 success', '2 success'])
    t.deepEqual(
      stage.left.events.filter(({ name: event }) => event === 'queue-pair-error'),
      [],
    )
  })
}

test.serial('75 (17) completions of a lane that is gone, of other rows and of nobody are ignored', async (t) => {
  const stage = await Stage.remote(t)
  const old = stage.lane.incarnation
  await bothLose(stage)
  await restore(stage, 2)
  const [near, far] = await stage.pair()
  let noise = 0
  for (const { engine } of stage.nodes) {
    intercept(engine.device, (batch) => {
      const ids = [
        [0, laneIdHigh(0, old, true)],
        [5, laneIdHigh(0, old, false)],
        [0, laneIdHigh(77, 1, true)],
        [0xffffffff, 0xffffffff],
        // The right lane, but a position that is not outstanding.
        [0x7ffffff0, laneIdHigh(0, 2, false)],
      ] as const
      const [low, high] = ids[noise++ % ids.length]!
      if (batch.count < 8) batch.push(low, high, noise % 2 === 0 ? status.success : status.flushed, 0, 1, 4096)
      // An error of a living lane is believed; noise that names it says success.
      if (high === laneIdHigh(0, 2, false)) batch.status[batch.count - 1] = status.success
    })
  }
  for (let id = 0; id < 50; id++) {
    far.queuePair.receive({ id, local: far.at(0, 64) })
    near.queuePair.send(send(near, id))
  }
  for (let turn = 0; turn < 400 && (near.poll() < 50 || far.poll() < 50); turn++) stage.turns(1)
  t.is(near.done.length, 50)
  t.true([...near.done, ...far.done].every(({ status: each }) => each === 'success'))
  stage.turns(60)
  t.true(noise > 50, `${noise} false completions`)
  t.is(stage.lane.state, 'up')
})

test.serial(
  '77 behind the first unknown everything is flushed, in order; reads and what never left are flushed',
  async (t) => {
    const stage = await Stage.remote(t)
    const [left, right] = await stage.pair({ memoryByteLength: 1 << 20 })
    const remote = { key: right.memory.key, offset: 0 }
    right.queuePair.receive({ id: 0, local: right.at(0, 64) }, { id: 1, local: right.at(0, 1 << 19) })
    left.queuePair.send({ id: 0, opcode: 'write', local: left.at(0, 8), remote })
    await stage.completed([[left, 1]])
    // The peer has told of its receives.
    await stage.rest()
    left.queuePair.send(
      { id: 1, opcode: 'write', local: left.at(0, 64), remote },
      send(left, 2),
      { id: 3, opcode: 'fetch-and-add', local: left.at(0, 8), remote, swap: 1n },
      send(left, 4, 1 << 19),
      send(left, 5),
      { id: 6, opcode: 'write', local: left.at(0, 64), remote },
      { ...send(left, 7), fence: true },
    )
    // The peer has stopped; only this side turns.
    for (let turn = 0; turn < 30; turn++) stage.left.turn()
    stage.left.engine.failLane(stage.lane, 'the peer is silent')
    for (let turn = 0; turn < 10; turn++) stage.left.turn()
    t.is(left.poll(), 1, 'nothing is told while the peer may come back')
    await giveUp(stage.left, stage.right)
    for (let turn = 0; turn < 10; turn++) stage.left.turn()
    left.poll()
    t.deepEqual(left.story.slice(1), [
      '1 unknown',
      '2 unknown',
      '3 unknown',
      ...[4, 5, 6, 7].map((id) => `${id} flushed`),
    ])
    t.is(stage.left.engine.queuePairs[left.queuePair.number]!.state, queuePairState.error)
    const { body } = stage.left.events.find(({ name }) => name === 'queue-pair-error')!
    t.is((body as { status: number }).status, status.retryExceeded)
  },
)

test.serial(
  'a datagram queue pair outlives its lane: receives begun by lost messages are posted again, in their place',
  async (t) => {
    const stage = await Stage.remote(t, {}, { bounceByteLength: 256, bounceCount: 4 })
    const [left, right] = await stage.datagrams()
    const there = destination(stage.left, right.queuePair)
    for (let id = 0; id < 3; id++) right.queuePair.receive({ id, local: right.at(id * 8192, 8192) })
    // Segments of 200 bytes: the first arrive, the rest waits for credit that never comes back.
    left.queuePair.send({ ...send(left, 1, 800), destination: there })
    left.queuePair.send({ ...send(left, 2, 4000), destination: there })
    const begun = (): boolean => {
      const { flows } = stage.right.engine.queuePairs[right.queuePair.number]!
      return [...flows.values()].some(({ inbound }) => inbound.size > 0)
    }
    for (let turn = 0; turn < 50 && !begun(); turn++) stage.turns(1)
    t.true(begun(), 'a message has begun to arrive')
    await bothLose(stage)
    left.queuePair.send({ ...send(left, 3, 100), destination: there })
    stage.turns(5)
    t.is(left.poll() + right.poll(), 0)
    await restore(stage, 2)
    await stage.datagramPaths()
    await stage.completed([
      [left, 3],
      [right, 3],
    ])
    t.deepEqual(left.story, ['1 success', '2 success', '3 success'])
    t.deepEqual(right.story, ['0 success', '1 success', '2 success'])
    t.deepEqual(
      right.done.map(({ byteLength }) => byteLength),
      [800, 4000, 100],
    )
    await stage.rest()
    checkAtRest(t, stage.nodes)
  },
)

test.serial(
  '73 the device vanishes without a word: what is posted finds it dead, every request has its verdict',
  async (t) => {
    const faults = [new FaultHooks(), undefined] as const
    const stage = await Stage.remote(t, {}, {}, faults)
    const [left, right] = await stage.pair()
    const [here, there] = [await stage.end(stage.left, 'connected'), await stage.end(stage.left, 'connected')]
    await stage.during(
      Promise.all([connectTo(here.queuePair, there.queuePair), connectTo(there.queuePair, here.queuePair)]),
    )
    for (let id = 0; id < 8; id++) right.queuePair.receive({ id, local: right.at(0, 64) })
    const read = (id: number) =>
      ({ id, opcode: 'read', local: left.at(0, 8), remote: { key: right.memory.key, offset: 0 } }) as const
    left.queuePair.send(read(0))
    await stage.completed([[left, 1]])
    await stage.rest()
    left.queuePair.send(send(left, 1), send(left, 2), read(3))
    stage.left.turn()
    faults[0].vanish()
    left.queuePair.send(send(left, 4))
    await stage.until(() => stage.lane.state === 'failed', 'the lane is given up')
    await giveUp(stage.left, stage.right)
    await stage.completed([[left, 5]])
    t.deepEqual(left.story, ['0 success', '1 unknown', '2 unknown', '3 flushed', '4 unknown'])
    there.queuePair.receive({ id: 1, local: there.at(0, 64) })
    here.queuePair.send(send(here, 1))
    await stage.completed([
      [here, 1],
      [there, 1],
    ])
    t.deepEqual(here.story, ['1 success'], 'what needs no device goes on')
    const gone = { lane: 0, incarnation: 1, orderly: false, reason: 'test' }
    await stage.during(Promise.all([stage.left.call('destroy-lane', gone), stage.left.call('destroy-lane', gone)]))
    await stage.remove(left)
    const number = left.memory.key % 2 ** 24
    await stage.during(stage.left.call('remove-region', { number, generation: 1 }))
    t.is(stage.left.engine.regions.get(number), undefined)
  },
)

test.serial('who connects over a lost lane is told at once, is idle again and connects over the next', async (t) => {
  const stage = await Stage.remote(t)
  const left = await stage.end(stage.left, 'connected')
  const right = await stage.end(stage.right, 'connected')
  const failed = connectTo(left.queuePair, right.queuePair).catch((error: { code: string }) => error.code)
  left.queuePair.send(send(left, 1))
  stage.turns(20)
  await bothLose(stage)
  t.is(await stage.during(failed), 'path-lost')
  left.poll()
  t.deepEqual(left.story, ['1 flushed'])
  await restore(stage, 2)
  // The connect that the other side held came over a lane that is gone: it must not be answered on it.
  const both = [connectTo(right.queuePair, left.queuePair), connectTo(left.queuePair, right.queuePair)]
  await stage.during(Promise.all(both))
  right.queuePair.receive({ id: 2, local: right.at(0, 64) })
  left.queuePair.send(send(left, 3))
  await stage.completed([
    [left, 2],
    [right, 1],
  ])
})

test.serial(
  'with two lanes, what one of them asked about keys and revoked is asked and revoked again over the other',
  async (t) => {
    const stage = await Stage.remote(t)
    await link(stage.left, stage.right, 1)
    const ends = [await stage.end(stage.left, 'connected'), await stage.end(stage.right, 'connected')] as const
    const connects = [
      connectTo(ends[0].queuePair, ends[1].queuePair, 1),
      connectTo(ends[1].queuePair, ends[0].queuePair, 1),
    ]
    await stage.during(Promise.all(connects))
    const [left] = ends
    const target = await stage.right.region(4096)
    const remote = { key: target.key, offset: 0 }
    left.queuePair.send({ id: 1, opcode: 'write', local: left.at(0, 8), remote })
    // The question goes over lane 0 and is lost with it.
    stage.left.turn()
    await bothLose(stage)
    await stage.completed([[left, 1]])
    t.deepEqual(left.story, ['1 success'])
    await restore(stage, 2)
    let closed = false
    const number = target.key % 2 ** 24
    const closing = stage.right.call('remove-region', { number, generation: 1 }).then(() => {
      closed = true
    })
    // The revocation is on its way over the lane that carried the answer when that one is lost.
    stage.right.turn()
    const lanes = stage.nodes.map(({ engine }) => engine.lanes[1]!)
    for (const [index, { engine }] of stage.nodes.entries()) engine.failLane(lanes[index]!, 'test')
    await stage.until(() => closed, 'the region is closed')
    await closing
    t.is(stage.lane.state, 'up')
  },
)

test.serial('a lane that cannot come up is told once and leaves nothing behind', async (t) => {
  const stage = await Stage.remote(t)
  const { left } = stage
  const { parameters } = stage.lane
  const common = { lane: 3, job: JOB, incarnation: 5 }
  const of = { ...common, shared: 5, index: 3, peer: 7, peerNode: 'nobody', trafficClass: 0, parameters }
  await left.call('create-lane', of)
  const address = await stage.right.call('create-lane', of)
  // A queue pair that nobody has: its connection is refused as often as it is tried.
  const nowhere = { ...address, number: (address.number + 1) & 0xffffff }
  const connecting = left.call('connect-lane', {
    ...common,
    remote: nowhere,
    parameters,
    initiator: true,
    timeoutMs: 50,
  })
  const outcome = await stage.during(
    connecting.then(
      () => 'up',
      (failure: { code: string }) => failure.code,
    ),
  )
  t.is(outcome, 'unreachable')
  await stage.during(left.call('destroy-lane', { lane: 3, incarnation: 5, orderly: false, reason: 'test' }))
  t.is(left.engine.lanes[3], undefined)
  t.is(left.engine.device.counters.queuePairs, 1)
  await stage.rest()
})
