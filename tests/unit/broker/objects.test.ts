import test from 'ava'
import { readNodeFile } from '../../../broker/observe/node-file-reader.js'
import { completionQueueHeader, completionQueueMagic } from '../../../protocol/completion-queue-segment.js'
import { packKey } from '../../../protocol/keys.js'
import { queuePairHeader, queuePairMagic } from '../../../protocol/queue-pair-segment.js'
import { abiVersion } from '../../../protocol/version.js'
import { regionRight } from '../../../protocol/wire.js'
import { duplicate } from '../../../shm/libc.js'
import { Mapping } from '../../../shm/mapping.js'
import { attachedClient, createCompletionQueue, createQueuePair, failureOf } from './client-steps.js'
import { startTestBroker } from './start-test-broker.js'

const within = { byteLength: 0, writable: true }

test('segments are sealed and say what they are', async (t) => {
  const { directory } = await startTestBroker(t)
  const client = await attachedClient(t, directory)
  const { result, descriptors } = await client.ask('createCompletionQueue', { capacity: 100 })
  t.is(result.capacity, 128)
  const queue = Mapping.attach(duplicate(descriptors[0] ?? -1), { ...within, byteLength: result.byteLength })
  const { number, generation } = result
  t.like(completionQueueHeader.read(queue.memory, 0), {
    magic: completionQueueMagic,
    version: abiVersion,
    number,
    generation,
  })
  queue.close()
  const queuePair = await createQueuePair(client, { maxSend: 1 })
  const identity = { number: queuePair.number, generation: queuePair.generation }
  const { byteLength, sendSlots } = (await client.ask('openQueuePair', identity)).result
  t.is(sendSlots, 4)
  const segment = Mapping.attach(duplicate(queuePair.descriptor), { ...within, byteLength })
  const header = queuePairHeader.read(segment.memory, 0)
  t.like(header, { magic: queuePairMagic, number: queuePair.number, generation: queuePair.generation, sendSlots: 4 })
  segment.close()
})

test('an object is shared inside its job, by its living generation, and with nobody else', async (t) => {
  const { directory } = await startTestBroker(t)
  const maker = await attachedClient(t, directory)
  const friend = await attachedClient(t, directory)
  const stranger = await attachedClient(t, directory, 'other-job')
  const { number, generation } = await createQueuePair(maker)
  t.is((await friend.ask('openQueuePair', { number, generation })).descriptors.length, 1)
  t.is((await friend.ask('openQueuePair', { number, generation: 0 })).result.generation, generation)
  t.is((await failureOf(friend.ask('openQueuePair', { number, generation: generation + 1 }))).code, 'stale-handle')
  t.is((await failureOf(stranger.ask('openQueuePair', { number, generation }))).code, 'access-denied')
  t.is((await failureOf(friend.ask('openQueuePair', { number: 9999, generation }))).code, 'no-such-object')
})

test('an object lives until its last holder closes it', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const maker = await attachedClient(t, directory)
  const friend = await attachedClient(t, directory)
  const { number, generation } = await createQueuePair(maker)
  await friend.ask('openQueuePair', { number, generation })
  await maker.ask('closeQueuePair', { number, generation })
  t.is(engine.called('remove-queue-pair').length, 0)
  t.is((await failureOf(maker.ask('closeQueuePair', { number, generation }))).code, 'no-such-object')
  await friend.ask('closeQueuePair', { number, generation })
  t.like(engine.called('remove-queue-pair')[0], { number, generation, discard: false })
  t.is((await failureOf(friend.ask('openQueuePair', { number, generation }))).code, 'no-such-object')
})

test('a completion queue in use cannot be closed by its last holder', async (t) => {
  const { directory } = await startTestBroker(t)
  const client = await attachedClient(t, directory)
  const { number, generation, completionQueue } = await createQueuePair(client)
  const failure = await failureOf(client.ask('closeCompletionQueue', completionQueue))
  t.is(failure.code, 'busy')
  t.regex(failure.message, new RegExp(`\\b${number}\\b`))
  await client.ask('closeQueuePair', { number, generation })
  await t.notThrowsAsync(client.ask('closeCompletionQueue', completionQueue))
})

test('a queue pair needs completion queues that the session holds', async (t) => {
  const { directory } = await startTestBroker(t)
  const maker = await attachedClient(t, directory)
  const friend = await attachedClient(t, directory)
  const queue = await createCompletionQueue(maker)
  const options = { sendCompletionQueue: queue, receiveCompletionQueue: queue }
  t.is((await failureOf(createQueuePair(friend, options))).code, 'no-such-object')
  await friend.ask('openCompletionQueue', queue)
  await t.notThrowsAsync(createQueuePair(friend, options))
})

test('a region has a key of row and generation, and a number that comes back has another', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const client = await attachedClient(t, directory)
  const rights = { remoteRead: true, remoteAtomic: true }
  const { result } = await client.ask('registerMemory', { byteLength: 5000, rights })
  t.is(result.mappedByteLength, 8192)
  t.is(result.rights, regionRight.localWrite | regionRight.remoteRead | regionRight.remoteAtomic)
  const [told] = engine.called('add-region')
  t.is(result.key, packKey(told?.number ?? 0, told?.generation ?? 0))
  t.is((await failureOf(client.ask('registerMemory', { byteLength: 0, rights }))).code, 'length-out-of-bounds')
  await client.ask('closeMemory', { key: result.key })
  t.is((await failureOf(client.ask('openMemory', { key: result.key }))).code, 'no-such-object')
})

test('an object that the engine refuses leaves no row, no charge and no segment', async (t) => {
  const { directory, engine } = await startTestBroker(t, { limits: { queuePairsPerJob: 1 } })
  const client = await attachedClient(t, directory)
  engine.overrides['add-queue-pair'] = () => Promise.reject(new Error('no'))
  t.is((await failureOf(createQueuePair(client))).code, 'internal-error')
  t.is(readNodeFile(directory).rows('queuePairs').length, 0)
  delete engine.overrides['add-queue-pair']
  await t.notThrowsAsync(createQueuePair(client))
})

test('the row of a session shows what it holds', async (t) => {
  const { directory } = await startTestBroker(t)
  const client = await attachedClient(t, directory)
  await createQueuePair(client)
  const { result } = await client.ask('registerMemory', { byteLength: 4096, rights: {} })
  t.like(readNodeFile(directory).rows('members')[0], { queuePairs: 1, regions: 1, registeredByteLength: 4096 })
  await client.ask('closeMemory', { key: result.key })
  t.like(readNodeFile(directory).rows('members')[0], { queuePairs: 1, regions: 0, registeredByteLength: 0 })
})
