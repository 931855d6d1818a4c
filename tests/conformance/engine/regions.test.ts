/** Regions: closing them while others use them, and keys that outlive them. */

import { breakLane } from '../../../broker/engine/lanes.js'
import { packKey } from '../../../protocol/keys.js'
import type { TestRegion } from '../../support/engine-node.js'
import { Choices, type Stage } from '../../support/engine-stage.js'
import { type EngineCase, play } from './case.js'

const numberOf = (region: TestRegion): { number: number; generation: number } => ({
  number: region.key % 2 ** 24,
  generation: Math.floor(region.key / 2 ** 24),
})

const remove = (stage: Stage, region: TestRegion): Promise<null> => stage.right.call('remove-region', numberOf(region))

const cases: readonly EngineCase[] = [
  {
    number: '51',
    name: 'a region is closed with a thousand writes of a peer under way: closing waits, no lane error',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ sendSlots: 1024, memoryByteLength: 1 << 20, queueCapacity: 2048 })
      const [near, far] = await stage.pair()
      const target = await stage.right.region(1 << 20)
      for (let id = 0; id < 1000; id++) {
        const remote = { key: target.key, offset: (id % 16) * 65_536 }
        left.queuePair.send({ id, opcode: 'write', local: left.at(0, 65_536), remote })
      }
      await stage.until(() => left.poll() >= 100, 'some are done')
      let closed = false
      let doneBefore = 0
      const closing = remove(stage, target).then(() => {
        closed = true
      })
      await stage.until(() => {
        if (!closed) doneBefore = left.poll()
        return closed
      }, 'closed')
      await closing
      await stage.completed([[left, 1000]])
      const successes = left.done.filter(({ status }) => status === 'success').length
      t.true(left.done.every(({ status }) => status === 'success' || status === 'remote-access-error'))
      t.true(
        left.done.slice(0, successes).every(({ status }) => status === 'success'),
        'those under way, then refusals',
      )
      t.true(doneBefore >= 100)
      if (!stage.isLocal) {
        t.is(stage.lane.state, 'up')
        t.true(successes < 1000, 'those that waited are refused')
      }
      far.queuePair.receive({ id: 1, local: far.at(0, 8) })
      near.queuePair.send({ id: 1, opcode: 'send', local: near.at(0, 8) })
      await stage.completed([
        [near, 1],
        [far, 1],
      ])
      void right
    },
  },
  {
    number: '53',
    name: 'a region whose peer is silent is closed when the lane to the peer is given up',
    where: 'remote',
    leaves: true,
    run: async (t, stage) => {
      const [left] = await stage.pair()
      const target = await stage.right.region(4096)
      left.queuePair.send({ id: 1, opcode: 'write', local: left.at(0, 8), remote: { key: target.key, offset: 0 } })
      await stage.completed([[left, 1]])
      let closed = false
      void remove(stage, target).then(() => {
        closed = true
      })
      // Only the owner turns: the peer has stopped.
      for (let turn = 0; turn < 200; turn++) {
        stage.right.turn()
        if (turn % 20 === 0) await new Promise(setImmediate)
      }
      t.false(closed, 'the peer may still write')
      breakLane(stage.right.engine, stage.right.engine.lanes[0]!, 'silent')
      for (let turn = 0; turn < 20 && !closed; turn++) {
        stage.right.turn()
        await new Promise(setImmediate)
      }
      t.true(closed)
    },
  },
  {
    number: '54',
    name: 'keys are resolved and revoked at the same time, five hundred times',
    where: 'both',
    run: async (t, stage) => {
      const choices = new Choices(54)
      const [left] = await stage.pair({ sendSlots: 16 })
      const [near] = await stage.pair({ sendSlots: 16 })
      let refused = 0
      for (let round = 0; round < 500; round++) {
        const target = await stage.right.region(4096)
        const remote = { key: target.key, offset: 0 }
        const count = 1 + choices.below(4)
        for (let id = 0; id < count; id++) {
          const opcode = choices.pick(['write', 'read', 'fetch-and-add'] as const)
          for (const end of [left, near]) end.queuePair.send({ id, opcode, local: end.at(0, 8), remote, swap: 1n })
        }
        stage.turns(choices.below(6))
        const closing = remove(stage, target)
        await stage.until(() => left.poll() >= count && near.poll() >= count, `round ${round} of seed ${choices.seed}`)
        await stage.during(closing)
        for (const end of [left, near]) {
          if (!end.done.every(({ status }) => status === 'success' || status === 'remote-access-error')) {
            t.fail(end.story.join())
          }
          refused += end.done.filter(({ status }) => status !== 'success').length
          end.done.length = 0
        }
      }
      t.true(refused > 50, `${refused} refusals`)
      for (const group of stage.left.engine.groups.values()) t.is(group.remoteRegions.size, 0, 'no key is remembered')
    },
  },
  {
    number: '55',
    name: 'a row used again under another generation: the old key is refused, the new one works',
    where: 'both',
    run: async (t, stage) => {
      const [left] = await stage.pair()
      const first = await stage.right.region(4096)
      const write = (id: number, key: number): number =>
        left.queuePair.send({ id, opcode: 'write', local: left.at(0, 8), remote: { key, offset: 0 } })
      write(1, first.key)
      await stage.completed([[left, 1]])
      await stage.during(remove(stage, first))
      const { number } = numberOf(first)
      const span = first.mapping
      const file = { span, descriptor: span.fd, byteLength: 4096 }
      await stage.right.call('add-region', { number, generation: 2, job: 1, ...file, rights: 15 })
      write(2, first.key)
      write(3, packKey(number, 2))
      await stage.completed([[left, 3]])
      t.deepEqual(left.story, ['1 success', '2 remote-access-error', '3 success'])
    },
  },
  {
    number: '56',
    name: 'the owner of memory and queue pair is killed while a peer writes: swept, closed, nobody else notices',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ memoryByteLength: 16 << 20 })
      const [near, far] = await stage.pair()
      const remote = { key: right.memory.key, offset: 0 }
      left.queuePair.send(
        { id: 1, opcode: 'write', local: left.at(0, 16 << 20), remote },
        { id: 2, opcode: 'send', local: left.at(0, 8) },
      )
      const moving = (): boolean => stage.left.engine.queuePairs[left.queuePair.number]!.flow!.moving !== null
      await stage.until(moving, 'the write moves')
      const sweep = stage.right.call('sweep-member', { job: 1, member: 1, generation: 1 })
      const removal = stage.remove(right, true)
      const closing = remove(stage, right.memory)
      await stage.during(Promise.all([sweep, removal, closing]))
      await stage.completed([[left, 2]])
      t.deepEqual(left.story, ['1 success', '2 flushed'])
      far.queuePair.receive({ id: 1, local: far.at(0, 8) })
      near.queuePair.send({ id: 1, opcode: 'send', local: near.at(0, 8) })
      await stage.completed([
        [near, 1],
        [far, 1],
      ])
      t.deepEqual(near.story, ['1 success'])
    },
  },
  {
    number: '56b',
    name: 'a region closed under its own requests: those under way end, those that wait are refused, later receives too',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair()
      const source = await stage.right.region(4096)
      const entry = [{ region: source, offset: 0, length: 64 }]
      right.queuePair.send({ id: 1, opcode: 'send', local: entry })
      right.queuePair.receive({ id: 2, local: entry })
      await stage.rest()
      await stage.during(remove(stage, source))
      left.queuePair.receive({ id: 3, local: left.at(0, 64) }, { id: 4, local: left.at(0, 64) })
      right.queuePair.send({ id: 5, opcode: 'send', local: right.at(0, 8) })
      left.queuePair.send({ id: 6, opcode: 'send', local: left.at(0, 8) })
      await stage.until(() => left.poll() >= 2 && right.poll() >= 3, 'all have an outcome')
      t.deepEqual(right.story.sort(), ['1 local-protection-error', '2 local-protection-error', '5 success'])
      t.deepEqual(left.story.sort(), ['3 success', '6 remote-operation-error'])
      await stage.remove(left)
      left.poll()
    },
  },
]

play(cases)
