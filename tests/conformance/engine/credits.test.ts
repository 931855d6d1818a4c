/** Credit on the lane and of queue pairs: nothing is lost, nobody else waits, nothing stands still, the device never finds no receive. */
import { queuePairState } from '../../../protocol/queue-pair-segment.js'
import { connectTo, type TestQueuePair, type TestSend } from '../../support/engine-node.js'
import { Choices, destination, End, type EndOptions, type Stage } from '../../support/engine-stage.js'
import { type EngineCase, play } from './case.js'

/** So many connected pairs on shared rings and memory. */
async function pairs(stage: Stage, count: number, options: EndOptions): Promise<{ near: End[]; far: End[] }> {
  const ends: [End[], End[]] = [[], []]
  for (const [side, node] of [stage.left, stage.right].entries()) {
    const queue = await node.completionQueue(65_536)
    const memory = await node.region(1 << 20)
    for (let index = 0; index < count; index++) {
      ends[side]!.push(new End(await node.queuePair(queue, { type: 'connected', ...options }), queue, memory))
    }
  }
  const [near, far] = ends
  const connects = near.flatMap((end, index) => {
    const other = far[index]!
    return [connectTo(end.queuePair, other.queuePair), connectTo(other.queuePair, end.queuePair)]
  })
  await stage.during(Promise.all(connects))
  return { near, far }
}

/** Posts as many of the same receive as there are slots. */
function receiveAll(end: End, count: number): void {
  for (let index = 0; index < count; index++) end.queuePair.receive({ id: index, local: end.at(0, 64) })
}

const message = (end: End, id: number, more: Partial<TestSend> = {}): TestSend => ({
  id,
  opcode: 'send',
  local: end.at(0, 16),
  ...more,
})

const frames = (stage: Stage): number =>
  stage.left.engine.lanes[0]!.framesSent + stage.right.engine.lanes[0]!.framesSent

const cases: readonly EngineCase[] = [
  {
    number: '24',
    name: 'a thousand queue pairs with credit for 256 messages each share 16 bounce buffers: the device never finds no receive',
    where: 'remote',
    parameters: { bounceCount: 16 },
    leaves: true,
    run: async (t, stage) => {
      const perPair = 32
      const { near, far } = await pairs(stage, 1000, { sendSlots: 32, receiveSlots: 256, inlineByteLength: 16 })
      for (const end of far) receiveAll(end, 256)
      for (const end of near) {
        for (let index = 0; index < perPair; index++)
          end.queuePair.send(message(end, index, { signaled: index === 31 }))
      }
      const arrived = new Map<number, number>()
      let wrong = 0
      let total = 0
      await stage.until(
        () => {
          for (const { queuePair, id, status } of far[0]!.queue.poll(100_000)) {
            const next = arrived.get(queuePair) ?? 0
            if (id !== next || status !== 'success') wrong++
            arrived.set(queuePair, next + 1)
            total++
          }
          near[0]!.poll()
          return total >= 1000 * perPair && near[0]!.done.length >= 1000
        },
        'all 32,000 arrived',
        60_000,
      )
      t.is(wrong, 0)
      t.is(total, 1000 * perPair)
      t.is(stage.left.engine.device.counters.receiverNotReady, 0)
      t.is(stage.right.engine.device.counters.receiverNotReady, 0)
      t.is(stage.left.engine.device.counters.queuePairs, 1, 'one shared queue pair serves them all')
      await stage.rest()
      const { framesSent } = stage.lane
      t.true(framesSent < 1000 * perPair, `${framesSent} frames carried ${total} messages`)
      t.log(`${total} messages in ${framesSent} frames`)
    },
  },
  {
    number: '25',
    name: 'four bounce buffers, both sides saturate both directions and burst control from the first frame on: no deadlock',
    where: 'remote',
    parameters: { bounceCount: 4 },
    leaves: true,
    run: async (t, stage) => {
      const count = 24
      const queues = [await stage.left.completionQueue(8192), await stage.right.completionQueue(8192)] as const
      const memories = [await stage.left.region(1 << 20), await stage.right.region(1 << 20)] as const
      const ends: [End[], End[]] = [[], []]
      for (const [side, node] of stage.nodes.entries()) {
        for (let index = 0; index < count; index++) {
          const shape = { type: 'connected', sendSlots: 64, receiveSlots: 64 } as const
          const end = new End(await node.queuePair(queues[side]!, shape), queues[side]!, memories[side]!)
          receiveAll(end, 64)
          ends[side]!.push(end)
        }
      }
      // Connects, and everything that can be posted while connecting, stand before the first frame goes.
      const connects = ends[0].flatMap((end, index) => {
        const far = ends[1][index]!
        return [connectTo(end.queuePair, far.queuePair), connectTo(far.queuePair, end.queuePair)]
      })
      const opcodes = ['send', 'fetch-and-add', 'write', 'read', 'write-with-immediate'] as const
      const posted = [0, 0]
      for (const [side, list] of ends.entries()) {
        for (const end of list) {
          for (let index = 0; index < 60; index++) {
            const opcode = opcodes[index % opcodes.length]!
            const remote = { key: memories[1 - side]!.key, offset: 4096 + (index % 8) * 8 }
            posted[side]! += end.queuePair.send({ id: index, opcode, local: end.at(8192, 8), remote, swap: 1n })
          }
        }
      }
      await stage.during(Promise.all(connects))
      const received = 60 * count * (2 / 5)
      await stage.completed([
        [ends[0][0]!, posted[0]! + received],
        [ends[1][0]!, posted[1]! + received],
      ])
      for (const [end] of ends) t.true(end!.done.every(({ status }) => status === 'success'))
      t.is(stage.left.engine.device.counters.receiverNotReady + stage.right.engine.device.counters.receiverNotReady, 0)
      await stage.rest()
      t.false(stage.lane.hasControl || stage.lane.hasScheduled || stage.lane.hasNews)
      // Control while data saturates: removal of all of them at once, each with its handshake.
      const all = [...ends[0], ...ends[1]]
      await stage.during(
        Promise.all(
          all.map(({ node, queuePair: { number, generation } }) =>
            node.call('remove-queue-pair', { number, generation, discard: false, reason: 'test' }),
          ),
        ),
      )
    },
  },
  {
    number: '25b',
    name: 'both sides spend all four credits at the same instant on data, connects and receive limits: the last credit stays',
    where: 'remote',
    parameters: { bounceCount: 4 },
    leaves: true,
    run: async (t, stage) => {
      const { near, far } = await pairs(stage, 400, { sendSlots: 4, receiveSlots: 8 })
      for (const end of [...near, ...far]) receiveAll(end, 4)
      await stage.rest()
      // Everything consumed is reported: both have their four credits.
      presetLane(stage, 0)
      const fresh = [
        await stage.end(stage.left, 'connected', { memoryByteLength: 4096 }),
        await stage.end(stage.right, 'connected', { memoryByteLength: 4096 }),
      ] as const
      for (const end of [...near, ...far]) {
        receiveAll(end, 4)
        for (let index = 0; index < 4; index++) end.queuePair.send(message(end, index, { local: end.at(0, 64) }))
      }
      const connecting = Promise.all([
        connectTo(fresh[0].queuePair, fresh[1].queuePair),
        connectTo(fresh[1].queuePair, fresh[0].queuePair),
      ])
      const each = 400 * 8
      await stage.completed([
        [near[0]!, each],
        [far[0]!, each],
      ])
      await stage.during(connecting)
      t.true([...near[0]!.done, ...far[0]!.done].every(({ status }) => status === 'success'))
      t.is(stage.left.engine.device.counters.receiverNotReady + stage.right.engine.device.counters.receiverNotReady, 0)
    },
  },
  {
    number: '26',
    name: 'a receiver that never polls stops its own sender only',
    where: 'both',
    leaves: true,
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ queueCapacity: 8 })
      const [near, far] = await stage.pair()
      receiveAll(right, 64)
      for (let index = 0; index < 64; index++) left.queuePair.send(message(left, index, { signaled: false }))
      stage.turns(50)
      await exchange(stage, near, far, 1000)
      t.is(near.done.length, 1000)
      t.deepEqual(
        right.queue.poll(8).map(({ id }) => id),
        [0, 1, 2, 3, 4, 5, 6, 7],
      )
    },
  },
  {
    number: '19',
    name: 'a completion ring that is full for long loses nothing and holds up nobody',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ queueCapacity: 4 })
      const [near, far] = await stage.pair()
      receiveAll(right, 64)
      for (let index = 0; index < 64; index++) left.queuePair.send(message(left, index))
      await exchange(stage, near, far, 2000)
      t.is(stage.right.engine.completionQueues[right.queue.number]!.backlog, 60)
      await stage.completed([
        [left, 64],
        [right, 64],
      ])
      t.deepEqual(
        left.done.map(({ id }) => id),
        [...left.done.keys()],
      )
      t.deepEqual(
        right.done.map(({ id }) => id),
        [...right.done.keys()],
      )
    },
  },
  {
    number: '27',
    name: 'no receive in time ends its queue pair with rnr-retry-exceeded and flushes the rest; the neighbour goes on',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ rnrRetry: 2, rnrTimerMs: 5 })
      const [near, far] = await stage.pair()
      left.queuePair.send(message(left, 1), message(left, 2), message(left, 3))
      await exchange(stage, near, far, 200)
      await stage.completed([[left, 3]])
      t.deepEqual(left.story, ['1 rnr-retry-exceeded', '2 flushed', '3 flushed'])
      t.is(stage.left.engine.queuePairs[left.queuePair.number]!.state, queuePairState.error)
      await exchange(stage, near, far, 200)
      t.is(near.done.length, 400)
      t.is(right.poll(), 0)
    },
  },
  {
    number: '27b',
    name: 'of a datagram queue pair only the request that found no receive ends so; what follows it arrives',
    where: 'remote',
    run: async (t, stage) => {
      const [left, right] = await stage.datagrams({ rnrRetry: 1, rnrTimerMs: 2 })
      const where = destination(stage.left, right.queuePair)
      left.queuePair.send(message(left, 1, { destination: where }), message(left, 2, { destination: where }))
      await stage.completed([[left, 2]])
      t.deepEqual(left.story, ['1 rnr-retry-exceeded', '2 rnr-retry-exceeded'])
      receiveAll(right, 2)
      left.queuePair.send(message(left, 3, { destination: where }), message(left, 4, { destination: where }))
      await stage.completed([
        [left, 4],
        [right, 2],
      ])
      t.deepEqual(left.story.slice(2), ['3 success', '4 success'])
    },
  },
  {
    number: '28',
    name: 'a receive posted while the sender waits lets it go on within a few turns',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair()
      left.queuePair.send(message(left, 1))
      await stage.rest()
      receiveAll(right, 1)
      let turns = 0
      while (right.poll() === 0 && turns < 100) {
        stage.turns(1)
        turns++
      }
      t.true(turns <= 12, `${turns} turns`)
      await stage.completed([[left, 1]])
    },
  },
  {
    number: '29',
    name: 'datagram incast of 64 senders on few receives: fair, nothing dropped, nothing twice',
    where: 'both',
    run: async (t, stage) => {
      const [first, sink] = await stage.datagrams({ receiveSlots: 8, memoryByteLength: 1 << 17 })
      const senders = [first]
      while (senders.length < 64) senders.push(await stage.end(stage.left, 'datagram', { queue: first.queue }))
      const where = destination(stage.left, sink.queuePair)
      const each = 10
      for (const [from, end] of senders.entries()) {
        for (let index = 0; index < each; index++) {
          const immediate = from * each + index
          end.queuePair.send(message(end, immediate, { opcode: 'send-with-immediate', immediate, destination: where }))
        }
      }
      const arrivals: number[] = []
      await stage.until(() => {
        receiveAll(sink, 8)
        arrivals.push(...sink.queue.poll().map(({ immediate }) => immediate))
        first.poll()
        return arrivals.length >= 64 * each && first.done.length >= 64 * each
      }, 'all arrived')
      t.is(new Set(arrivals).size, 64 * each)
      const next = new Array<number>(64).fill(0)
      for (const immediate of arrivals) {
        const from = Math.floor(immediate / each)
        t.is(immediate % each, next[from]!, `order of sender ${from}`)
        next[from]!++
      }
      // When the last sender's first message came, nobody had sent everything twice over.
      const started = new Set(arrivals.slice(0, arrivals.length / 2).map((immediate) => Math.floor(immediate / each)))
      t.true(started.size >= 32, `${started.size} senders had their turn in the first half`)
      await stage.remove(sink)
      sink.poll()
    },
  },
  {
    number: '29b',
    name: 'more senders than a datagram queue pair remembers: idle ones give way and come back, nothing is lost or twice',
    where: 'both',
    run: async (t, stage) => {
      await stage.datagramPaths()
      const sink = await stage.end(stage.right, 'datagram', { receiveSlots: 64 })
      const queue = await stage.left.completionQueue(4096)
      const memory = await stage.left.region(4096)
      const senders: End[] = []
      while (senders.length < 400) {
        const queuePair = await stage.left.queuePair(queue, { type: 'datagram', sendSlots: 4, receiveSlots: 4 })
        senders.push(new End(queuePair, queue, memory))
      }
      const where = destination(stage.left, sink.queuePair)
      const arrived: number[] = []
      for (let round = 0; round < 3; round++) {
        for (const [index, end] of senders.entries()) {
          const immediate = round * 400 + index
          end.queuePair.send(
            message(end, 0, { opcode: 'send-with-immediate', immediate, destination: where, signaled: false }),
          )
          if (index % 100 !== 99) continue
          await stage.until(() => {
            receiveAll(sink, 64)
            arrived.push(...sink.queue.poll().map((completion) => completion.immediate))
            return arrived.length >= immediate + 1
          }, `all until ${immediate} arrived`)
        }
      }
      t.deepEqual(
        [...arrived].sort((one, two) => one - two),
        [...arrived.keys()],
      )
      t.is(queue.poll().length, 0, 'nobody was refused')
      const { flows } = stage.right.engine.queuePairs[sink.queuePair.number]!
      t.is(flows.size, 256)
      await stage.remove(sink)
      sink.poll()
    },
  },
  {
    number: '31',
    name: 'no frame is sent in a thousand idle turns',
    where: 'remote',
    run: async (t, stage) => {
      const [left, right] = await stage.pair()
      await exchange(stage, left, right, 300)
      await stage.rest()
      const before = frames(stage)
      stage.turns(1000)
      t.is(frames(stage), before)
    },
  },
  {
    number: '31b',
    name: 'acknowledgements ride on the messages of a ping-pong',
    where: 'remote',
    run: async (t, stage) => {
      const [left, right] = await stage.pair()
      const rounds = 200
      receiveAll(left, 64)
      receiveAll(right, 64)
      await stage.rest()
      const before = frames(stage)
      left.queuePair.send(message(left, 0, { signaled: false }))
      let [pings, pongs] = [0, 0]
      await stage.until(() => {
        for (const _ of right.queue.poll()) {
          receiveAll(right, 1)
          right.queuePair.send(message(right, pings++, { signaled: false }))
        }
        for (const _ of left.queue.poll()) {
          receiveAll(left, 1)
          if (++pongs < rounds) left.queuePair.send(message(left, pongs, { signaled: false }))
        }
        return pongs >= rounds
      }, 'the last pong')
      await stage.rest()
      const used = frames(stage) - before
      t.true(used <= rounds * 2 * 1.5, `${used} frames for ${rounds * 2} messages`)
      t.log(`${used} frames for ${rounds * 2} messages`)
      await stage.remove(left)
      left.poll()
      right.poll()
      await stage.rest()
      left.poll()
      right.poll()
    },
  },
  ...wraps(),
  {
    number: '33',
    name: 'a hundred reads with room for three under way: sends still pass, the device is never asked for more',
    where: 'remote',
    parameters: { readsInitiated: 4, readsAccepted: 4 },
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ sendSlots: 128, memoryByteLength: 8 << 20 })
      const [near, far] = await stage.pair()
      const remote = { key: right.memory.key, offset: 0 }
      for (let index = 0; index < 100; index++) {
        left.queuePair.send({ id: index, opcode: 'read', local: left.at(index * 65_536, 65_536), remote })
      }
      let sendsBefore = 0
      await stage.until(() => {
        if (stage.lane.readsOutstanding > 3) t.fail('too many reads under way')
        receiveAll(far, 8)
        near.queuePair.send(message(near, 0, { signaled: false }))
        sendsBefore += far.queue.poll().length
        return left.poll() >= 100
      }, 'all reads completed')
      t.true(sendsBefore >= 20, `${sendsBefore} sends passed`)
      t.deepEqual(
        left.done.map(({ id }) => id),
        [...left.done.keys()],
      )
      await stage.until(() => far.queue.poll().length >= 0 && stage.left.engine.outstanding() === 0, 'sends ended')
      await stage.remove(far)
      far.poll()
      await stage.remove(near)
      near.poll()
      far.poll()
    },
  },
  {
    number: '34',
    name: 'bytes of reads and writes under way stay inside the window of the lane',
    where: 'remote',
    options: { bulkWindowByteLength: 256 << 10 },
    parameters: { chunkByteLength: 64 << 10 },
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ memoryByteLength: 8 << 20 })
      const remote = { key: right.memory.key, offset: 0 }
      const flows = [left, ...(await Promise.all([0, 1, 2].map(async () => (await stage.pair())[0])))]
      for (const [index, { queuePair }] of flows.entries()) {
        const opcode = index % 2 === 0 ? 'read' : 'write'
        queuePair.send({ id: index, opcode, local: left.at(index << 20, 1 << 20), remote })
      }
      let most = 0
      await stage.until(() => {
        most = Math.max(most, stage.lane.bulkPostedByteLength)
        return flows.reduce((sum, end) => sum + end.poll(), 0) >= 4
      }, 'all completed')
      t.true(most <= 256 << 10, `${most} bytes under way`)
      t.true(most > 128 << 10, `${most} bytes under way: the window is used`)
    },
  },
  {
    number: '34b',
    name: 'a large slow receiver does not slow another queue pair of the same lane: counted in turns',
    where: 'remote',
    leaves: true,
    run: async (t, stage) => {
      const turnsFor = async (near: End, far: End): Promise<number> => {
        const before = stage.left.engine.turns
        await exchange(stage, near, far, 500)
        return stage.left.engine.turns - before
      }
      const [near, far] = await stage.pair({ sendSlots: 128, receiveSlots: 128 })
      const alone = await turnsFor(near, far)
      // A large message without a receive, one of which the receive comes late, and a queue full of eager ones without any.
      const [left, right] = await stage.pair({ memoryByteLength: 4 << 20 })
      for (let index = 0; index < 40; index++)
        left.queuePair.send({ id: index, opcode: 'send', local: left.at(0, 3 << 20) })
      const [eager] = await stage.pair()
      for (let index = 0; index < 60; index++) eager.queuePair.send(message(eager, index))
      stage.turns(20)
      const withSlow = await turnsFor(near, far)
      t.log(`500 messages took ${alone} turns alone, ${withSlow} beside a receiver that takes nothing`)
      t.true(withSlow <= alone * 1.5 + 20, `${alone} turns alone, ${withSlow} beside it`)
      right.queuePair.receive({ id: 0, local: right.at(0, 4 << 20) })
      const moving = await turnsFor(near, far)
      t.true(moving <= alone * 3 + 100, `${moving} turns while the large message moves`)
    },
  },
]

/** Messages from one to the other, as fast as slots allow; the receiver polls everything. */
async function exchange(stage: Stage, near: End, far: End, count: number): Promise<void> {
  const goal = near.done.length + count
  let sent = 0
  let received = 0
  await stage.until(() => {
    while (received < count && far.queuePair.receive({ id: received, local: far.at(0, 64) }) > 0) received++
    while (sent < received && near.queuePair.send(message(near, sent)) > 0) sent++
    far.poll()
    return near.poll() >= goal
  }, `${count} messages`)
  await stage.until(() => far.poll() >= 0 && far.done.length % count === 0, 'the last one arrived')
}

/** Every counter that can wrap, started shortly before it does. */
function wraps(): EngineCase[] {
  const edges = { '2^31': 0x7fffffff, '2^32': -1 }
  return Object.entries(edges).map(([name, edge]) => ({
    number: '32',
    name: `lane sequences, ledger, credit, sequences and ring positions pass ${name}`,
    where: 'remote' as const,
    run: async (t, stage) => {
      await stage.rest()
      const start = (edge - 40) | 0
      presetLane(stage, start)
      const choices = new Choices(edge >>> 0)
      const [left, right] = await connectedAt(stage, start)
      await stage.datagramPaths()
      const near = await stage.end(stage.left, 'datagram', {})
      const far = await stage.end(stage.right, 'datagram', {})
      for (const end of [near, far]) presetRings(stage, end.queuePair, start)
      let sent = 0
      for (const [from, to] of [
        [left, right],
        [right, left],
        [near, far],
        [far, near],
      ] as const) {
        const count = 200
        let ids = 0
        let posted = 0
        const begin = from.done.length
        const there = to.done.length
        const where = from === near || from === far ? { destination: destination(from.node, to.queuePair) } : {}
        await stage.until(() => {
          while (posted < count && to.queuePair.receive({ id: posted, local: to.at(0, 40_000) }) > 0) posted++
          while (ids < posted && ids < count) {
            const length = choices.pick([0, 8, 5000, 30_000])
            if (from.queuePair.send({ id: ids, opcode: 'send', local: from.at(0, length), ...where }) === 0) break
            ids++
            sent++
          }
          to.poll()
          return from.poll() >= begin + count && to.done.length >= there + count
        }, 'all across the wrap')
        const ordered = to.done.slice(there).every(({ id, status }, index) => id === index && status === 'success')
        t.true(ordered, `order of seed ${choices.seed}`)
      }
      t.is(sent, 800)
      t.true(((stage.lane.lastSequence - edge) | 0) > 0, 'the lane passed the edge')
    },
  }))
}

/** Both ends of an idle lane, as if so many frames had gone before. */
function presetLane(stage: Stage, start: number): void {
  const sides = [stage.left.engine.lanes[0]!, stage.right.engine.lanes[0]!] as const
  for (const lane of sides) {
    lane.lastSequence = start
    lane.lastReceived = start
    lane.consumed = start
    lane.peerLimit = (start + lane.bounceCount) | 0
    lane.advertisedLimit = lane.peerLimit
    lane.startLedgerAt(start)
  }
}

/** Rings of a new queue pair, as if so many requests had gone before: the engine takes it up anew. */
function presetRings(stage: Stage, queuePair: TestQueuePair, start: number): void {
  const { geometry, mapping } = queuePair
  const tail = 0
  const head = 16
  for (const offset of [geometry.sendRingOffset, geometry.receiveRingOffset]) {
    mapping.words.store(offset / 4 + tail, start)
    mapping.words.store(offset / 4 + head, start)
  }
  const engineQueuePair = queuePair.node.engine.queuePairs[queuePair.number]!
  engineQueuePair.sendRing.advance(start)
  engineQueuePair.receiveRing.advance(start)
  engineQueuePair.receivesTaken = start
  void stage
}

async function connectedAt(stage: Stage, start: number): Promise<[End, End]> {
  const left = await stage.end(stage.left, 'connected')
  const right = await stage.end(stage.right, 'connected')
  for (const end of [left, right]) presetRings(stage, end.queuePair, start)
  await stage.during(
    Promise.all([connectTo(left.queuePair, right.queuePair), connectTo(right.queuePair, left.queuePair)]),
  )
  return [left, right]
}

play(cases)
