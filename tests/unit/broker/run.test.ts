import { chmodSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { RuntimeDirectory } from '../../../broker/control/runtime-directory.js'
import { readNodeFile } from '../../../broker/observe/node-file-reader.js'
import { brokerPage } from '../../../protocol/broker-page.js'
import { SharedVerbsError } from '../../../protocol/errors.js'
import { closeDescriptor, duplicate } from '../../../shm/libc.js'
import { Mapping } from '../../../shm/mapping.js'
import { openDescriptors } from '../../support/leaks.js'
import { startProcess } from '../../support/processes.js'
import { temporaryDirectory } from '../../support/temporary-directory.js'
import { until, within } from '../../support/until.js'
import { attachedClient, createCompletionQueue, createQueuePair, failureOf } from './client-steps.js'
import { RawClient } from './raw-client.js'
import { exists, startTestBroker } from './start-test-broker.js'

/** Removes a directory in every turn of the event loop. */
async function robUntil(path: string, end: AbortSignal): Promise<void> {
  while (!end.aborted) {
    rmSync(path, { recursive: true, force: true })
    await new Promise((resolve) => setImmediate(resolve))
  }
}

test.serial('a broker that stops in order leaves nothing', async (t) => {
  const before = openDescriptors()
  const { broker, directory } = await startTestBroker(t)
  t.deepEqual(readdirSync(directory).sort(), ['broker.lock', 'broker.sock', 'node'])
  t.is(statSync(directory).mode & 0o777, 0o700)
  t.is(statSync(`${directory}/broker.sock`).mode & 0o777, 0o600)
  const client = await attachedClient(t, directory)
  await createQueuePair(client)
  client.end()
  await until(() => readNodeFile(directory).rows('members').length === 0, { timeoutMs: 5000, what: 'the end' })
  await broker.stop()
  await broker.whenStopped
  t.false(exists(directory))
  const gone = () => openDescriptors().filter((descriptor) => !before.includes(descriptor))
  await until(() => gone().length === 0, { timeoutMs: 5000, what: `the end of ${gone().join(' ')}` })
})

test.serial('a directory that was there before stays', async (t) => {
  const directory = temporaryDirectory(t)
  const { broker } = await startTestBroker(t, { runtimeDirectory: directory })
  await broker.stop()
  t.deepEqual(readdirSync(directory), [])
})

test.serial('a second start is refused and names the first, by either lock', async (t) => {
  const { directory } = await startTestBroker(t)
  for (const withoutFriendlyLock of [false, true]) {
    if (withoutFriendlyLock) rmSync(`${directory}/broker.lock`, { recursive: true })
    const failure = await failureOf(startTestBroker(t, { runtimeDirectory: directory }))
    t.is(failure.code, 'broker-already-running')
    t.is(failure.context['processId'], process.pid)
    t.regex(failure.message, new RegExp(`\\b${process.pid}\\b`))
  }
  await t.notThrowsAsync(attachedClient(t, directory))
})

test.serial('the lock in front goes before the lock of the kernel, and may vanish while it is made', async (t) => {
  const path = temporaryDirectory(t)
  const front = `${path}/broker.lock`
  const options = { path, socketMode: 0o600, onFriendlyLockLost: () => undefined, standby: null }
  for (let round = 0; round < 10; round++) {
    const claimed = RuntimeDirectory.claim(options)
    const robber = new AbortController()
    const robbing = robUntil(front, robber.signal)
    const directory = await within(claimed, { timeoutMs: 5000, what: 'the claim' }).finally(() => robber.abort())
    await robbing
    await directory.release(() => {
      t.false(exists(front))
      closeDescriptor(directory.nodeFileDescriptor)
    })
  }
})

test.serial('directories that cannot serve are refused with the cure', async (t) => {
  const parent = temporaryDirectory(t)
  const long = await failureOf(startTestBroker(t, { runtimeDirectory: `${parent}/${'x'.repeat(120)}` }))
  t.is(long.code, 'runtime-directory-unusable')
  t.regex(long.message, /at most 107/)
  writeFileSync(`${parent}/file`, '')
  t.is(
    (await failureOf(startTestBroker(t, { runtimeDirectory: `${parent}/file/below` }))).code,
    'runtime-directory-unusable',
  )
  mkdirSync(`${parent}/open`)
  chmodSync(`${parent}/open`, 0o777)
  t.regex((await failureOf(startTestBroker(t, { runtimeDirectory: `${parent}/open` }))).message, /chmod o-w/)
  t.deepEqual(readdirSync(parent).sort(), ['file', 'open'])
})

test.serial('options that make no sense are refused by name', async (t) => {
  const wrong = { lanes: 0, port: 70_000, socketMode: 0o777, node: 'two words', idleReapMs: 0.5 }
  for (const [option, value] of Object.entries(wrong)) {
    const failure = await failureOf(startTestBroker(t, { [option]: value }))
    t.is(failure.code, 'invalid-argument')
    t.is(failure.context['option'], option)
  }
})

test.serial('after a kill the next broker adopts the file, and no number is issued twice', async (t) => {
  const directory = `${temporaryDirectory(t)}/run`
  const script = fileURLToPath(new URL('./fixtures/broker-process.ts', import.meta.url))
  const first = startProcess(t, process.execPath, ['--import=./broker/typescript.js', script, directory])
  await first.printed(/ready/)
  const client = new RawClient(t, directory)
  const attached = await client.attach()
  const queue = await createCompletionQueue(client)
  const before = readNodeFile(directory).header
  first.signal('SIGKILL')
  await first.ended()
  const { broker } = await startTestBroker(t, { runtimeDirectory: directory })
  const { header } = readNodeFile(directory)
  t.is(broker.epoch, before.epoch + 1)
  t.is(header.nodeId, before.nodeId)
  t.is(header.processId, process.pid)
  const next = new RawClient(t, directory)
  const again = await next.attach()
  // The process of the old member lives: its number rests.
  t.not(again.result.member, attached.result.member)
  const { number, generation } = await createCompletionQueue(next)
  t.false(number === queue.number && generation === queue.generation)
  next.end()
  client.end()
})

test.serial('a file of another node is written anew', async (t) => {
  const directory = temporaryDirectory(t)
  const script = fileURLToPath(new URL('./fixtures/broker-process.ts', import.meta.url))
  const first = startProcess(t, process.execPath, ['--import=./broker/typescript.js', script, directory, 'gamma'])
  await first.printed(/ready/)
  const { nodeId } = readNodeFile(directory).header
  first.signal('SIGKILL')
  await first.ended()
  const { broker } = await startTestBroker(t, { runtimeDirectory: directory })
  t.is(broker.epoch, 1)
  t.not(readNodeFile(directory).header.nodeId, nodeId)
})

test.serial('a draining broker tells its sessions and takes nothing new', async (t) => {
  const { broker, directory, engine } = await startTestBroker(t)
  const client = await attachedClient(t, directory)
  const queue = await createCompletionQueue(client)
  t.deepEqual(await broker.drain(100), { outstanding: 0 })
  t.like((await client.event('broker-draining')).body, { reason: 'draining' })
  t.is((await failureOf(createCompletionQueue(client))).code, 'draining')
  t.is((await failureOf(new RawClient(t, directory).attach())).code, 'draining')
  await t.notThrowsAsync(client.ask('closeCompletionQueue', queue))
  t.is(readNodeFile(directory).life, 'draining')
  t.is(engine.called('drain').length, 1)
})

test.serial('a stop ends sessions that are still there, with their verdicts', async (t) => {
  const { broker, directory, engine } = await startTestBroker(t)
  const client = await attachedClient(t, directory)
  const { descriptors } = client.outcomes[0] ?? { descriptors: [] }
  await createQueuePair(client)
  const page = Mapping.attach(duplicate(descriptors[0] ?? -1), { byteLength: 20_000, writable: false })
  const stopped = broker.stop()
  await client.event('broker-draining')
  await until(() => client.closed, { timeoutMs: 5000, what: 'the end of the session' })
  client.releaseToken()
  await stopped
  t.is(engine.called('remove-queue-pair')[0]?.discard, false)
  t.deepEqual([...engine.objects], [])
  t.is(brokerPage.read(page.memory, 0).state, 3)
  page.close()
  t.false(exists(directory))
})

test.serial('numbers of members that do not leave are remembered after a stop', async (t) => {
  const directory = temporaryDirectory(t)
  const { broker } = await startTestBroker(t, { runtimeDirectory: directory })
  const client = await attachedClient(t, directory)
  await broker.stop()
  t.deepEqual(readdirSync(directory), ['node'])
  t.is(readNodeFile(directory).life, 'stopped')
  client.end()
})

test.serial('an engine that ends by itself ends the broker with its words', async (t) => {
  const { broker, engine, directory } = await startTestBroker(t)
  engine.emit('failed', { code: 'internal-error', message: 'the device burns' })
  const failure = await t.throwsAsync(broker.whenStopped, { instanceOf: SharedVerbsError })
  t.regex(failure?.message ?? '', /the device burns/)
  t.false(exists(directory))
})

test.serial('an engine that does not start leaves nothing', async (t) => {
  const parent = temporaryDirectory(t)
  const startEngine = () => Promise.reject(new SharedVerbsError('provider-unavailable', 'no device'))
  const failure = await failureOf(startTestBroker(t, { runtimeDirectory: `${parent}/run`, startEngine }))
  t.is(failure.code, 'provider-unavailable')
  t.deepEqual(readdirSync(parent), [])
})

test.serial('the heart beats in the file and in the page', async (t) => {
  const { directory } = await startTestBroker(t)
  const { header } = readNodeFile(directory)
  t.is(header.ready, 1)
  await until(() => readNodeFile(directory).header.heartbeat > header.heartbeat, { timeoutMs: 5000, what: 'a beat' })
})

test.serial('no secret is logged', async (t) => {
  const { directory, log, broker } = await startTestBroker(t, { logLevel: 'trace', clusterKey: 'cluster-secret-value' })
  await attachedClient(t, directory, 'job', 'job-secret-value')
  await failureOf(new RawClient(t, directory).attach('job', 'wrong-secret-value'))
  await broker.stop()
  t.true(log.length > 0)
  t.notRegex(log.join(''), /secret-value/)
})
