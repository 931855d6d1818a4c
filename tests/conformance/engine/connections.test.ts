/** Connecting and disconnecting: every order in which both sides may do it, and everybody learns the end of it. */
import type { EngineEvents } from '../../../broker/engine/commands.js'
import { queuePairState } from '../../../protocol/queue-pair-segment.js'
import { rejectReason } from '../../../protocol/wire.js'
import { connect, connectTo, type TestQueuePair } from '../../support/engine-node.js'
import { Choices, type End, type Stage } from '../../support/engine-stage.js'
import { type EngineCase, play } from './case.js'

const failure = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'connected',
    (error: { code: string; message: string }) => `${error.code}: ${error.message}`,
  )

const stateOf = ({ node, number }: TestQueuePair): number => node.engine.queuePairs[number]!.state

function byService(stage: Stage, from: TestQueuePair, service: string, timeoutMs = 5000) {
  return from.node.call('connect-queue-pair', {
    number: from.number,
    generation: 1,
    lane: stage.isLocal ? null : 0,
    peer: stage.left.peerOf(stage.right),
    remote: { service },
    timeoutMs,
  })
}

async function offered(stage: Stage, count = 1): Promise<EngineEvents['connection-request']> {
  const offers = () => stage.right.events.filter(({ name }) => name === 'connection-request')
  await stage.until(() => offers().length >= count, 'the listener is asked')
  return offers()[count - 1]!.body as EngineEvents['connection-request']
}

async function talk(stage: Stage, left: End, right: End): Promise<void> {
  for (const [from, to] of [
    [left, right],
    [right, left],
  ] as const) {
    const [sent, received] = [from.done.length, to.done.length]
    to.queuePair.receive({ id: 1, local: to.at(0, 64) })
    from.queuePair.send({ id: 2, opcode: 'send', local: from.at(0, 64) })
    await stage.completed(
      from === to
        ? [[from, sent + 2]]
        : [
            [from, sent + 1],
            [to, received + 1],
          ],
    )
  }
}

const cases: readonly EngineCase[] = [
  {
    number: '82',
    name: 'both connect at once, or one after the other in any number of turns',
    where: 'both',
    run: async (t, stage) => {
      const choices = new Choices(82)
      for (let round = 0; round < 30; round++) {
        const left = await stage.end(stage.left, 'connected')
        const right = await stage.end(stage.right, 'connected')
        const [one, two] = choices.chance(2) ? [left, right] : [right, left]
        const first = connectTo(one.queuePair, two.queuePair)
        stage.turns(choices.below(12))
        const second = connectTo(two.queuePair, one.queuePair)
        const answers = await stage.during(Promise.all([first, second]))
        t.deepEqual(
          answers.map(({ number }) => number),
          [two.queuePair.number, one.queuePair.number],
        )
        await talk(stage, left, right)
      }
    },
  },
  {
    number: '82b',
    name: 'a connect to one that connects to a third is rejected as busy',
    where: 'both',
    run: async (t, stage) => {
      const left = await stage.end(stage.left, 'connected')
      const right = await stage.end(stage.right, 'connected')
      const third = await stage.end(stage.left, 'connected')
      const toThird = failure(connectTo(right.queuePair, third.queuePair, 0, 200))
      const toRight = failure(connectTo(left.queuePair, right.queuePair, 0, 5000))
      t.regex(await stage.during(toRight), /^connection-rejected: .*busy/)
      t.regex(await stage.during(toThird), /^timeout/)
      // Nobody is spoiled by what failed.
      await connect(third.queuePair, right.queuePair)
      await talk(stage, third, right)
    },
  },
  {
    number: '82c',
    name: 'connects to an idle, a dead, a future, a missing and a datagram queue pair',
    where: 'both',
    run: async (t, stage) => {
      const left = await stage.end(stage.left, 'connected')
      const right = await stage.end(stage.right, 'connected')
      const datagram = await stage.end(stage.right, 'datagram')
      const to = (number: number, generation: number, timeoutMs: number): Promise<string> =>
        stage.during(
          failure(
            stage.left.call('connect-queue-pair', {
              number: left.queuePair.number,
              generation: 1,
              lane: stage.isLocal ? null : 0,
              peer: stage.left.peerOf(stage.right),
              remote: { number, generation },
              timeoutMs,
            }),
          ),
        )
      t.regex(await to(right.queuePair.number, 1, 30), /^timeout/)
      t.is(stateOf(left.queuePair), queuePairState.idle)
      t.regex(await to(right.queuePair.number, 2, 5000), /^connection-rejected: .*stale/)
      t.regex(await to(9999, 1, 5000), /^connection-rejected: .*no-such-queue-pair/)
      t.regex(await to(datagram.queuePair.number, 1, 5000), /^connection-rejected: .*wrong-type/)
      await stage.rest()
      t.is(
        stage.right.engine.queuePairs[right.queuePair.number]!.held,
        null,
        'the connect that timed out was taken back',
      )
      const third = await stage.end(stage.left, 'connected')
      await connect(third.queuePair, right.queuePair)
      await talk(stage, third, right)
    },
  },
  {
    number: '82d',
    name: 'a connect waits for the peer; its queue pair goes, or fails, while it waits',
    where: 'both',
    leaves: true,
    run: async (t, stage) => {
      const left = await stage.end(stage.left, 'connected')
      const right = await stage.end(stage.right, 'connected')
      const waiting = failure(connectTo(left.queuePair, right.queuePair))
      left.queuePair.send({ id: 1, opcode: 'send', local: left.at(0, 8) })
      stage.turns(20)
      await stage.remove(right)
      t.regex(await stage.during(waiting), /^connection-rejected: .*refused/)
      await stage.completed([[left, 1]])
      t.deepEqual(left.story, ['1 flushed'])
      const again = await stage.end(stage.right, 'connected')
      const second = failure(connectTo(left.queuePair, again.queuePair))
      stage.turns(20)
      await stage.remove(left)
      t.regex(await second, /^closed/)
      await stage.rest()
      t.is(stage.right.engine.queuePairs[again.queuePair.number]!.held, null)
    },
  },
  {
    number: '82e',
    name: 'timeouts race with accepts: both sides agree in the end, or the acceptor learns that nobody is there',
    where: 'both',
    leaves: true,
    run: async (t, stage) => {
      const choices = new Choices(825)
      let connected = 0
      for (let round = 0; round < 40; round++) {
        const left = await stage.end(stage.left, 'connected')
        const right = await stage.end(stage.right, 'connected')
        const first = failure(connectTo(left.queuePair, right.queuePair, 0, choices.below(8) / 2))
        stage.turns(choices.below(8))
        const second = failure(connectTo(right.queuePair, left.queuePair, 0, 20))
        const answers = await stage.during(Promise.all([first, second]))
        await stage.rest()
        if (stateOf(left.queuePair) === queuePairState.connected) {
          t.deepEqual(answers, ['connected', 'connected'])
          await talk(stage, left, right)
          connected++
        } else t.not(stateOf(right.queuePair), queuePairState.connected, `round ${round}: ${answers.join(' · ')}`)
        await stage.remove(left)
        await stage.remove(right)
      }
      t.log(`${connected} of 40 connected`)
    },
  },
  {
    number: '83',
    name: 'data sent right after an accept never comes before it',
    where: 'both',
    run: async (t, stage) => {
      for (let round = 1; round <= 10; round++) {
        const left = await stage.end(stage.left, 'connected')
        const right = await stage.end(stage.right, 'connected')
        left.queuePair.receive({ id: 0, local: left.at(0, 64) }, { id: 1, local: left.at(0, 64) })
        const connecting = byService(stage, left.queuePair, 'service')
        const { connection, service } = await offered(stage, round)
        t.is(service, 'service')
        await stage.right.call('accept-connection', { connection, number: right.queuePair.number, generation: 1 })
        right.queuePair.send(
          { id: 1, opcode: 'send', local: right.at(0, 8) },
          { id: 2, opcode: 'send', local: right.at(0, 9) },
        )
        await stage.until(() => {
          const arrived = left.poll() > 0
          if (arrived && stateOf(left.queuePair) !== queuePairState.connected) t.fail('data before the accept')
          return left.done.length >= 2 && right.poll() >= 2
        }, 'data behind the accept')
        t.is((await connecting).number, right.queuePair.number)
      }
    },
  },
  {
    number: '83b',
    name: 'a listener rejects; the dialler gives up before the listener accepts',
    where: 'both',
    run: async (t, stage) => {
      const left = await stage.end(stage.left, 'connected')
      const right = await stage.end(stage.right, 'connected')
      const rejected = failure(byService(stage, left.queuePair, 'one'))
      const first = await offered(stage)
      await stage.right.call('reject-connection', { connection: first.connection, reason: rejectReason.noListener })
      t.regex(await stage.during(rejected), /^connection-rejected: .*no-listener/)
      const late = failure(byService(stage, left.queuePair, 'two', 30))
      const second = await offered(stage, 2)
      t.regex(await stage.during(late), /^timeout/)
      // Another attempt of the same queue pair: the late accept must not be taken for its answer.
      const third = failure(byService(stage, left.queuePair, 'three', 60))
      stage.turns(4)
      const { number } = right.queuePair
      await stage.right.call('accept-connection', { connection: second.connection, number, generation: 1 })
      t.regex(await stage.during(third), /^timeout/)
      await stage.until(() => stateOf(right.queuePair) === queuePairState.error, 'the acceptor learns it')
      await stage.remove(right)
    },
  },
  {
    number: '84',
    name: 'a disconnect right behind the last send: everything is delivered',
    where: 'both',
    run: async (t, stage) => {
      for (const length of [16, 9000, 100_000]) {
        const [left, right] = await stage.pair({ memoryByteLength: 1 << 18 })
        for (let id = 0; id < 20; id++) right.queuePair.receive({ id, local: right.at(0, length) })
        for (let id = 0; id < 20; id++) left.queuePair.send({ id, opcode: 'send', local: left.at(0, length) })
        const { number, generation } = left.queuePair
        await stage.during(stage.left.call('disconnect-queue-pair', { number, generation, timeoutMs: 5000 }))
        await stage.completed([
          [right, 20],
          [left, 20],
        ])
        t.true([...left.done, ...right.done].every(({ status }) => status === 'success'))
        await stage.until(() => stateOf(right.queuePair) === queuePairState.error, 'the peer learns it')
        for (const node of stage.nodes) {
          const told = node.events.filter(({ name }) => name === 'queue-pair-disconnected')
          t.true(told.length >= 1, 'both are told that it was a disconnect')
        }
      }
    },
  },
  {
    number: '86',
    name: 'the device has one queue pair for each lane, whatever comes and goes',
    where: 'remote',
    run: async (t, stage) => {
      const choices = new Choices(86)
      const alive: [End, End][] = []
      for (let round = 0; round < 40; round++) {
        if (alive.length > 0 && choices.chance(3)) {
          const [left, right] = alive.splice(choices.below(alive.length), 1)[0]!
          await stage.remove(left)
          await stage.remove(right)
        } else alive.push(await stage.pair({ memoryByteLength: 4096 }))
        t.is(stage.left.engine.device.counters.queuePairs, 1)
        t.is(stage.right.engine.device.counters.queuePairs, 1)
      }
      t.is(stage.lane.flows.size, alive.length)
    },
  },
]

play(cases)
