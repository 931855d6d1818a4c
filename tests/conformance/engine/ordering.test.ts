/** Order inside a queue pair, independence of queue pairs that share a lane. */
import { writeRoute } from '../../../broker/engine/route.js'
import { messageType } from '../../../protocol/wire.js'
import { connect, type TestSend } from '../../support/engine-node.js'
import { destination, type End, type Stage } from '../../support/engine-stage.js'
import { type EngineCase, play } from './case.js'

const MIB = 1 << 20

/** So many small receives, ids counting from `from`, at the end of the memory. */
function receiveSmall(end: End, count: number, from = 100): void {
  const last = end.u8.length - count * 64
  for (let index = 0; index < count; index++) {
    end.queuePair.receive({ id: from + index, local: end.at(last + index * 64, 64) })
  }
}

const small = (end: End, id: number, more: Partial<TestSend> = {}): TestSend => ({
  id,
  opcode: 'send',
  local: end.at(0, 32),
  ...more,
})

/** Marks every 4,096th byte: enough to see that a page of a large transfer has arrived. */
function stamp(end: End, offset: number, byteLength: number, seed: number): void {
  for (let at = 0; at < byteLength; at += 4096) end.u8[offset + at] = (seed + (at >>> 12)) & 0xff
  end.u8[offset + byteLength - 1] = seed
}

function isStamped(end: End, offset: number, byteLength: number, seed: number): boolean {
  for (let at = 0; at < byteLength; at += 4096) if (end.u8[offset + at] !== ((seed + (at >>> 12)) & 0xff)) return false
  return end.u8[offset + byteLength - 1] === seed
}

async function writeThenSend(stage: Stage): Promise<{ before: number; complete: boolean }> {
  const byteLength = 64 * MIB
  const [left, right] = await stage.pair({ memoryByteLength: byteLength + MIB })
  const [other, far] = await stage.pair()
  stamp(left, 0, byteLength, 7)
  receiveSmall(right, 1)
  left.queuePair.send(
    { id: 1, opcode: 'write', local: left.at(0, byteLength), remote: { key: right.memory.key, offset: 0 } },
    small(left, 2),
  )
  let before = 0
  let complete = false
  await stage.until(() => {
    far.queuePair.receive({ id: 0, local: far.at(64, 64) })
    other.queuePair.send(small(other, 0, { signaled: false }))
    far.poll()
    if (right.poll() === 0) return false
    before = far.done.length
    complete = isStamped(right, 0, byteLength, 7)
    return true
  }, 'the small send arrived')
  await stage.completed([[left, 2]])
  // Whatever was posted for the other queue pair is used up, so that nothing is left.
  await stage.until(() => {
    far.poll()
    return far.done.length >= 1 && stage.left.engine.outstanding() === 0
  }, 'the other queue pair is quiet')
  await stage.remove(far)
  await stage.remove(other)
  far.poll()
  other.poll()
  return { before, complete }
}

const cases: readonly EngineCase[] = [
  {
    number: '1',
    name: 'ten thousand sends arrive in order',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair()
      let sent = 0
      let received = 0
      await stage.until(() => {
        for (; received < right.done.length + 64; received++) {
          if (right.queuePair.receive({ id: received, local: right.at((received % 64) * 16, 16) }) === 0) break
        }
        for (; sent < 10_000; sent++) {
          const immediate = sent
          const request = { id: sent, opcode: 'send-with-immediate', local: left.at(0, sent % 17), immediate } as const
          if (left.queuePair.send({ ...request, signaled: sent % 10 === 9 }) === 0) break
        }
        left.poll()
        return right.poll() >= 10_000
      }, 'all arrived')
      right.done.slice(0, 10_000).forEach((completion, index) => {
        if (completion.immediate === index && completion.id === index && completion.byteLength === index % 17) return
        t.fail(`completion ${index} is ${JSON.stringify(completion)}`)
      })
      await stage.completed([[left, 1000]])
      t.deepEqual(left.done.map(({ id }) => id).slice(0, 3), [9, 19, 29])
      await stage.remove(right)
      right.poll()
    },
  },
  {
    number: '5',
    name: 'a write of 64 MiB is there when the small send behind it arrives; another queue pair goes on meanwhile',
    where: 'both',
    run: async (t, stage) => {
      const { before, complete } = await writeThenSend(stage)
      t.true(complete)
      t.true(before > 20, `${before} messages of another queue pair arrived before`)
    },
  },
  {
    number: '6',
    name: 'a small send behind a large one is placed at once, told in order, and holds no bounce buffer',
    where: 'remote',
    run: async (t, stage) => {
      const byteLength = 16 * MIB
      const [left, right] = await stage.pair({ memoryByteLength: byteLength + MIB })
      left.fill(0, 5000, 3)
      stamp(left, 8192, byteLength, 9)
      right.queuePair.receive({ id: 100, local: right.at(8192, byteLength) })
      receiveSmall(right, 2, 101)
      left.queuePair.send(
        { id: 1, opcode: 'send', local: left.at(8192, byteLength) },
        { id: 2, opcode: 'send', local: left.at(0, 40) },
        { id: 3, opcode: 'send', local: left.at(0, 50) },
      )
      const lane = stage.right.engine.lanes[0]!
      let placedBefore = 0
      await stage.until(() => {
        if (lane.lastReceived !== lane.consumed) t.fail('a bounce buffer is held')
        const placed = right.holds(right.u8.length - 128, 40, 3) && right.holds(right.u8.length - 64, 50, 3)
        if (placed && right.done.length === 0) placedBefore++
        return right.poll() >= 3
      }, 'all three arrived')
      t.true(placedBefore > 1, 'the small ones were placed while the large one moved')
      t.deepEqual(right.story, ['100 success', '101 success', '102 success'])
      t.true(isStamped(right, 8192, byteLength, 9))
      await stage.completed([[left, 3]])
      t.deepEqual(left.story, ['1 success', '2 success', '3 success'])
    },
  },
  {
    number: '7',
    name: 'a fenced write behind a large send is not visible before the receive is told',
    where: 'both',
    run: async (t, stage) => {
      const byteLength = 8 * MIB
      const [left, right] = await stage.pair({ memoryByteLength: byteLength + MIB })
      right.queuePair.receive({ id: 100, local: right.at(64, byteLength) })
      left.u8[0] = 77
      left.queuePair.send(
        { id: 1, opcode: 'send', local: left.at(64, byteLength) },
        { id: 2, opcode: 'write', local: left.at(0, 1), remote: { key: right.memory.key, offset: 8 }, fence: true },
      )
      await stage.until(() => {
        const visible = right.u8[8] === 77
        right.poll()
        if (visible && right.done.length === 0) t.fail('the flag came first')
        return left.poll() >= 2
      }, 'both completed')
      t.is(right.u8[8], 77)
      t.deepEqual(right.story, ['100 success'])
    },
  },
  {
    number: '8',
    name: 'a read before a fenced write of the same bytes returns the old value',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ memoryByteLength: 4 * MIB })
      right.fill(0, 2 * MIB, 5)
      left.fill(2 * MIB, 2 * MIB, 6)
      const remote = { key: right.memory.key, offset: 0 }
      left.queuePair.send(
        { id: 1, opcode: 'read', local: left.at(0, 2 * MIB), remote },
        { id: 2, opcode: 'write', local: left.at(2 * MIB, 2 * MIB), remote, fence: true },
      )
      await stage.completed([[left, 2]])
      t.true(left.holds(0, 2 * MIB, 5))
      t.true(right.holds(0, 2 * MIB, 6))
    },
  },
  {
    number: '9',
    name: 'a read behind an atomic sees it, without a fence',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ sendSlots: 256 })
      const remote = { key: right.memory.key, offset: 64 }
      for (let round = 0; round < 50; round++) {
        left.queuePair.send(
          { id: 2 * round, opcode: 'fetch-and-add', local: left.at(round * 16, 8), remote, swap: 3n },
          { id: 2 * round + 1, opcode: 'read', local: left.at(round * 16 + 8, 8), remote },
        )
      }
      await stage.completed([[left, 100]])
      const { i64 } = left.memory.mapping.memory
      for (let round = 0; round < 50; round++) {
        t.is(i64[round * 2], BigInt(round * 3))
        t.is(i64[round * 2 + 1], BigInt(round * 3 + 3))
      }
    },
  },
  ...independence(),
  {
    number: '11',
    name: 'datagrams keep their order to each destination, and one that is not ready holds up no other',
    where: 'both',
    run: async (t, stage) => {
      const [left, slow] = await stage.datagrams({ sendSlots: 256 })
      const quick = await stage.end(stage.right, 'datagram')
      receiveSmall(quick, 40)
      for (let index = 0; index < 40; index++) {
        for (const to of [slow, quick]) {
          const where = destination(stage.left, to.queuePair)
          left.queuePair.send(
            small(left, index, { opcode: 'send-with-immediate', immediate: index, destination: where }),
          )
        }
      }
      await stage.completed([[quick, 40]])
      t.is(slow.poll(), 0)
      t.deepEqual(
        quick.done.map(({ immediate }) => immediate),
        [...quick.done.keys()],
      )
      receiveSmall(slow, 40)
      await stage.completed([
        [slow, 40],
        [left, 80],
      ])
      t.deepEqual(
        slow.done.map(({ immediate }) => immediate),
        [...slow.done.keys()],
      )
      t.true(left.done.every(({ status }) => status === 'success'))
    },
  },
  {
    number: '12',
    name: 'write with immediate: data before the notice, zero length consumes a receive, lengths as written',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ memoryByteLength: 4 * MIB })
      const lengths = [0, 1, 8, 4095, 4096, 262_144, 262_145, 3 * MIB]
      for (const [index, length] of lengths.entries()) {
        receiveSmall(right, 1, index)
        left.fill(0, length, index + 1)
        const remote = { key: right.memory.key, offset: 0 }
        left.queuePair.send({
          id: index,
          opcode: 'write-with-immediate',
          local: left.at(0, length),
          remote,
          immediate: length,
        })
        await stage.until(() => right.poll() > index, 'the notice')
        t.true(right.holds(0, length, index + 1), `${length} bytes are there with the notice`)
        await stage.completed([[left, index + 1]])
      }
      t.deepEqual(
        right.done.map(({ byteLength }) => byteLength),
        lengths,
      )
      t.deepEqual(
        right.done.map(({ immediate }) => immediate),
        lengths,
      )
      t.true(right.done.every(({ opcode }) => opcode === 'receive-with-immediate'))
    },
  },
  {
    number: '12b',
    name: 'the length of a notice has more than 32 bits of room',
    where: 'remote',
    leaves: true,
    run: async (t, stage) => {
      const [left, right] = await stage.pair()
      receiveSmall(right, 1)
      stage.turns(4)
      // The largest write there is would take the machine's memory: only its notice is played, with the true sender's route.
      const lane = stage.lane
      const flow = stage.left.engine.queuePairs[left.queuePair.number]!.flow!
      const offset = lane.beginMessage(8, 0)
      writeRoute(lane, offset, messageType.immediate, 2, 8, flow, 1, 5, 0)
      lane.memory.f64[lane.payloadOffset(offset) / 8] = 0xfffff000
      lane.closeFrame()
      stage.left.engine.flushLane(lane)
      await stage.completed([[right, 1]])
      t.is(right.done[0]!.byteLength, 0xfffff000)
    },
  },
  {
    number: '13',
    name: 'a queue pair connected to itself',
    where: 'local',
    run: async (t, stage) => {
      const self = await stage.end(stage.left, 'connected', { memoryByteLength: 4 * MIB })
      await connect(self.queuePair, self.queuePair)
      self.fill(0, 2 * MIB, 4)
      self.queuePair.receive({ id: 100, local: self.at(2 * MIB, 2 * MIB) }, { id: 101, local: self.at(64, 64) })
      self.queuePair.send(
        { id: 1, opcode: 'send', local: self.at(0, 2 * MIB) },
        {
          id: 2,
          opcode: 'fetch-and-add',
          local: self.at(0, 8),
          remote: { key: self.memory.key, offset: 16 },
          swap: 1n,
        },
        { id: 3, opcode: 'send', local: self.at(0, 64) },
      )
      await stage.completed([[self, 5]])
      t.true(self.done.every(({ status }) => status === 'success'))
      t.true(self.holds(2 * MIB, 16, 4))
      await stage.remove(self)
    },
  },
]

/** One of two queue pairs of a lane cannot go on, for each reason there is; the other does not notice. */
function independence(): EngineCase[] {
  const reasons: Record<string, (stage: Stage, left: End, right: End) => Promise<() => void>> = {
    'a receive at the peer': async (_stage, left, right) => {
      left.queuePair.send(small(left, 1))
      return () => receiveSmall(right, 1)
    },
    'the answer about a key': async (stage, left, right) => {
      const remote = { key: right.memory.key, offset: 0 }
      if (stage.isLocal) return async () => {}
      const known = stage.lane.group.remoteRegion(right.memory.key)
      // As if the question were on its way.
      known.carrier = stage.lane
      left.queuePair.send({ id: 1, opcode: 'write', local: left.at(0, 8), remote })
      return () => {
        known.carrier = null
        stage.left.engine.wakeKeyWaiters(stage.lane.group)
      }
    },
    'a fence': async (_stage, left, right) => {
      const remote = { key: right.memory.key, offset: 0 }
      left.queuePair.send(small(left, 1), { id: 2, opcode: 'write', local: left.at(0, 8), remote, fence: true })
      return () => receiveSmall(right, 1)
    },
    'room in a completion ring': async (stage, left, right) => {
      const ring = left.queue.mapping.words
      const head = 128 / 4
      const before = ring.load(head)
      // A ring whose pollers stand still a whole lap behind.
      ring.store(head, (before - left.queue.capacity) | 0)
      receiveSmall(right, 1)
      left.queuePair.send(small(left, 1))
      await stage.until(() => right.poll() >= 1, 'the message arrived')
      return () => ring.store(head, before)
    },
  }
  return Object.entries(reasons).map(([reason, begin]) => ({
    number: '10',
    name: `a queue pair that waits for ${reason} does not hold up its neighbour`,
    where: 'remote' as const,
    run: async (t, stage) => {
      const [left, right] = await stage.pair()
      const [near, far] = await stage.pair({ sendSlots: 256, receiveSlots: 256 })
      const release = await begin(stage, left, right)
      for (let index = 0; index < 200; index++) {
        far.queuePair.receive({ id: index, local: far.at(index * 64, 64) })
        near.queuePair.send(small(near, index))
      }
      await stage.completed([
        [far, 200],
        [near, 200],
      ])
      t.is(left.poll(), 0)
      release()
      await stage.until(() => {
        right.poll()
        return left.poll() >= 1 && stage.left.engine.outstanding() === 0
      }, 'it goes on')
      t.true(left.done.every(({ status }) => status === 'success'))
      await stage.rest()
      left.poll()
    },
  }))
}

play(cases)
