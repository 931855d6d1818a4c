import { fileURLToPath } from 'node:url'
import test from 'ava'
import { readNodeFile } from '../../../broker/observe/node-file-reader.js'
import { memberState } from '../../../protocol/node-file.js'
import { queuePairHeader } from '../../../protocol/queue-pair-segment.js'
import { duplicate } from '../../../shm/libc.js'
import { Mapping } from '../../../shm/mapping.js'
import { FREE, ownerWord, WAITERS } from '../../../shm/robust-lock.js'
import { startProcess } from '../../support/processes.js'
import { until } from '../../support/until.js'
import { attachedClient, createCompletionQueue, createQueuePair, failureOf } from './client-steps.js'
import { RawClient } from './raw-client.js'
import { startTestBroker } from './start-test-broker.js'

const what = (text: string) => ({ timeoutMs: 10_000, what: text })
const memberStates = (directory: string): number[] =>
  readNodeFile(directory)
    .rows('members')
    .map((row) => row.state)

async function segmentOf(client: RawClient, identity: { number: number; generation: number }, descriptor: number) {
  const { number, generation } = identity
  const { byteLength } = (await client.ask('openQueuePair', { number, generation })).result
  return Mapping.attach(duplicate(descriptor), { byteLength, writable: true })
}

test.serial('detach removes everything, in the order of dependence', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const client = await attachedClient(t, directory)
  await createQueuePair(client)
  await client.ask('registerMemory', { byteLength: 4096, rights: {} })
  await client.ask('detach', {})
  const removed = engine.calls.map((call) => call.name).filter((name) => name.startsWith('remove-'))
  t.deepEqual(removed.slice(0, 3), ['remove-queue-pair', 'remove-completion-queue', 'remove-region'])
  t.is((await failureOf(createCompletionQueue(client))).code, 'closed')
})

test.serial('a session that hangs up is detached, and its number rests while its token is held', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const client = await attachedClient(t, directory)
  await createQueuePair(client)
  client.hangUp()
  await until(() => engine.called('remove-completion-queue').length === 1, what('the end of its objects'))
  t.deepEqual(memberStates(directory), [memberState.detaching])
  t.is(engine.called('sweep-member').length, 0)
  client.releaseToken()
  await until(() => memberStates(directory).length === 0, what('a free row'))
  t.is(engine.called('sweep-member').length, 1)
  t.is(engine.called('remove-member').length, 1)
})

test.serial('what others share outlives the session that made it', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const maker = await attachedClient(t, directory)
  const friend = await attachedClient(t, directory)
  const { number, generation, completionQueue } = await createQueuePair(maker)
  await friend.ask('openQueuePair', { number, generation })
  maker.end()
  await until(() => memberStates(directory).length === 1, what('the end of the maker'))
  t.is(engine.called('remove-queue-pair').length, 0)
  await t.notThrowsAsync(friend.ask('openCompletionQueue', completionQueue))
  await friend.ask('closeCompletionQueue', completionQueue).catch(() => undefined)
  await friend.ask('closeQueuePair', { number, generation })
  await friend.ask('detach', {})
  t.is(engine.called('remove-completion-queue').length, 1)
})

test.serial('a member whose token is gone no longer owns a lock', async (t) => {
  const { directory } = await startTestBroker(t)
  const maker = await attachedClient(t, directory)
  const friend = new RawClient(t, directory)
  const { result } = await friend.attach()
  const queuePair = await createQueuePair(maker)
  const segment = await segmentOf(friend, queuePair, queuePair.descriptor)
  const { words } = segment
  words.store(queuePairHeader.word.receiveLock, ownerWord(result.member, result.memberGeneration) | WAITERS)
  friend.hangUp()
  await until(() => memberStates(directory).includes(memberState.detaching), what('the detach'))
  t.not(words.load(queuePairHeader.word.receiveLock), FREE)
  friend.releaseToken()
  await until(() => words.load(queuePairHeader.word.receiveLock) === FREE, what('the sweep'))
  t.is(readNodeFile(directory).counters()['locks-reclaimed'], 1)
  segment.close()
})

test.serial('a killed process is swept before its objects go, and its neighbour goes on', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const neighbour = await attachedClient(t, directory)
  const queuePair = await createQueuePair(neighbour)
  const segment = await segmentOf(neighbour, queuePair, queuePair.descriptor)
  const { words } = segment
  const script = fileURLToPath(new URL('./fixtures/client-process.ts', import.meta.url))
  const options = ['--import=./broker/typescript.js', script, directory]
  const killed = startProcess(t, process.execPath, [...options, String(queuePair.number), String(queuePair.generation)])
  await killed.printed(/ready/)
  t.not(words.load(queuePairHeader.word.sendLock), FREE)
  killed.signal('SIGKILL')
  await until(() => memberStates(directory).length === 1, what('the end of the dead member'))
  t.is(words.load(queuePairHeader.word.sendLock), FREE)
  const names = engine.calls.map((call) => call.name)
  t.true(names.indexOf('sweep-member') < names.lastIndexOf('remove-completion-queue'))
  const counters = readNodeFile(directory).counters()
  t.is(counters['sessions-died'] + counters['locks-reclaimed'], 2)
  await t.notThrowsAsync(createCompletionQueue(neighbour))
  segment.close()
})

test.serial('what is made while its session leaves is removed again', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const client = await attachedClient(t, directory)
  let release: () => void = () => {}
  engine.overrides['add-completion-queue'] = () =>
    new Promise<null>((resolve) => {
      release = () => resolve(null)
    })
  const asked = client.ask('createCompletionQueue', { capacity: 4 })
  asked.catch(() => undefined)
  await until(() => engine.called('add-completion-queue').length === 1, what('the command'))
  client.end()
  await until(() => memberStates(directory).length === 0, what('the end of the session'))
  engine.overrides['remove-completion-queue'] = () => null
  release()
  await until(() => engine.called('remove-completion-queue').length === 1, what('the removal'))
  t.is(readNodeFile(directory).rows('completionQueues').length, 0)
})

test.serial('a service has one listener in a job, and connections go to it', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const listener = await attachedClient(t, directory)
  const other = await attachedClient(t, directory)
  await listener.ask('listen', { service: 'store', backlog: 1 })
  t.is((await failureOf(other.ask('listen', { service: 'store', backlog: 1 }))).code, 'name-in-use')
  const request = { job: 1, peer: 0, peerNode: 'alpha', service: 'store', remote: { number: 7, generation: 7 } }
  engine.emit('connection-request', { ...request, connection: 1 })
  engine.emit('connection-request', { ...request, connection: 2 })
  engine.emit('connection-request', { ...request, connection: 3, service: 'nobody' })
  const { body } = await listener.event('connection-request')
  t.like(body, { connection: 1, service: 'store', remote: { node: 'alpha', number: 7 } })
  await until(() => engine.called('reject-connection').length === 2, what('two refusals'))
  const { number, generation } = await createQueuePair(listener)
  t.is((await failureOf(other.ask('rejectConnection', { connection: 1 }))).code, 'no-such-object')
  const { result } = await listener.ask('acceptConnection', { connection: 1, number, generation })
  t.deepEqual(result.remote, { node: 'alpha', number: 7, generation: 7 })
  t.is(
    (await failureOf(listener.ask('acceptConnection', { connection: 1, number, generation }))).code,
    'already-connected',
  )
  await listener.ask('unlisten', { service: 'store' })
  await t.notThrowsAsync(other.ask('listen', { service: 'store', backlog: 1 }))
})

test.serial('connections that wait for a listener are rejected when it leaves', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const listener = await attachedClient(t, directory)
  await listener.ask('listen', { service: 'store', backlog: 4 })
  const remote = { number: 7, generation: 7 }
  engine.emit('connection-request', { connection: 9, job: 1, peer: 0, peerNode: 'alpha', service: 'store', remote })
  await listener.event('connection-request')
  listener.end()
  await until(() => engine.called('reject-connection').length === 1, what('the rejection'))
  t.is(engine.called('reject-connection')[0]?.connection, 9)
})

test.serial('on this node a queue pair connects without a lane, once', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const client = await attachedClient(t, directory)
  const { number, generation } = await createQueuePair(client)
  const remote = { node: 'alpha', number: 3, generation: 4 }
  const asked = { number, generation, remote, timeoutMs: 1000 }
  t.deepEqual((await client.ask('connectQueuePair', asked)).result, { remote })
  t.like(engine.called('connect-queue-pair')[0], { lane: null, peer: 0, remote: { number: 3, generation: 4 } })
  t.is((await failureOf(client.ask('connectQueuePair', asked))).code, 'already-connected')
  engine.emit('queue-pair-disconnected', { number, generation, job: 1, reason: 'the peer left' })
  t.like((await client.event('queue-pair-disconnected')).body, { number, reason: 'the peer left' })
  await t.notThrowsAsync(client.ask('connectQueuePair', asked))
  t.is((await client.ask('resolveNode', { node: 'alpha', timeoutMs: 100 })).result.nodeIndex, 0)
  t.like(engine.called('add-datagram-path')[0], { peer: 0, lane: null })
})
