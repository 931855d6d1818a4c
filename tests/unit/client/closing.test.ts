import { setImmediate as turn } from 'node:timers/promises'
import test from 'ava'
import { attach } from '../../../client/index.js'
import { SharedVerbsError } from '../../../protocol/errors.js'
import { queuePairState } from '../../../protocol/queue-pair-segment.js'
import { repositoryDirectory } from '../../support/cli.js'
import { openDescriptors } from '../../support/leaks.js'
import { startProcess } from '../../support/processes.js'
import { attached } from './attached.js'
import { FakeBroker, type Respond } from './fake-broker.js'

const serial = test.serial

serial('every request outstanding at close gets its verdict, which can be polled afterwards', async (t) => {
  const { cq, qp, fake } = await attached(t)
  qp.postSend([1, 2, 3].map((id) => ({ id, opcode: 'send' as const })))
  qp.postReceive([4, 5].map((id) => ({ id })))
  const [first] = fake.take('send', 2)
  fake.complete(first!)
  const closing = qp.close()
  t.is(qp.state, 'closed')
  t.is(qp.postSend({ id: 6, opcode: 'send' }), 0)
  t.is(qp.lastRefusal, 'closed')
  await closing
  const completions = cq.poll()
  t.deepEqual(
    completions.map(({ id, status }) => [id, status]),
    [
      [1, 'success'],
      [2, 'flushed'],
      [3, 'flushed'],
      [4, 'flushed'],
      [5, 'flushed'],
    ],
  )
  await qp.close()
  t.deepEqual(cq.poll(), [])
})

serial('a close does not wait for a full completion ring, and loses nothing of it', async (t) => {
  const { session, cq, qp } = await attached(t, { capacity: 4, maxSend: 64, maxReceive: 64 })
  const list = (from: number) => Array.from({ length: 50 }, (_, index) => ({ id: from + index }))
  t.is(qp.postSend(list(0).map(({ id }) => ({ id, opcode: 'send' as const }))), 50)
  t.is(qp.postReceive(list(50)), 50)
  await qp.close()
  const batch = cq.poll(1000)
  t.deepEqual(
    batch.map(({ id }) => id),
    Array.from({ length: 100 }, (_, id) => id),
  )
  // The next queue pair of this completion queue works as the first one did.
  const next = await session.createQueuePair({ sendCq: cq })
  next.postSend({ id: 7, opcode: 'send' })
  await next.close()
  t.like(cq.poll(), [{ id: 7, queuePair: next.number }])
})

serial('results that no reference leads to are found in their slots, in posting order', async (t) => {
  const { broker, cq, qp, fake } = await attached(t)
  qp.postSend([1, 2, 3].map((id) => ({ id, opcode: 'send' as const })))
  const taken = fake.take('send')
  broker.respond = (name, body, session) => {
    if (name !== 'closeQueuePair') return broker.answer(name, body, session)
    for (const one of taken.toReversed()) fake.finish(one)
    fake.refer(taken[1]!)
    fake.state = queuePairState.closed
    return { result: {} }
  }
  await qp.close()
  t.deepEqual(
    cq.poll().map(({ id }) => id),
    [2, 1, 3],
  )
})

serial('whoever closes first takes nothing from those who go on', async (t) => {
  const { broker, cq, qp, fake } = await attached(t)
  const other = await attach({ runtimeDir: broker.directory })
  t.teardown(() => other.close())
  const same = await other.openQueuePair(qp.share())
  qp.postSend([1, 2].map((id) => ({ id, opcode: 'send' as const })))
  for (const taken of fake.take('send')) fake.complete(taken)
  await same.close()
  t.deepEqual(same.sendCq.poll(0), [])
  t.deepEqual(
    cq.poll().map(({ id }) => id),
    [1, 2],
  )
  t.is(qp.postSend({ id: 3, opcode: 'send' }), 1)
})

serial('a number that is issued again is another queue pair, also for those who only poll', async (t) => {
  const { broker, session, cq, qp, fake } = await attached(t)
  const other = await attach({ runtimeDir: broker.directory })
  t.teardown(() => other.close())
  const poller = await other.openCompletionQueue(cq.share())
  qp.postSend({ id: 1, opcode: 'send' })
  fake.complete(fake.take('send')[0]!)
  t.true(await poller.wait({ timeoutMs: 5000 }))
  t.is(poller.poll().length, 1)
  await qp.close()
  broker.reuse(qp.number)
  const next = await session.createQueuePair({ sendCq: cq })
  t.is(next.number, qp.number)
  next.postSend({ id: 2, opcode: 'send' })
  const again = broker.queuePair(next.number)
  again.complete(again.take('send')[0]!)
  t.true(await poller.wait({ timeoutMs: 5000 }))
  t.like(poller.poll(), [{ id: 2 }])
})

serial('after the end of a session no descriptor is left, and closing again is no mistake', async (t) => {
  const broker = FakeBroker.start(t)
  await turn()
  const before = openDescriptors()
  const session = await attach({ runtimeDir: broker.directory })
  const cq = await session.createCompletionQueue()
  const qp = await session.createQueuePair({ sendCq: cq })
  const region = await session.registerMemory(1 << 16)
  const listener = await session.listen('service', { sendCq: cq })
  const waiting = cq.wait()
  const iterated = listener[Symbol.asyncIterator]().next()
  await turn()
  t.true(openDescriptors().length > before.length)
  const closing = session.close()
  await t.throwsAsync(waiting, { code: 'closed' })
  t.like(await iterated, { done: true })
  await closing
  await session.close()
  await Promise.all([qp.close(), cq.close(), region.close(), listener.close()])
  t.is(qp.postSend({ id: 1, opcode: 'send' }), 0)
  t.deepEqual(cq.poll(), [])
  await t.throwsAsync(session.registerMemory(1), { code: 'closed' })
  for (const { connection } of broker.sessions) while (connection.open) await turn()
  broker.releaseObjects()
  t.deepEqual(openDescriptors(), before)
})

serial('a completion queue in use stays open, and can be closed later', async (t) => {
  const { broker, cq, qp, fake } = await attached(t)
  const refuse: Respond = (name, body, session) => {
    if (name === 'closeCompletionQueue') throw new SharedVerbsError('busy', 'queue pairs use it')
    return broker.answer(name, body, session)
  }
  const { respond } = broker
  broker.respond = refuse
  await t.throwsAsync(cq.close(), { code: 'busy' })
  broker.respond = respond
  qp.postSend({ id: 1, opcode: 'send' })
  fake.complete(fake.take('send')[0]!)
  t.is(cq.poll().length, 1)
  await qp.close()
  await cq.close()
  t.true(cq.closed)
})

serial('a session closes also when its broker is gone', async (t) => {
  const { broker, session, cq } = await attached(t)
  broker.die()
  await session.close()
  t.true(cq.closed)
})

serial('an attached process ends by itself when it awaits nothing', async (t) => {
  const broker = FakeBroker.start(t)
  const script = `
    import { attach } from './client/index.js'
    const session = await attach({ runtimeDir: ${JSON.stringify(broker.directory)} })
    const cq = await session.createCompletionQueue()
    await session.createQueuePair({ sendCq: cq })
    await session.listen('service', { sendCq: cq })
    await cq.wait({ timeoutMs: 10 })
    console.log('nothing awaited')`
  const loader = ['--import=./broker/typescript.js', '--input-type=module', '--eval', script]
  const process_ = startProcess(t, process.execPath, loader, { cwd: repositoryDirectory })
  const { code, stdout, stderr } = await process_.ended()
  t.is(code, 0, stderr)
  t.is(stdout, 'nothing awaited\n')
})
