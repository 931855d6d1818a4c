import { writeFileSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import test from 'ava'
import { attach, SharedVerbsError } from '../../../client/index.js'
import { brokerPage } from '../../../protocol/broker-page.js'
import type { CheckedBody } from '../../../protocol/control.js'
import { queuePairState } from '../../../protocol/queue-pair-segment.js'
import { openDescriptors } from '../../support/leaks.js'
import { attached } from './attached.js'
import { FakeBroker } from './fake-broker.js'

// Descriptors are counted and the environment is changed: one test at a time.
const serial = test.serial

serial('every option has a default in the environment', async (t) => {
  const broker = FakeBroker.start(t)
  const seen: CheckedBody<'attach'>[] = []
  broker.respond = (name, body, session) => {
    if (name === 'attach') seen.push(body as CheckedBody<'attach'>)
    return broker.answer(name, body, session)
  }
  const path = `${broker.directory}/key`
  writeFileSync(path, 'from a file\nsecond line\n')
  const before = { ...process.env }
  t.teardown(() => {
    process.env = before
  })
  const attachWith = async (environment: Record<string, string>): Promise<void> => {
    process.env = { ...environment, SHARED_VERBS_DIR: broker.directory }
    await (await attach()).close()
  }
  await attachWith({})
  await attachWith({ SLURM_JOB_ID: '4711', SHARED_VERBS_JOB_KEY_FILE: path })
  await attachWith({ SLURM_JOB_ID: '4711', SHARED_VERBS_JOB: 'mine', SHARED_VERBS_JOB_KEY: 'word' })
  t.deepEqual(
    seen.map(({ job, jobKey }) => [job, jobKey]),
    [
      ['default', ''],
      ['4711', 'from a file'],
      ['mine', 'word'],
    ],
  )
  t.regex(seen[0]!.name, new RegExp(`-${process.pid}$`))
  t.is(seen[0]!.processId, process.pid)
  await t.throwsAsync(attachWith({ SHARED_VERBS_JOB_KEY_FILE: `${path}s` }), { code: 'access-denied' })
})

serial('what the broker refuses is thrown with its code and context, and nothing stays open', async (t) => {
  const broker = FakeBroker.start(t)
  const before = openDescriptors()
  broker.respond = () => {
    throw new SharedVerbsError('wrong-job-key', 'the job key is wrong; set SHARED_VERBS_JOB_KEY', { job: 'x' })
  }
  const error = await t.throwsAsync<SharedVerbsError>(attach({ runtimeDir: broker.directory, job: 'x' }), {
    code: 'wrong-job-key',
  })
  t.deepEqual(error?.context, { job: 'x' })
  await settled(broker)
  t.deepEqual(openDescriptors(), before)
})

serial('a broker page of another build is an abi mismatch, and nothing stays open', async (t) => {
  const broker = FakeBroker.start(t)
  await turn()
  const before = openDescriptors()
  brokerPage.write(broker.page.memory, 0, { fingerprint: 1 })
  await t.throwsAsync(attach({ runtimeDir: broker.directory }), { code: 'abi-mismatch', message: /one version/ })
  await settled(broker)
  t.deepEqual(openDescriptors(), before)
})

serial('a member number that lives already is refused', async (t) => {
  const broker = FakeBroker.start(t)
  const first = await attach({ runtimeDir: broker.directory })
  t.teardown(() => first.close())
  broker.respond = async (name, body, session) => {
    const answer = await broker.answer(name, body, session)
    return name === 'attach' ? { ...answer, result: { ...(answer.result as object), member: first.member } } : answer
  }
  await t.throwsAsync(attach({ runtimeDir: broker.directory }), { code: 'protocol-violation' })
})

serial('a broker that does not answer ends in a timeout', async (t) => {
  const broker = FakeBroker.start(t)
  broker.respond = () => new Promise(() => undefined)
  await t.throwsAsync(attach({ runtimeDir: broker.directory, timeoutMs: 30 }), { code: 'timeout' })
})

serial('a reply that comes too late gives its descriptors back', async (t) => {
  const { broker, session } = await attached(t)
  const queue = await session.createCompletionQueue({ capacity: 2 })
  let release = (): void => undefined
  broker.respond = async (name, body, from) => {
    await new Promise<void>((resolve) => {
      release = resolve
    })
    return broker.answer(name, body, from)
  }
  const before = openDescriptors()
  const opening = session.attachment.request(
    'openCompletionQueue',
    { number: queue.number, generation: queue.generation },
    { timeoutMs: 20 },
  )
  await t.throwsAsync(opening, { code: 'timeout' })
  release()
  broker.respond = (name, body, from) => broker.answer(name, body, from)
  // Replies come in order, so this one comes after it.
  await session.resolve('there')
  t.deepEqual(openDescriptors(), before)
})

serial('arguments that the protocol does not allow are refused here, with the value', async (t) => {
  const { session, cq, qp } = await attached(t)
  const invalid = { code: 'invalid-argument' }
  await t.throwsAsync(session.registerMemory(-1), invalid)
  await t.throwsAsync(session.createCompletionQueue({ capacity: 1e9 }), invalid)
  const error = await t.throwsAsync<SharedVerbsError>(session.createQueuePair({ sendCq: cq, maxInline: 513 }), invalid)
  t.like(error?.context, { path: 'maxInline', value: 513 })
  await t.throwsAsync(session.createQueuePair({} as never), invalid)
  await t.throwsAsync(session.resolve('no such name'), invalid)
  await t.throwsAsync(session.openMemory(qp.share()), invalid)
  await t.throwsAsync(qp.connect({ node: 'there', number: 1.5, generation: 0 }), invalid)
})

serial('connecting, disconnecting and events reach the queue pair', async (t) => {
  const { broker, session, qp, fake } = await attached(t)
  t.is(qp.state, 'idle')
  await qp.connect({ node: 'there', service: 'name' })
  t.deepEqual(qp.remote, { node: 'there', number: 7, generation: 3 })
  fake.state = queuePairState.connected
  t.is(qp.state, 'connected')
  const heard: string[] = []
  session.on('event', (event) => heard.push(event.kind))
  qp.on('error', ({ status, reason }) => heard.push(`${status}: ${reason}`))
  qp.on('disconnected', ({ queuePair }) => heard.push(String(queuePair === qp)))
  const { number, generation } = qp
  const [here] = broker.sessions
  here!.event('queue-pair-error', { number, generation, status: 12, reason: 'gone' })
  here!.event('queue-pair-disconnected', { number, generation, reason: 'bye' })
  here!.event('path-lost', { node: 'there', reason: 'heartbeat' })
  await qp.disconnect()
  t.deepEqual(heard, ['retry-exceeded: gone', 'queue-pair-error', 'true', 'queue-pair-disconnected', 'path-lost'])
  // Without a listener an error event is no exception.
  qp.removeAllListeners('error')
  here!.event('queue-pair-error', { number, generation, status: 12, reason: 'again' })
  await qp.disconnect()
  t.is(heard.length, 6)
})

serial('a region can be opened by another session and closed by both', async (t) => {
  const { broker, region } = await attached(t)
  const other = await attach({ runtimeDir: broker.directory })
  t.teardown(() => other.close())
  const same = await other.openMemory(JSON.parse(JSON.stringify(region.share())))
  t.is(same.remoteKey, region.remoteKey)
  region.bytes[17] = 99
  t.is(same.bytes[17], 99)
  await same.close()
  await same.close()
  t.is(same.bytes[17], 0)
  t.is(region.bytes[17], 99)
})

/** Until the broker has seen its connections end. */
async function settled(broker: FakeBroker): Promise<void> {
  while (broker.sessions.some(({ connection }) => connection.open)) await turn()
  for (const session of broker.sessions.splice(0)) session.close()
}
