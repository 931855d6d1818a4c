/** Completions: each once, none lost, who is woken, and the ends of queue pairs with work under way. */

import { ArmedBit } from '../../../client/arming.js'
import { queuePairState } from '../../../protocol/queue-pair-segment.js'
import { closeDescriptor, eventfdCreate, eventfdDrain } from '../../../shm/libc.js'
import { TestCompletionQueue } from '../../support/engine-client.js'
import { JOB, type TestSend } from '../../support/engine-node.js'
import { Choices, destination, type End } from '../../support/engine-stage.js'
import { type EngineCase, play } from './case.js'

const message = (end: End, id: number, more: Partial<TestSend> = {}): TestSend => ({
  id,
  opcode: 'send',
  local: end.at(0, 16),
  ...more,
})

function receive(end: End, count: number, length = 64, from = 0): void {
  for (let index = 0; index < count; index++) end.queuePair.receive({ id: from + index, local: end.at(0, length) })
}

const stateOf = (end: End): number => end.node.engine.queuePairs[end.queuePair.number]!.state

const cases: readonly EngineCase[] = [
  {
    number: '14',
    name: 'unsignaled success says nothing and gives its slot back; unsignaled failure is told',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ sendSlots: 4 })
      let sent = 0
      await stage.until(() => {
        receive(right, 8)
        if (sent < 400) sent += left.queuePair.send(message(left, sent, { signaled: false }))
        right.poll()
        return right.done.length >= 400
      }, '400 messages through 4 slots')
      t.is(left.poll(), 0)
      await stage.rest()
      left.queuePair.send(message(left, 7, { signaled: false, local: left.at(1 << 20, 8) }))
      await stage.completed([[left, 1]])
      t.deepEqual(left.story, ['7 local-protection-error'])
      await stage.remove(right)
      await stage.rest()
      right.poll()
    },
  },
  {
    number: '20',
    name: 'a completion ring polled by three takers gives each completion once',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ queueCapacity: 8 })
      const choices = new Choices(20)
      const { number, mapping, capacity, node } = right.queue
      const takers = [0, 1, 2].map(() => new TestCompletionQueue(node, number, mapping, capacity))
      const taken: number[] = []
      let sent = 0
      let received = 0
      await stage.until(() => {
        while (received < 1000 && right.queuePair.receive({ id: received, local: right.at(0, 64) }) > 0) received++
        while (sent < received && left.queuePair.send(message(left, sent, { signaled: false })) > 0) sent++
        for (const taker of takers)
          if (choices.chance(2)) taken.push(...taker.poll(choices.below(5)).map(({ id }) => id))
        return taken.length >= 1000
      }, 'all taken')
      t.deepEqual(
        [...taken].sort((one, two) => one - two),
        [...taken.keys()],
      )
    },
  },
  {
    number: '21',
    name: 'whoever arms, looks again and sleeps is woken: four thousand times',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair()
      const doorbell = eventfdCreate()
      const member = 33
      await stage.right.call('add-member', { job: JOB, member, doorbell })
      const armed = new ArmedBit(right.queue.mapping.words, member, false)
      const choices = new Choices(21)
      let slept = 0
      for (let round = 0; round < 4000; round++) {
        right.queuePair.receive({ id: round, local: right.at(0, 64) })
        left.queuePair.send(message(left, round, { signaled: false }))
        stage.turns(choices.below(stage.isLocal ? 3 : 12))
        armed.set()
        // The look after arming: what was published before is found here, what comes later rings.
        if (right.poll() > round) continue
        slept++
        const woken = (): boolean => {
          if (!eventfdDrain(doorbell)) return false
          // It may be a ring for an earlier round, which was found by looking: arm and look again.
          armed.set()
          return right.poll() > round
        }
        await stage.until(woken, `round ${round} of seed ${choices.seed} is woken`)
      }
      t.true(slept > 500 && slept < 4000, `${slept} sleeps`)
      await stage.right.call('remove-member', { job: JOB, member })
      closeDescriptor(doorbell)
    },
  },
  {
    number: '22',
    name: 'armed for solicited completions only: woken by flagged receives and by errors, by nothing else',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair()
      const doorbell = eventfdCreate()
      await stage.right.call('add-member', { job: JOB, member: 40, doorbell })
      const armed = new ArmedBit(right.queue.mapping.words, 40, true)
      const wakes = async (post: () => void): Promise<boolean> => {
        armed.set()
        const before = right.poll()
        post()
        await stage.until(() => right.poll() > before, 'it completed')
        // A wake-up may wait for the turn that finds nothing else to do.
        await stage.rest()
        return eventfdDrain(doorbell)
      }
      receive(right, 3)
      t.false(await wakes(() => left.queuePair.send(message(left, 1))), 'a plain receive')
      t.true(await wakes(() => left.queuePair.send(message(left, 2, { solicited: true }))), 'a solicited receive')
      receive(left, 1)
      t.false(await wakes(() => right.queuePair.send(message(right, 3))), 'a send of its own')
      t.true(
        await wakes(() => right.queuePair.send(message(right, 4, { local: right.at(1 << 20, 1) }))),
        'a failed send',
      )
      t.true(await wakes(() => left.queuePair.send(message(left, 5, { local: left.at(0, 65) }))), 'a failed receive')
      left.poll()
      await stage.right.call('remove-member', { job: JOB, member: 40 })
      closeDescriptor(doorbell)
      await stage.rest()
      left.poll()
    },
  },
  {
    number: '22b',
    name: 'a client cannot ring members of another job',
    where: 'local',
    run: async (t, stage) => {
      const [left, right] = await stage.pair()
      const doorbell = eventfdCreate()
      await stage.right.call('add-member', { job: 2, member: 41, doorbell })
      new ArmedBit(right.queue.mapping.words, 41, false).set()
      receive(right, 1)
      left.queuePair.send(message(left, 1))
      await stage.completed([
        [right, 1],
        [left, 1],
      ])
      t.false(eventfdDrain(doorbell))
      closeDescriptor(doorbell)
    },
  },
  {
    number: '23',
    name: 'closing waits until completions found room in the ring; with nobody left to read it does not',
    where: 'both',
    leaves: true,
    run: async (t, stage) => {
      for (const discard of [false, true]) {
        const [left, right] = await stage.pair({ queueCapacity: 4 })
        receive(right, 20)
        for (let index = 0; index < 20; index++) left.queuePair.send(message(left, index, { signaled: false }))
        stage.turns(100)
        let closed = false
        const { number, generation } = right.queuePair
        const removal = stage.right
          .call('remove-queue-pair', { number, generation, discard, reason: 'test' })
          .then(() => {
            closed = true
          })
        stage.turns(200)
        await new Promise(setImmediate)
        t.is(closed, discard, discard ? 'dropped at once' : 'waits for the poller')
        await stage.until(() => right.poll() >= (discard ? 4 : 20) && closed, 'closed')
        await removal
        t.true(right.done.every(({ status }) => status === 'success'))
        t.is(right.done.length, discard ? 4 : 20)
      }
    },
  },
  {
    number: '23b',
    name: 'closing flushes what waits, gives what is under way its outcome, and both ends go down',
    where: 'both',
    leaves: true,
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ memoryByteLength: 8 << 20 })
      const [near, far] = await stage.pair()
      receive(right, 1, 6 << 20)
      // One large message under way with its receive, then some that wait for receives that never come.
      left.queuePair.send(message(left, 1, { local: left.at(0, 6 << 20) }), message(left, 2), message(left, 3))
      receive(left, 2)
      right.queuePair.send(message(right, 9))
      const moving = (): boolean => {
        const flow = stage.left.engine.queuePairs[left.queuePair.number]!.flow!
        return flow.unposted > 0 || flow.moving !== null
      }
      await stage.until(moving, 'the large message moves')
      await stage.remove(left)
      left.poll()
      t.deepEqual(left.story.sort(), ['0 success', '1 flushed', '1 success', '2 flushed', '3 flushed'])
      await stage.until(() => right.poll() >= 2, 'the other end completed')
      t.deepEqual(right.story.sort(), ['0 success', '9 success'])
      await stage.until(() => stateOf(right) === queuePairState.error, 'the other end went down')
      receive(right, 1)
      right.queuePair.send(message(right, 10))
      await stage.until(() => right.poll() >= 4, 'what is posted afterwards')
      t.deepEqual(right.story.slice(2).sort(), ['0 flushed', '10 flushed'])
      await stage.remove(right)
      receive(far, 1)
      near.queuePair.send(message(near, 1))
      await stage.completed([
        [near, 1],
        [far, 1],
      ])
      t.deepEqual(near.story, ['1 success'])
    },
  },
  {
    number: '23c',
    name: 'a queue pair that fails while its peer sends: the shared queue pair and the neighbour do not notice',
    where: 'both',
    leaves: true,
    run: async (t, stage) => {
      for (const length of [16, 9000, 60_000]) {
        const [left, right] = await stage.pair({ sendSlots: 64, memoryByteLength: 1 << 17 })
        const [near, far] = await stage.pair()
        receive(right, 64, 1 << 16)
        for (let index = 0; index < 64; index++)
          left.queuePair.send(message(left, index, { local: left.at(0, length) }))
        stage.turns(1)
        // The receiver's broker finds its segment scribbled over in the middle of it.
        stage.right.engine.corrupt(stage.right.engine.queuePairs[right.queuePair.number]!, 'test')
        receive(far, 64)
        for (let index = 0; index < 64; index++) near.queuePair.send(message(near, index))
        await stage.completed([
          [near, 64],
          [far, 64],
          [left, 64],
          [right, 64],
        ])
        t.true(near.done.every(({ status }) => status === 'success'))
        const arrived = right.done.filter(({ status }) => status === 'success').length
        const told = left.done.filter(({ status }) => status === 'success').length
        t.is(told, arrived, 'success means that the receive was told, and flushed that it was not')
        t.true([...left.done, ...right.done].every(({ status }) => status === 'success' || status === 'flushed'))
        t.deepEqual(
          left.done.map(({ id }) => id),
          [...left.done.keys()],
          'in order',
        )
        if (!stage.isLocal) t.is(stage.lane.state, 'up')
        await stage.remove(left)
        await stage.remove(right)
      }
    },
  },
  {
    number: '23d',
    name: 'both ends close at the same instant with traffic both ways',
    where: 'both',
    leaves: true,
    run: async (t, stage) => {
      const choices = new Choices(23)
      for (let round = 0; round < 20; round++) {
        const ends = await stage.pair({ memoryByteLength: 1 << 18, sendSlots: 16, receiveSlots: 16 })
        for (const end of ends) {
          receive(end, 16, 1 << 16)
          for (let index = 0; index < 16; index++) {
            end.queuePair.send(message(end, 100 + index, { local: end.at(0, choices.pick([0, 100, 10_000, 50_000])) }))
          }
        }
        stage.turns(choices.below(8))
        await Promise.all(ends.map((end) => stage.remove(end)))
        const successes = ends.map((end) => {
          end.poll()
          t.is(end.done.length, 32, `every request has one outcome, round ${round}`)
          return [
            end.done.filter(({ id, status }) => id < 100 && status === 'success').length,
            end.done.filter(({ id, status }) => id >= 100 && status === 'success').length,
          ]
        })
        t.is(successes[0]![0], successes[1]![1])
        t.is(successes[1]![0], successes[0]![1])
      }
    },
  },
  {
    number: '23e',
    name: 'a datagram queue pair closes: its senders learn that nobody is there, its own requests get their outcome',
    where: 'both',
    leaves: true,
    run: async (t, stage) => {
      const [left, right] = await stage.datagrams()
      const there = destination(stage.left, right.queuePair)
      const back = destination(stage.right, left.queuePair)
      receive(right, 2)
      // Two arrive, the rest is told to come again; of the answers none finds a receive.
      for (let index = 0; index < 6; index++) left.queuePair.send(message(left, index, { destination: there }))
      for (let index = 0; index < 3; index++) right.queuePair.send(message(right, 100 + index, { destination: back }))
      stage.turns(30)
      await stage.remove(right)
      right.poll()
      t.deepEqual(right.story.sort(), ['0 success', '1 success', '100 flushed', '101 flushed', '102 flushed'])
      await stage.completed([[left, 6]])
      t.deepEqual(left.story, ['0 success', '1 success', ...[2, 3, 4, 5].map((id) => `${id} remote-invalid-request`)])
      left.queuePair.send(message(left, 50, { destination: there }))
      left.queuePair.send({
        ...message(left, 51, { destination: there, opcode: 'write-with-immediate' }),
        remote: { key: left.memory.key, offset: 0 },
      })
      await stage.completed([[left, 8]])
      t.true(
        left.done
          .slice(6)
          .every(({ status }) => status === 'remote-invalid-request' || status === 'remote-access-error'),
      )
    },
  },
  {
    number: '23f',
    name: 'the receiver is removed in the middle of a large copy on the same node',
    where: 'local',
    leaves: true,
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ memoryByteLength: 32 << 20 })
      receive(right, 1, 32 << 20)
      left.queuePair.send(message(left, 1, { local: left.at(0, 32 << 20) }), message(left, 2))
      stage.turns(3)
      await stage.remove(right)
      await stage.completed([[left, 2]])
      right.poll()
      t.deepEqual(left.story, ['1 success', '2 flushed'])
      t.deepEqual(right.story, ['0 success'])
    },
  },
]

play(cases)
