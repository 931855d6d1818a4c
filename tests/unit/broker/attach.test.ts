import test from 'ava'
import { readNodeFile } from '../../../broker/observe/node-file-reader.js'
import { abiVersion, clientFingerprint } from '../../../protocol/version.js'
import { until } from '../../support/until.js'
import { attachedClient, createCompletionQueue, createQueuePair, failureOf } from './client-steps.js'
import { ManualClock } from './manual-clock.js'
import { RawClient } from './raw-client.js'
import { startTestBroker } from './start-test-broker.js'

const attachBody = { abiVersion, fingerprint: clientFingerprint, job: 'job', jobKey: 'key', name: 'raw', processId: 1 }

test('a client attaches and gets its number and five descriptors', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const client = new RawClient(t, directory)
  const { result, descriptors } = await client.attach()
  t.is(result.node, 'alpha')
  t.true(result.member >= 1)
  t.true(result.memberGeneration >= 1)
  t.is(descriptors.length, 5)
  t.deepEqual([...engine.objects].sort(), ['job 1', `member ${result.member}`])
})

test('a client of another build is refused with both values', async (t) => {
  const { directory } = await startTestBroker(t)
  const client = new RawClient(t, directory)
  const failure = await failureOf(client.ask('attach', { ...attachBody, fingerprint: 0xabc }))
  t.is(failure.code, 'abi-mismatch')
  t.is(failure.context['client'], `${abiVersion}/abc`)
  t.is(failure.context['broker'], `${abiVersion}/${clientFingerprint.toString(16)}`)
})

test('a member with another key is refused while the job lives', async (t) => {
  const { directory } = await startTestBroker(t)
  await attachedClient(t, directory, 'job', 'right')
  const failure = await failureOf(new RawClient(t, directory).attach('job', 'wrong'))
  t.is(failure.code, 'wrong-job-key')
  await t.notThrowsAsync(new RawClient(t, directory).attach('job', 'right'))
  await t.notThrowsAsync(new RawClient(t, directory).attach('other', 'wrong'))
})

test('a job whose members are gone can be begun with another key', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const first = await attachedClient(t, directory, 'job', 'old')
  first.end()
  await until(() => engine.called('remove-member').length === 1, { timeoutMs: 5000, what: 'the end of the member' })
  await t.notThrowsAsync(new RawClient(t, directory).attach('job', 'new'))
  t.is(engine.called('remove-job').length, 1)
})

test('nothing is answered before attach, and attach only once', async (t) => {
  const { directory } = await startTestBroker(t)
  const client = new RawClient(t, directory)
  t.is((await failureOf(client.ask('createCompletionQueue', { capacity: 4 }))).code, 'protocol-violation')
  await client.attach()
  t.is((await failureOf(client.ask('attach', attachBody))).code, 'protocol-violation')
  await t.notThrowsAsync(createCompletionQueue(client))
})

test('garbage is refused, counted, and in the end cut off, and a neighbour notices nothing', async (t) => {
  const { directory } = await startTestBroker(t)
  const neighbour = await attachedClient(t, directory)
  const hostile = await attachedClient(t, directory)
  const queue = await createCompletionQueue(hostile)
  for (let count = 0; count < 15; count++) hostile.sendBytes(Uint8Array.of(0xc1, count))
  await until(() => hostile.outcomes.length >= 17, { timeoutMs: 5000, what: 'fifteen refusals' })
  t.false(hostile.closed)
  hostile.sendBytes(Uint8Array.of(0x93, 1, 2, 3))
  await until(() => hostile.closed, { timeoutMs: 5000, what: 'the cut' })
  await t.notThrowsAsync(createCompletionQueue(neighbour))
  await until(
    () =>
      readNodeFile(directory)
        .rows('completionQueues')
        .every((row) => row.index !== queue.number),
    {
      timeoutMs: 5000,
      what: 'the end of its objects',
    },
  )
  t.true(readNodeFile(directory).counters()['control-refusals'] >= 16)
})

test('a request whose body is wrong is refused under its own number', async (t) => {
  const { directory } = await startTestBroker(t)
  const client = await attachedClient(t, directory)
  const failure = await failureOf(client.ask('createCompletionQueue', { capacity: -1 }, 42))
  t.is(failure.code, 'malformed-message')
  t.regex(failure.message, /capacity/)
})

test('a repeated request gets the first answer again, and nothing is done twice', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const client = await attachedClient(t, directory)
  const first = await client.ask('createCompletionQueue', { capacity: 8 }, 100)
  const again = await client.ask('createCompletionQueue', { capacity: 8 }, 100)
  t.deepEqual(again.result, first.result)
  t.is(again.descriptors.length, 1)
  t.is(engine.called('add-completion-queue').length, 1)
  await client.ask('closeCompletionQueue', { number: first.result.number, generation: first.result.generation })
  t.is((await failureOf(client.ask('createCompletionQueue', { capacity: 8 }, 100))).code, 'closed')
})

test('requests under way are bounded', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const client = await attachedClient(t, directory)
  let release: () => void = () => {}
  const held = new Promise<null>((resolve) => {
    release = () => resolve(null)
  })
  engine.overrides['add-completion-queue'] = () => held
  const asked = Array.from({ length: 64 }, () => client.ask('createCompletionQueue', { capacity: 4 }))
  const failure = await failureOf(client.ask('createCompletionQueue', { capacity: 4 }))
  t.is(failure.code, 'limit-exceeded')
  release()
  t.is((await Promise.all(asked)).length, 64)
  await t.notThrowsAsync(createCompletionQueue(client))
})

test('limits are refusals with numbers, and what is given back counts no more', async (t) => {
  const limits = { sessionsPerJob: 2, queuePairsPerJob: 1, registeredBytesPerUser: 200_000 }
  const { directory } = await startTestBroker(t, { limits })
  const client = await attachedClient(t, directory)
  await attachedClient(t, directory)
  const third = await failureOf(new RawClient(t, directory).attach())
  t.is(third.code, 'limit-exceeded')
  t.like(third.context, { resource: 'sessions', asked: 1, used: 2, maximum: 2, whose: 'job' })
  const queuePair = await createQueuePair(client)
  t.like((await failureOf(createQueuePair(client))).context, { resource: 'queuePairs', used: 1, maximum: 1 })
  const big = { byteLength: 190_000, rights: {} }
  t.like((await failureOf(client.ask('registerMemory', big))).context, { resource: 'bytes', maximum: 200_000 })
  await client.ask('closeQueuePair', { number: queuePair.number, generation: queuePair.generation })
  await t.notThrowsAsync(createQueuePair(client))
})

test('an attach refused for a limit leaves nothing', async (t) => {
  const { directory, engine } = await startTestBroker(t, { limits: { sessionsPerUser: 1 } })
  await attachedClient(t, directory)
  await failureOf(new RawClient(t, directory).attach('another'))
  t.is(readNodeFile(directory).rows('members').length, 1)
  t.is(engine.called('add-member').length, 1)
})

test('who does not say who he is is shown out, and only so many may wait', async (t) => {
  const clock = new ManualClock()
  const { directory } = await startTestBroker(t, { clock })
  const silent = Array.from({ length: 64 }, () => new RawClient(t, directory))
  const last = silent.at(-1)
  t.is((await failureOf(last?.ask('detach', {}) ?? Promise.resolve())).code, 'protocol-violation')
  const tooMany = new RawClient(t, directory)
  await until(() => tooMany.closed, { timeoutMs: 5000, what: 'the refusal of one more' })
  clock.advance(10_000)
  await until(() => silent.every(({ closed }) => closed), { timeoutMs: 5000, what: 'the end of all strangers' })
  await t.notThrowsAsync(attachedClient(t, directory))
})

test('an error that comes again and again is logged ever more rarely', async (t) => {
  const { directory, log } = await startTestBroker(t)
  for (let round = 0; round < 2; round++) {
    const hostile = await attachedClient(t, directory)
    for (let count = 0; count < 15; count++) hostile.sendBytes(Uint8Array.of(0xc1))
    await until(() => hostile.outcomes.length === 16, { timeoutMs: 5000, what: 'fifteen refusals' })
  }
  const lines = log.filter((line) => line.includes('malformed-message')).map((line) => JSON.parse(line).count as number)
  t.deepEqual(lines, [1, 2, 4, 8, 16])
})
