import { setImmediate as turn } from 'node:timers/promises'
import test from 'ava'
import { attach, CompletionBatch, SharedVerbsError } from '../../../client/index.js'
import { within } from '../../support/until.js'
import { attached } from './attached.js'

const watched = <Value>(promise: Promise<Value>): Promise<Value> =>
  within(promise, { timeoutMs: 20_000, what: 'a wait to end' })

test('a wait ends at its deadline, without completions false, with some true', async (t) => {
  const { cq, qp, fake } = await attached(t)
  t.false(await cq.wait({ timeoutMs: 0 }))
  t.false(await cq.wait({ timeoutMs: 20 }))
  t.false(cq.waitSync({ timeoutMs: 20 }))
  qp.postSend({ id: 1, opcode: 'send' })
  fake.complete(fake.take('send')[0]!)
  t.true(await cq.wait({ timeoutMs: 0 }))
  t.true(await cq.wait())
  t.true(cq.waitSync())
})

test('a wait ends when a completion is published, all waits of the session look', async (t) => {
  const { session, cq, qp, fake } = await attached(t)
  const idle = await session.createCompletionQueue({ capacity: 4 })
  const idled = idle.wait({ timeoutMs: 100 })
  const waits = [cq.wait(), cq.wait({ timeoutMs: 20_000 })]
  await turn()
  qp.postSend({ id: 1, opcode: 'send' })
  fake.complete(fake.take('send')[0]!)
  t.deepEqual(await watched(Promise.all(waits)), [true, true])
  t.false(await idled)
})

test('no wake-up is lost between arming and sleeping, in thousands of rounds', async (t) => {
  const { cq, qp, fake } = await attached(t)
  const batch = new CompletionBatch(4)
  let polled = 0
  const rounds = 5000
  for (let round = 0; round < rounds; round++) {
    if (qp.postSend({ id: round, opcode: 'send' }) !== 1) return t.fail('not accepted')
    const [taken] = fake.take('send')
    const waiting = cq.wait()
    // Before the wait ran on, in its microtasks, in the next turn, or after it was rung for nothing.
    if (round % 4 === 1) await null
    if (round % 4 === 2) await turn()
    if (round % 4 === 3) fake.sendCq.refill()
    fake.complete(taken!)
    if (!(await watched(waiting))) return t.fail('not true')
    polled += cq.pollInto(batch)
  }
  t.is(polled, rounds)
})

test('an abort rejects the wait, before and during it, and leaves the next one whole', async (t) => {
  const { cq, qp, fake } = await attached(t)
  const controller = new AbortController()
  const waiting = cq.wait({ signal: controller.signal })
  await turn()
  controller.abort()
  await t.throwsAsync(waiting, { instanceOf: SharedVerbsError, code: 'aborted' })
  await t.throwsAsync(cq.wait({ signal: controller.signal }), { code: 'aborted' })
  const next = cq.wait()
  await turn()
  qp.postSend({ id: 1, opcode: 'send' })
  fake.complete(fake.take('send')[0]!)
  t.true(await watched(next))
})

test('solicitedOnly sleeps through unsolicited completions and wakes for solicited ones', async (t) => {
  const { cq, qp, fake } = await attached(t)
  qp.postReceive([1, 2, 3].map((id) => ({ id })))
  const taken = fake.take('receive')
  let awake = false
  const solicited = cq.wait({ solicitedOnly: true }).then((result) => {
    awake = true
    return result
  })
  const any = cq.wait()
  await turn()
  fake.complete(taken[0]!, {}, false)
  t.true(await watched(any))
  // Rung for the other wait of this session, the solicited one looked and slept on.
  for (let index = 0; index < 5; index++) await turn()
  t.false(awake)
  fake.complete(taken[1]!, {}, true)
  t.true(await watched(solicited))
  t.is(cq.poll().length, 2)
})

test('two sessions wait for one queue: both are rung, each completion is delivered once', async (t) => {
  const { broker, cq, qp, fake } = await attached(t)
  const other = await attach({ runtimeDir: broker.directory })
  t.teardown(() => other.close())
  const same = await other.openQueuePair(qp.share())
  const waits = [cq.wait(), same.sendCq.wait()]
  await turn()
  qp.postSend([1, 2].map((id) => ({ id, opcode: 'send' as const })))
  for (const taken of fake.take('send')) fake.complete(taken)
  t.deepEqual(await watched(Promise.all(waits)), [true, true])
  t.is(cq.poll().length, 2)
  t.is(same.sendCq.poll().length, 0)
  t.false(await same.sendCq.wait({ timeoutMs: 10 }))
})

test('iteration yields in order, loses nothing when it is left, and ends when the queue is closed', async (t) => {
  const { cq, qp, fake } = await attached(t)
  qp.postSend([1, 2, 3, 4].map((id) => ({ id, opcode: 'send' as const })))
  for (const taken of fake.take('send')) fake.complete(taken)
  for await (const { id } of cq) {
    t.is(id, 1)
    break
  }
  t.deepEqual(
    cq.poll(1).map(({ id }) => id),
    [2],
  )
  const seen: number[] = []
  const iterated = (async () => {
    for await (const { id } of cq) {
      seen.push(id)
      if (id === 4) qp.postSend({ id: 5, opcode: 'send' })
    }
  })()
  while (!seen.includes(4)) await turn()
  fake.complete(fake.take('send')[0]!)
  while (!seen.includes(5)) await turn()
  await qp.close()
  await cq.close()
  await watched(iterated)
  t.deepEqual(seen, [3, 4, 5])
})

test('a wait on a queue that is closed under it rejects', async (t) => {
  const { cq, qp } = await attached(t)
  await qp.close()
  const waiting = cq.wait()
  await turn()
  await cq.close()
  await t.throwsAsync(watched(waiting), { code: 'closed' })
  await t.throwsAsync(cq.wait(), { code: 'closed' })
  t.throws(() => cq.waitSync(), { code: 'closed' })
  t.deepEqual(cq.poll(), [])
  await cq.close()
})

test('when the broker is lost, waits take what is there, then reject', async (t) => {
  const { broker, session, cq, qp, fake } = await attached(t)
  const events: string[] = []
  session.on('event', ({ kind }) => events.push(kind))
  const other = await session.createCompletionQueue()
  const waiting = other.wait()
  qp.postSend({ id: 1, opcode: 'send' })
  fake.complete(fake.take('send')[0]!)
  broker.die()
  await t.throwsAsync(watched(waiting), { code: 'broker-lost' })
  t.deepEqual(events, ['broker-lost'])
  t.true(await cq.wait())
  t.is(cq.poll().length, 1)
  await t.throwsAsync(cq.wait(), { code: 'broker-lost' })
  await t.throwsAsync(session.createCompletionQueue(), { code: 'broker-lost' })
})

test('when the broker gives a queue up, its waits reject and others go on', async (t) => {
  const { broker, session, cq } = await attached(t)
  const failed = await session.createCompletionQueue()
  const waiting = failed.wait()
  const { number, generation } = failed
  broker.sessions[0]!.event('completion-queue-error', { number, generation, reason: 'its head is behind its tail' })
  await t.throwsAsync(watched(waiting), { code: 'protocol-violation' })
  t.false(await cq.wait({ timeoutMs: 1 }))
})
