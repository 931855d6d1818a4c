import { setImmediate as turn } from 'node:timers/promises'
import test from 'ava'
import type { QueuePair } from '../../../client/index.js'
import { SharedVerbsError } from '../../../protocol/errors.js'
import { until } from '../../support/until.js'
import { attached } from './attached.js'

const remote = { node: 'there', number: 8, generation: 4 }

test('connections become queue pairs with receives posted before they are accepted', async (t) => {
  const { broker, session, cq } = await attached(t)
  const order: string[] = []
  broker.respond = (name, body, from) => {
    if (name === 'acceptConnection') order.push(`accept ${(body as { connection: number }).connection}`)
    return broker.answer(name, body, from)
  }
  const listener = await session.listen('echo', {
    sendCq: cq,
    maxReceive: 4,
    onQueuePair: async (qp) => {
      await turn()
      order.push(`receives ${qp.postReceive([{ id: 1 }, { id: 2 }])}`)
    },
  })
  const [here] = broker.sessions
  const accepted: QueuePair[] = []
  const iterated = (async () => {
    for await (const qp of listener) {
      accepted.push(qp)
      if (accepted.length === 2) await listener.close()
    }
  })()
  here!.event('connection-request', { connection: 1, service: 'echo', remote })
  await until(() => accepted.length === 1, { timeoutMs: 5000, what: 'the first connection' })
  here!.event('connection-request', { connection: 2, service: 'echo', remote })
  await iterated
  t.deepEqual(order, ['receives 2', 'accept 1', 'receives 2', 'accept 2'])
  t.deepEqual(
    accepted.map((qp) => qp.remote),
    [remote, remote],
  )
  t.is(accepted[0]!.maxReceive, 4)
  t.true(broker.requests.includes('unlisten'))
  await listener.close()
})

test('a connection that cannot be accepted is rejected, its queue pair closed, the next one served', async (t) => {
  const { broker, session, cq } = await attached(t)
  let refuse = true
  broker.respond = (name, body, from) => {
    if (name === 'acceptConnection' && refuse) {
      refuse = false
      throw new SharedVerbsError('peer-unreachable', 'it went away')
    }
    return broker.answer(name, body, from)
  }
  const listener = await session.listen('echo', { sendCq: cq })
  const [here] = broker.sessions
  here!.event('connection-request', { connection: 1, service: 'echo', remote })
  here!.event('connection-request', { connection: 2, service: 'echo', remote })
  const qp = await listener.accept()
  t.deepEqual(qp?.remote, remote)
  await until(() => broker.requests.includes('rejectConnection'), { timeoutMs: 5000, what: 'the rejection' })
  await until(() => broker.requests.includes('closeQueuePair'), { timeoutMs: 5000, what: 'the close' })
})

test('beyond the backlog connections wait until the application took one', async (t) => {
  const { broker, session, cq } = await attached(t)
  const listener = await session.listen('echo', { sendCq: cq, backlog: 2 })
  const [here] = broker.sessions
  for (let connection = 1; connection <= 4; connection++) {
    here!.event('connection-request', { connection, service: 'echo', remote })
  }
  const accepts = (): number => broker.requests.filter((name) => name === 'acceptConnection').length
  await until(() => accepts() === 2, { timeoutMs: 5000, what: 'two connections' })
  for (let index = 0; index < 20; index++) await turn()
  t.is(accepts(), 2)
  for (let index = 0; index < 4; index++) t.truthy(await listener.accept())
  t.is(accepts(), 4)
})

test('a request for a service nobody listens on is rejected, a lost broker ends the listener', async (t) => {
  const { broker, session, cq } = await attached(t)
  const listener = await session.listen('echo', { sendCq: cq })
  broker.sessions[0]!.event('connection-request', { connection: 9, service: 'other', remote })
  await until(() => broker.requests.includes('rejectConnection'), { timeoutMs: 5000, what: 'the rejection' })
  const accepting = listener.accept()
  broker.die()
  await t.throwsAsync(accepting, { code: 'broker-lost' })
  await t.throwsAsync(listener.accept(), { code: 'broker-lost' })
})

test('a connection that comes together with the reply to listen is served', async (t) => {
  const { broker, session, cq } = await attached(t)
  broker.respond = (name, body, from) => {
    if (name === 'listen')
      queueMicrotask(() => from.event('connection-request', { connection: 1, service: 'echo', remote }))
    return broker.answer(name, body, from)
  }
  const listener = await session.listen('echo', { sendCq: cq })
  t.deepEqual((await listener.accept())?.remote, remote)
  await t.throwsAsync(session.listen('echo', { sendCq: cq }), { code: 'name-in-use' })
  t.false(broker.requests.includes('rejectConnection'))
})
