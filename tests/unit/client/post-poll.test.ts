import test from 'ava'
import { attach, type Completion, CompletionBatch, SharedVerbsError } from '../../../client/index.js'
import { completionQueueHeader, packReference, side } from '../../../protocol/completion-queue-segment.js'
import { opcode } from '../../../protocol/opcodes.js'
import { queuePairHeader, queuePairState } from '../../../protocol/queue-pair-segment.js'
import { status } from '../../../protocol/statuses.js'
import { ownerWord } from '../../../shm/robust-lock.js'
import { attached } from './attached.js'
import { FakeBroker } from './fake-broker.js'

test('what is posted in lists is taken in order and comes back as completions', async (t) => {
  const { broker, cq, qp, fake, region } = await attached(t)
  const requests = [1, 2, 3].map((id) => ({
    id,
    opcode: 'send' as const,
    local: [{ region, offset: 0, length: 64 * id }],
  }))
  t.is(qp.postSend(requests), 3)
  t.is(qp.postSend(requests[0]!), 1)
  t.deepEqual(broker.active(), [{ number: qp.number, side: 'send' }])
  const taken = fake.take('send')
  t.deepEqual(
    taken.map(({ id }) => id),
    [1, 2, 3, 1],
  )
  t.deepEqual(cq.poll(), [])
  for (const one of taken) fake.complete(one, { byteLength: one.id * 64 })
  const expected = (id: number): Completion => ({
    id,
    opcode: 'send',
    status: 'success',
    byteLength: 64 * id,
    immediate: undefined,
    queuePair: qp.number,
    source: undefined,
  })
  t.deepEqual(cq.poll(3), [1, 2, 3].map(expected))
  t.deepEqual(cq.poll(), [expected(1)])
  t.deepEqual(cq.poll(), [])
})

test('a receive completes with immediate, length and source by name', async (t) => {
  const { broker, cq, qp, fake, region } = await attached(t)
  broker.nameNode(5, 'far-away')
  t.is(qp.postReceive({ id: 77, local: [{ region, offset: 128, length: 256 }] }), 1)
  t.deepEqual(broker.active(), [{ number: qp.number, side: 'receive' }])
  const [taken] = fake.take('receive')
  fake.complete(taken!, {
    byteLength: 12,
    operation: opcode.receiveWithImmediate,
    immediate: 0xfffffffe,
    source: { node: 5, number: 9, generation: 2 },
  })
  t.deepEqual(cq.poll(), [
    {
      id: 77,
      opcode: 'receive-with-immediate',
      status: 'success',
      byteLength: 12,
      immediate: 0xfffffffe,
      queuePair: qp.number,
      source: { node: 'far-away', number: 9, generation: 2 },
    },
  ])
})

test('a full queue pair accepts a part, says so, and takes more after completions were polled', async (t) => {
  const { cq, qp, fake } = await attached(t, { maxSend: 8 })
  const requests = Array.from({ length: 12 }, (_, id) => ({ id, opcode: 'send' as const }))
  t.is(qp.postSend(requests), 8)
  t.is(qp.lastRefusal, 'full')
  t.is(qp.postSend(requests[8]!), 0)
  t.is(qp.lastRefusal, 'full')
  const taken = fake.take('send')
  t.is(qp.postSend(requests[8]!), 0)
  fake.complete(taken[0]!)
  t.is(qp.postSend(requests[8]!), 0)
  t.is(cq.poll().length, 1)
  t.is(qp.postSend(requests.slice(8)), 1)
  t.is(qp.postSend([]), 0)
  t.is(qp.lastRefusal, 'full')
})

test('room is found wherever it lies', async (t) => {
  const { cq, qp, fake } = await attached(t, { maxSend: 512, capacity: 512 })
  const requests = Array.from({ length: 512 }, (_, id) => ({ id, opcode: 'send' as const }))
  t.is(qp.postSend(requests), 512)
  const taken = fake.take('send')
  const scattered = [3, 100, 101, 250, 400, 511]
  for (const index of scattered) fake.complete(taken[index]!)
  t.is(cq.poll().length, scattered.length)
  t.is(qp.postSend(requests.slice(0, 4)), 4)
  t.is(qp.postSend(requests.slice(0, 4)), 2)
  t.is(qp.postSend(requests), 0)
})

test('slots are used again a hundred times over, each completion once', async (t) => {
  const { cq, qp, fake } = await attached(t, { maxSend: 16, maxReceive: 16, capacity: 32 })
  const batch = new CompletionBatch(32)
  let next = 0
  let polled = 0
  while (polled < 16 * 100) {
    const list = Array.from({ length: (next % 7) + 1 }, (_, index) => ({ id: next + index, opcode: 'send' as const }))
    next += qp.postSend(list)
    for (const taken of fake.take('send')) fake.complete(taken, { byteLength: taken.id })
    const count = cq.pollInto(batch)
    for (let row = 0; row < count; row++, polled++) {
      if (batch.id[row] !== polled || batch.byteLength[row] !== polled) return t.fail(`row ${row} of ${polled}`)
    }
  }
  t.true(fake.readSend(0).state >>> 4 >= 100)
})

test('a reference that was published twice is delivered once, also after its slot was used again', async (t) => {
  const { cq, qp, fake } = await attached(t, { maxSend: 4 })
  for (let id = 0; id < 4; id++) qp.postSend({ id, opcode: 'send' })
  const taken = fake.take('send')
  fake.complete(taken[0]!)
  fake.refer(taken[0]!)
  t.deepEqual(
    cq.poll().map(({ id }) => id),
    [0],
  )
  qp.postSend({ id: 4, opcode: 'send' })
  const [again] = fake.take('send')
  fake.finish(again!)
  fake.refer(taken[0]!)
  t.false(cq.available)
  t.deepEqual(cq.poll(), [])
  fake.refer(again!)
  t.deepEqual(
    cq.poll().map(({ id }) => id),
    [4],
  )
})

test('errors have their names, flushed receives no source', async (t) => {
  const { cq, qp, fake } = await attached(t)
  qp.postSend({ id: 1, opcode: 'write', remote: { key: 1, offset: 2 } })
  qp.postReceive({ id: 2 })
  fake.complete(fake.take('send')[0]!, { status: status.remoteAccessError })
  fake.complete(fake.take('receive')[0]!, { status: status.flushed, operation: 0 })
  t.like(cq.poll(), [
    { id: 1, opcode: 'write', status: 'remote-access-error' },
    { id: 2, opcode: 'receive', status: 'flushed', source: undefined },
  ])
})

test('the engine is rung only when it sleeps', async (t) => {
  const { broker, qp } = await attached(t)
  qp.postSend({ id: 1, opcode: 'send' })
  t.false(broker.rung())
  broker.sleeping = true
  qp.postSend({ id: 2, opcode: 'send' })
  t.true(broker.rung())
})

test('a poll that makes room in a full ring rings a sleeping engine', async (t) => {
  const { broker, cq, qp, fake } = await attached(t, { capacity: 4, maxSend: 8 })
  qp.postSend(Array.from({ length: 8 }, (_, id) => ({ id, opcode: 'send' as const })))
  for (const taken of fake.take('send')) fake.complete(taken)
  t.is(fake.sendCq.backlog, 4)
  broker.sleeping = true
  t.is(cq.poll(2).length, 2)
  t.true(broker.rung())
  t.is(cq.poll(1).length, 1)
  fake.sendCq.refill()
  t.is(cq.poll().length, 4)
})

test('a scribbled head or tail makes polls empty, never endless', async (t) => {
  const { cq, qp, fake } = await attached(t, { capacity: 8 })
  qp.postSend({ id: 1, opcode: 'send' })
  fake.complete(fake.take('send')[0]!)
  const { words } = fake.sendCq.mapping
  const { tail: tailWord, head: headWord } = completionQueueHeader.word
  for (const tail of [-5, 9, 0x7fffffff, -0x80000000]) {
    words.store(tailWord, tail)
    t.deepEqual(cq.poll(), [])
  }
  words.store(tailWord, 1)
  words.store(headWord, 100)
  t.deepEqual(cq.poll(), [])
  words.store(headWord, 0)
  t.is(cq.poll().length, 1)
})

test('posting to a queue pair that is closed or whose session ended is refused, not thrown', async (t) => {
  const { broker, session, qp, fake } = await attached(t)
  fake.state = queuePairState.closed
  t.is(qp.postSend({ id: 1, opcode: 'send' }), 0)
  t.is(qp.lastRefusal, 'closed')
  fake.state = queuePairState.connected
  t.is(qp.postSend({ id: 1, opcode: 'send' }), 1)
  t.is(qp.lastRefusal, 'none')
  const lost = new Promise((resolve) => session.once('event', resolve))
  broker.die()
  await lost
  t.is(qp.postReceive({ id: 1 }), 0)
  t.is(qp.lastRefusal, 'closed')
})

test('two sessions post to one queue pair and poll one completion queue', async (t) => {
  const { broker, cq, qp, fake } = await attached(t)
  const other = await attach({ runtimeDir: broker.directory })
  t.teardown(() => other.close())
  const same = await other.openQueuePair(JSON.parse(JSON.stringify(qp.share())))
  t.deepEqual(same.address, qp.address)
  t.is(same.sendCq.number, cq.number)
  t.is(qp.postSend([1, 2].map((id) => ({ id, opcode: 'send' as const }))), 2)
  t.is(same.postSend([3, 4].map((id) => ({ id, opcode: 'send' as const }))), 2)
  const taken = fake.take('send')
  t.deepEqual(
    taken.map(({ id }) => id),
    [1, 2, 3, 4],
  )
  for (const one of taken) fake.complete(one)
  t.deepEqual(
    cq.poll(1).map(({ id }) => id),
    [1],
  )
  t.deepEqual(
    same.sendCq.poll(2).map(({ id }) => id),
    [2, 3],
  )
  t.deepEqual(
    cq.poll().map(({ id }) => id),
    [4],
  )
})

test('opening a queue pair checks the completion queues it is given, and opens those it is not', async (t) => {
  const { broker, cq, qp } = await attached(t)
  const other = await attach({ runtimeDir: broker.directory })
  t.teardown(() => other.close())
  const wrong = await other.createCompletionQueue()
  const invalid = { code: 'invalid-argument' }
  await t.throwsAsync(other.openQueuePair(qp.share(), { sendCq: wrong }), invalid)
  await t.throwsAsync(other.openQueuePair(qp.share(), { sendCq: cq }), invalid)
  await t.throwsAsync(other.openQueuePair(cq.share()), invalid)
  const own = await other.openCompletionQueue(cq.share())
  const same = await other.openQueuePair(qp.share(), { sendCq: own })
  t.is(same.sendCq, own)
  t.is(same.receiveCq, own)
  t.is(await other.openQueuePair(qp.share()), same)
})

test('a held posting lock is busy, a dead holder is replaced', async (t) => {
  const { broker, qp, fake } = await attached(t)
  const { words } = fake.mapping
  const other = await attach({ runtimeDir: broker.directory })
  t.teardown(() => other.close())
  const { sendLock: lockWord, wantRoom } = queuePairHeader.word
  words.store(lockWord, ownerWord(other.member, 1))
  t.is(qp.postSend({ id: 1, opcode: 'send' }), 0)
  t.is(qp.lastRefusal, 'busy')
  t.is(words.load(wantRoom), 1)
  t.is(
    qp.postSend([
      { id: 1, opcode: 'send' },
      { id: 2, opcode: 'send' },
    ]),
    0,
  )
  // Member 900 has never existed: nobody holds its token, so it is dead.
  words.store(lockWord, ownerWord(900, 1))
  t.is(qp.postSend({ id: 3, opcode: 'send' }), 1)
  t.is(words.load(lockWord), 0)
  t.deepEqual(
    fake.take('send').map(({ id }) => id),
    [3],
  )
})

test('a poller adopts queue pairs it has not opened, and skips those that are gone', async (t) => {
  const { broker, cq, qp, fake } = await attached(t)
  const other = await attach({ runtimeDir: broker.directory })
  t.teardown(() => other.close())
  const poller = await other.openCompletionQueue(cq.share())
  qp.postSend([1, 2].map((id) => ({ id, opcode: 'send' as const })))
  for (const one of fake.take('send')) fake.complete(one)
  t.deepEqual(poller.poll(), [])
  t.true(await poller.wait({ timeoutMs: 5000 }))
  t.like(poller.poll(), [{ id: 1, queuePair: qp.number }, { id: 2 }])
  t.is(fake.holds, 1, 'whoever only polls does not keep the queue pair alive')
  fake.sendCq.publish(packReference(4000, side.send, 3), 0)
  qp.postSend({ id: 3, opcode: 'send' })
  fake.complete(fake.take('send')[0]!)
  t.true(await poller.wait({ timeoutMs: 5000 }))
  t.like(poller.poll(), [{ id: 3 }])
})

test('mistakes of the caller throw before anything is claimed', async (t) => {
  const { session, qp, fake, region } = await attached(t)
  const closed = await session.registerMemory(64)
  await closed.close()
  const local = [{ region, offset: 0, length: 8 }]
  const remote = { key: 1, offset: 0 }
  const wrong: unknown[] = [
    { id: 1, opcode: 'sent' },
    { id: 1, opcode: 'constructor' },
    { id: 1.5, opcode: 'send' },
    { id: '1', opcode: 'send' },
    { id: 1, opcode: 'send', local: [{ region, offset: 0.5, length: 1 }] },
    { id: 1, opcode: 'send', local: [{ region, offset: 0, length: -1 }] },
    { id: 1, opcode: 'send', local: [{ region, offset: 0, length: 2 ** 32 }] },
    { id: 1, opcode: 'send', local: [{ region: closed, offset: 0, length: 1 }] },
    { id: 1, opcode: 'send', local: [{ region: {}, offset: 0, length: 1 }] },
    { id: 1, opcode: 'send', local: [{ offset: 0, length: 1 }] },
    { id: 1, opcode: 'send', local: [null] },
    { id: 1, opcode: 'send', local: Array(5).fill(local[0]) },
    { id: 1, opcode: 'send', local: local[0] },
    { id: 1, opcode: 'send', inline: new Uint8Array(65) },
    { id: 1, opcode: 'send', inline: new Uint8Array(3), local },
    { id: 1, opcode: 'send', inline: true, local: [{ region, offset: region.byteLength, length: 1 }] },
    { id: 1, opcode: 'send', inline: true, local: [{ key: region.localKey, offset: 0, length: 1 }] },
    { id: 1, opcode: 'send', inline: 'yes' },
    { id: 1, opcode: 'send', signaled: 1 },
    { id: 1, opcode: 'send', destination: { node: 'there', number: 1, generation: 1 } },
    { id: 1, opcode: 'send-with-immediate' },
    { id: 1, opcode: 'send-with-immediate', immediate: -1 },
    { id: 1, opcode: 'write', local },
    { id: 1, opcode: 'write', local, remote: { key: -1, offset: 0 } },
    { id: 1, opcode: 'write', local, remote: { key: 1, offset: 2 ** 53 } },
    { id: 1, opcode: 'read', remote, inline: true },
    { id: 1, opcode: 'compare-and-swap', local, remote, compare: 1, swap: 2n },
    { id: 1, opcode: 'compare-and-swap', local, remote, compare: 1n },
    { id: 1, opcode: 'fetch-and-add', local, remote, add: 2n ** 64n },
    { id: 1, opcode: 'fetch-and-add', local, remote },
  ]
  for (const request of wrong) {
    const error = t.throws(() => qp.postSend([{ id: 0, opcode: 'send' }, request] as never), {
      instanceOf: SharedVerbsError,
    })
    t.is(error?.code, 'invalid-argument', JSON.stringify(error?.message))
  }
  t.throws(() => qp.postReceive({ id: Number.NaN }), { code: 'invalid-argument' })
  t.deepEqual(fake.take('send'), [])
  t.is(fake.readSend(0).state, 0)
})

test('datagrams need a resolved node, and carry its index', async (t) => {
  const { session, qp, fake } = await attached(t, { type: 'datagram' })
  const destination = { node: 'there', number: 12, generation: 34 }
  t.throws(() => qp.postSend({ id: 1, opcode: 'send' }), { code: 'invalid-argument' })
  const error = t.throws(() => qp.postSend({ id: 1, opcode: 'send', destination }), { code: 'address-not-resolved' })
  t.regex(error?.message ?? '', /await session\.resolve/)
  await session.resolve(destination)
  t.is(qp.postSend({ id: 1, opcode: 'send', destination }), 1)
  const [taken] = fake.take('send')
  t.like(fake.readSend(taken!.slot), { destinationNode: 5, destinationNumber: 12, destinationGeneration: 34 })
})

test('a broker that was never there is named with the cure', async (t) => {
  const { directory } = FakeBroker.start(t)
  const error = await t.throwsAsync(attach({ runtimeDir: `${directory}/nothing` }), { code: 'broker-not-running' })
  t.regex(error?.message ?? '', new RegExp(`npx broker start --runtime-dir ${directory}/nothing`))
})
