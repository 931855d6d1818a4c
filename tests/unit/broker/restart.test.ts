/** The barrier of a restart: who may come back, what is believed, when the job goes on. */
import { closeSync, openSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { readNodeFile } from '../../../broker/observe/node-file-reader.js'
import { standbyPath } from '../../../protocol/paths.js'
import { queuePairState } from '../../../protocol/queue-pair-segment.js'
import { duplicate, eventfdCreate, ftruncate, memfdCreate, tryLockWholeFile } from '../../../shm/libc.js'
import { Mapping } from '../../../shm/mapping.js'
import { openDescriptors } from '../../support/leaks.js'
import { startProcess } from '../../support/processes.js'
import { until } from '../../support/until.js'
import { createCompletionQueue, failureOf, type Identity } from './client-steps.js'
import {
  equippedClient,
  leaveBehind,
  present,
  presentAll,
  reattach,
  restarted,
  writeConnection,
} from './left-behind.js'
import { ManualClock } from './manual-clock.js'
import { RawClient } from './raw-client.js'
import { startTestBroker } from './start-test-broker.js'

const watch = (what: string) => ({ timeoutMs: 10_000, what })
const names = (calls: readonly { readonly name: string }[]): string[] => calls.map(({ name }) => name)

const identityOf = ({ number, generation }: Identity): Identity => ({ number, generation })

/** Says that it has presented everything, and waits until the broker has heard it. */
async function finish(client: RawClient, directory: string): Promise<{ readonly done: Promise<unknown> }> {
  const heard = (): number => readNodeFile(directory).counters()['control-requests']
  const before = heard()
  const done = client.ask('reattached', {})
  await until(() => heard() > before, watch('the word of a session'))
  return { done }
}

test.serial('a session comes back with everything it holds, and goes on', async (t) => {
  const { directory, engine, survivor, broker } = await restarted(t)
  t.is(broker.epoch, 2)
  const client = await reattach(t, directory, survivor)
  await presentAll(client, survivor)
  t.deepEqual(names(engine.calls), ['add-job', 'add-member', 'add-completion-queue', 'add-region', 'add-queue-pair'])
  await client.ask('reattached', {})
  t.deepEqual(names(engine.calls).slice(5), ['resume-job', 'abandon-path'])
  const [added] = engine.called('add-queue-pair')
  t.is(added?.number, survivor.queuePair.number)
  t.deepEqual(added?.adopt, { state: queuePairState.idle, errorStatus: 0, connection: null })
  t.is(added?.sendSlots, 16)
  t.is(added?.rnrTimerMs, 10)
  const queue = await createCompletionQueue(client)
  t.not(queue.number, survivor.completionQueue.number)
  await client.ask('closeQueuePair', identityOf(survivor.queuePair))
  await client.ask('closeCompletionQueue', identityOf(survivor.completionQueue))
  const rows = readNodeFile(directory)
  t.deepEqual(rows.rows('queuePairs'), [])
  t.deepEqual(
    rows.rows('completionQueues').map(({ index }) => index),
    [queue.number],
  )
  await client.ask('detach', {})
  t.deepEqual(readNodeFile(directory).rows('regions'), [])
})

test.serial('what nobody presents is dropped when the job goes on, and its numbers not before', async (t) => {
  const { directory, engine, survivor } = await restarted(t)
  const client = await reattach(t, directory, survivor)
  await present(client, 'completionQueue', survivor.completionQueue)
  t.is(readNodeFile(directory).rows('queuePairs').length, 1)
  await client.ask('reattached', {})
  t.is(readNodeFile(directory).rows('queuePairs').length, 0)
  t.is(readNodeFile(directory).rows('regions').length, 0)
  t.is(readNodeFile(directory).rows('completionQueues').length, 1)
  t.is(engine.called('add-queue-pair').length, 0)
})

test.serial('nothing of a job runs until every member that lives is back', async (t) => {
  const before = await startTestBroker(t)
  const one = await equippedClient(t, before.directory)
  const other = await equippedClient(t, before.directory)
  await leaveBehind(before)
  const { directory, engine } = await startTestBroker(t, { runtimeDirectory: before.directory })
  const first = await reattach(t, directory, one)
  await presentAll(first, one)
  const done = first.ask('reattached', {})
  const early = createCompletionQueue(first)
  const stranger = new RawClient(t, directory)
  const attaching = stranger.attach()
  const second = await reattach(t, directory, other)
  await presentAll(second, other)
  t.deepEqual(engine.called('resume-job'), [])
  t.is(engine.called('add-completion-queue').length, 2)
  t.is(engine.called('add-job').length, 1)
  await second.ask('reattached', {})
  await Promise.all([done, early, attaching])
  t.is(engine.called('resume-job').length, 1)
  const asked = names(engine.calls)
  t.true(asked.lastIndexOf('add-completion-queue') > asked.indexOf('resume-job'))
  t.is(readNodeFile(directory).rows('members').length, 3)
  t.is(readNodeFile(directory).rows('jobs').length, 1)
})

test.serial('a member that died meanwhile is swept after the job was taken up, and nobody waits for it', async (t) => {
  const before = await startTestBroker(t)
  const one = await equippedClient(t, before.directory)
  const dead = await equippedClient(t, before.directory)
  await leaveBehind(before)
  dead.token.release()
  const { directory, engine } = await startTestBroker(t, { runtimeDirectory: before.directory })
  const client = await reattach(t, directory, one)
  await presentAll(client, one)
  await client.ask('reattached', {})
  const { member, memberGeneration: generation } = dead
  t.like(engine.called('sweep-member')[0], { member, generation })
  t.true(names(engine.calls).indexOf('sweep-member') > names(engine.calls).indexOf('resume-job'))
  const rows = readNodeFile(directory)
  t.deepEqual(
    rows.rows('members').map(({ index }) => index),
    [one.member],
  )
  t.is(rows.rows('queuePairs').length, 1)
})

test.serial('who dies while it comes back holds nobody up', async (t) => {
  const before = await startTestBroker(t)
  const one = await equippedClient(t, before.directory)
  const other = await equippedClient(t, before.directory)
  await leaveBehind(before)
  const { directory, engine } = await startTestBroker(t, { runtimeDirectory: before.directory })
  const first = await reattach(t, directory, one)
  await presentAll(first, one)
  const second = await reattach(t, directory, other)
  const done = first.ask('reattached', {})
  second.hangUp()
  other.token.release()
  await done
  await until(() => readNodeFile(directory).rows('members').length === 1, watch('the end of the other'))
  const asked = names(engine.calls)
  t.true(asked.indexOf('sweep-member') > asked.indexOf('resume-job'))
})

test.serial('who lives and does not come is waited for as long as the grace, and refused later', async (t) => {
  const clock = new ManualClock()
  const before = await startTestBroker(t)
  const one = await equippedClient(t, before.directory)
  const late = await equippedClient(t, before.directory)
  await leaveBehind(before)
  const { directory, engine } = await startTestBroker(t, { runtimeDirectory: before.directory, clock })
  const client = await reattach(t, directory, one)
  await presentAll(client, one)
  const { done } = await finish(client, directory)
  clock.advance(4900)
  t.deepEqual(engine.called('resume-job'), [])
  clock.advance(200)
  await done
  t.is((await failureOf(reattach(t, directory, late))).code, 'stale-handle')
  t.is(readNodeFile(directory).rows('queuePairs').length, 1)
  t.is(readNodeFile(directory).rows('members').length, 2)
  late.token.release()
  clock.advance(100)
  await until(() => readNodeFile(directory).rows('members').length === 1, watch('the end of its rest'))
  t.like(engine.called('sweep-member')[0], { member: late.member })
})

test.serial('who came and did not finish is told that it is over', async (t) => {
  const clock = new ManualClock()
  const before = await startTestBroker(t)
  const one = await equippedClient(t, before.directory)
  const slow = await equippedClient(t, before.directory)
  await leaveBehind(before)
  const { directory } = await startTestBroker(t, { runtimeDirectory: before.directory, clock })
  const client = await reattach(t, directory, one)
  await presentAll(client, one)
  const half = await reattach(t, directory, slow)
  await present(half, 'completionQueue', slow.completionQueue)
  const { done } = await finish(client, directory)
  clock.advance(5000)
  await done
  await half.event('session-ended')
  await until(() => half.closed, watch('the end of its connection'))
  slow.token.release()
  const rows = () => readNodeFile(directory)
  const gone = (): boolean => {
    clock.advance(300)
    return rows().rows('members').length === 1 && rows().rows('completionQueues').length === 1
  }
  await until(gone, watch('the end of what it had presented'))
  t.deepEqual(
    rows()
      .rows('members')
      .map(({ index }) => index),
    [one.member],
  )
})

test.serial('a job to which nobody comes back is dropped, and can be begun anew', async (t) => {
  const before = await startTestBroker(t)
  const one = await equippedClient(t, before.directory)
  await leaveBehind(before)
  const { directory, engine } = await startTestBroker(t, { runtimeDirectory: before.directory, reattachGraceMs: 50 })
  const anew = new RawClient(t, directory)
  const { result } = await anew.attach('job', 'another key')
  t.not(result.member, one.member)
  t.is(engine.called('resume-job').length, 0)
  const rows = readNodeFile(directory)
  t.is(rows.rows('queuePairs').length, 0)
  t.is(rows.rows('jobs').length, 1)
  t.is((await failureOf(reattach(t, directory, one))).code, 'stale-handle')
})

test.serial(
  'several sessions present the same object: it is made once, and lives until the last lets go',
  async (t) => {
    const before = await startTestBroker(t)
    const one = await equippedClient(t, before.directory)
    const other = await equippedClient(t, before.directory)
    const shared = (await other.client.ask('openCompletionQueue', identityOf(one.completionQueue))).descriptors[0] ?? -1
    const opened = (await other.client.ask('openQueuePair', identityOf(one.queuePair))).descriptors[0] ?? -1
    await leaveBehind(before)
    const { directory, engine } = await startTestBroker(t, { runtimeDirectory: before.directory })
    const [first, second] = await Promise.all([reattach(t, directory, one), reattach(t, directory, other)])
    await Promise.all([
      present(first, 'completionQueue', one.completionQueue),
      present(second, 'completionQueue', { ...one.completionQueue, descriptor: shared }),
    ])
    await Promise.all([
      present(first, 'queuePair', one.queuePair),
      present(second, 'queuePair', { ...one.queuePair, descriptor: opened }),
    ])
    await Promise.all([first.ask('reattached', {}), second.ask('reattached', {})])
    t.is(engine.called('add-completion-queue').length, 1)
    t.is(engine.called('add-queue-pair').length, 1)
    await first.ask('closeQueuePair', identityOf(one.queuePair))
    t.is(engine.called('remove-queue-pair').length, 0)
    await second.ask('closeQueuePair', identityOf(one.queuePair))
    t.is(engine.called('remove-queue-pair').length, 1)
  },
)

test.serial('who is not the member it says to be is refused', async (t) => {
  const { directory, survivor, engine } = await restarted(t)
  const codeOf = async (changed: Record<string, unknown>) =>
    (await failureOf(reattach(t, directory, survivor, changed))).code
  t.is(await codeOf({ jobKey: 'wrong' }), 'wrong-job-key')
  t.is(await codeOf({ memberGeneration: survivor.memberGeneration + 1 }), 'access-denied')
  t.is(await codeOf({ member: survivor.member + 1 }), 'stale-handle')
  t.is(await codeOf({ job: 'another' }), 'stale-handle')
  t.is(await codeOf({ epoch: 2 }), 'stale-handle')
  t.is(await codeOf({ node: 'beta' }), 'stale-handle')
  t.is(await codeOf({ abiVersion: 99 }), 'abi-mismatch')
  t.deepEqual(engine.calls, [])
  await t.notThrowsAsync(reattach(t, directory, survivor))
  t.is(await codeOf({}), 'stale-handle')
})

/** Descriptors that a hostile client might hand over instead of a segment, closed with the test. */
function hostileDescriptors(scope: Parameters<typeof restarted>[0]): Record<string, number> {
  const unsealed = memfdCreate('queue-pair')
  ftruncate(unsealed, 4096)
  const [pipe, file] = [openSync('/dev/null', 'r'), openSync('/proc/self/exe', 'r')]
  const sealed = Mapping.create('queue-pair', 8192)
  const eventfd = eventfdCreate()
  scope.teardown(() => {
    for (const fd of [unsealed, pipe, file, eventfd]) closeSync(fd)
    sealed.close()
  })
  return { unsealed, device: pipe, file, 'another inode': sealed.fd, eventfd }
}

test.serial('hostile descriptors are refused one by one, closed, and harm nobody', async (t) => {
  const { directory, survivor, engine } = await restarted(t)
  const hostile = hostileDescriptors(t)
  const [liveness, activity, doorbell] = survivor.files
  for (const [what, fd] of Object.entries(hostile)) {
    for (const files of [
      [fd, activity, doorbell],
      [liveness, fd, doorbell],
      ...(what === 'eventfd' ? [] : [[liveness, activity, fd]]),
    ]) {
      const failure = await failureOf(reattach(t, directory, survivor, { files }))
      t.is(failure.code, 'segment-invalid', what)
    }
  }
  t.is((await failureOf(reattach(t, directory, survivor, { files: [] }))).code, 'malformed-message')
  t.deepEqual(engine.calls, [])
  const client = await reattach(t, directory, survivor)
  const { completionQueue, queuePair, region } = survivor
  for (const [what, descriptor] of Object.entries({ ...hostile, 'segment of another': region.descriptor })) {
    const failure = await failureOf(present(client, 'completionQueue', { ...completionQueue, descriptor }))
    t.is(failure.code, 'segment-invalid', what)
  }
  const wrongNumber = { ...completionQueue, number: 0xffffff }
  t.is((await failureOf(present(client, 'completionQueue', wrongNumber))).code, 'no-such-object')
  const stale = { ...completionQueue, generation: completionQueue.generation + 1 }
  t.is((await failureOf(present(client, 'completionQueue', stale))).code, 'stale-handle')
  // Without its completion queue it is not even made.
  t.is((await failureOf(present(client, 'queuePair', queuePair))).code, 'no-such-object')
  await presentAll(client, survivor)
  await t.notThrowsAsync(client.ask('reattached', {}))
  t.is((await failureOf(present(client, 'region', region))).code, 'stale-handle')
})

test.serial('a segment of another job is refused', async (t) => {
  const before = await startTestBroker(t)
  const one = await equippedClient(t, before.directory)
  const other = await equippedClient(t, before.directory, 'other')
  await leaveBehind(before)
  const { directory } = await startTestBroker(t, { runtimeDirectory: before.directory })
  const client = await reattach(t, directory, one)
  t.is((await failureOf(present(client, 'region', other.region))).code, 'access-denied')
  const swapped = { ...one.region, descriptor: other.region.descriptor }
  t.is((await failureOf(present(client, 'region', swapped))).code, 'segment-invalid')
})

test.serial('refused descriptors do not stay open', async (t) => {
  const { directory, survivor } = await restarted(t)
  const client = await reattach(t, directory, survivor)
  const hostile = hostileDescriptors(t)
  const before = openDescriptors()
  for (const descriptor of Object.values(hostile)) {
    await failureOf(present(client, 'region', { ...survivor.region, descriptor }))
    await failureOf(client.present('createCompletionQueue', { capacity: 4 }, [descriptor]))
  }
  t.deepEqual(openDescriptors(), before)
})

test.serial('limits hold for what comes back', async (t) => {
  const before = await startTestBroker(t)
  const survivor = await equippedClient(t, before.directory)
  await leaveBehind(before)
  const limits = { queuePairsPerJob: 0 }
  const { directory } = await startTestBroker(t, { runtimeDirectory: before.directory, limits })
  const client = await reattach(t, directory, survivor)
  await present(client, 'completionQueue', survivor.completionQueue)
  t.is((await failureOf(present(client, 'queuePair', survivor.queuePair))).code, 'limit-exceeded')
  await client.ask('reattached', {})
  t.is(readNodeFile(directory).rows('queuePairs').length, 0)
})

test.serial('a connected queue pair is adopted as its row says, and its peer is told', async (t) => {
  const before = await startTestBroker(t)
  const survivor = await equippedClient(t, before.directory)
  await leaveBehind(before)
  const connection = { peer: 0, peerNumber: 9, peerGeneration: 8, laneIndex: 0, condition: queuePairState.connected }
  writeConnection(before.directory, survivor.queuePair.number, connection)
  const { directory, engine } = await startTestBroker(t, { runtimeDirectory: before.directory })
  const client = await reattach(t, directory, survivor)
  await present(client, 'completionQueue', survivor.completionQueue)
  const { remote } = await present(client, 'queuePair', survivor.queuePair)
  t.deepEqual(remote, { node: 'alpha', number: 9, generation: 8 })
  t.deepEqual(engine.called('add-queue-pair')[0]?.adopt, {
    state: queuePairState.connected,
    errorStatus: 0,
    connection: { peer: 0, lane: 0, number: 9, generation: 8 },
  })
  await client.ask('reattached', {})
  const failure = await failureOf(
    client.ask('connectQueuePair', {
      number: survivor.queuePair.number,
      generation: survivor.queuePair.generation,
      remote: { node: 'alpha', number: 1, generation: 1 },
      timeoutMs: 100,
    }),
  )
  t.is(failure.code, 'already-connected')
})

test.serial('a broker that is killed before the job goes on leaves everything to the next', async (t) => {
  const first = await startTestBroker(t)
  const survivor = await equippedClient(t, first.directory)
  const other = await equippedClient(t, first.directory)
  await leaveBehind(first)
  const script = fileURLToPath(new URL('./fixtures/broker-process.ts', import.meta.url))
  const second = startProcess(t, process.execPath, ['--import=./broker/typescript.js', script, first.directory])
  await second.printed(/ready/)
  const half = await reattach(t, first.directory, survivor)
  await presentAll(half, survivor)
  const unanswered = half.ask('reattached', {})
  unanswered.catch(() => undefined)
  second.signal('SIGKILL')
  await second.ended()
  const { directory, engine, broker } = await startTestBroker(t, { runtimeDirectory: first.directory })
  t.is(broker.epoch, 3)
  for (const one of [survivor, other]) {
    const client = await reattach(t, directory, one)
    await presentAll(client, one)
    void client.ask('reattached', {})
  }
  await until(() => engine.called('resume-job').length === 1, watch('the job'))
  t.is(engine.called('add-queue-pair').length, 2)
})

test.serial('a stop during the wait for sessions ends it', async (t) => {
  const { directory, survivor, broker } = await restarted(t)
  const client = await reattach(t, directory, survivor)
  await present(client, 'completionQueue', survivor.completionQueue)
  const stopped = broker.stop()
  await client.event('session-ended')
  survivor.token.release()
  await stopped
  t.deepEqual(readdirSync(directory), [])
})

test.serial('a doorbell that would block its ringer is refused', async (t) => {
  const { directory, survivor } = await restarted(t)
  const [liveness, activity] = survivor.files
  const pipe = openSync('/dev/zero', 'r')
  t.teardown(() => closeSync(pipe))
  const failure = await failureOf(reattach(t, directory, survivor, { files: [liveness, activity, duplicate(pipe)] }))
  t.is(failure.code, 'segment-invalid')
})

test.serial('a handover that is not done in time is given up, and requests that waited are answered', async (t) => {
  const { broker, directory, engine } = await startTestBroker(t)
  const client = await equippedClient(t, directory)
  t.is((await failureOf(broker.handover(100))).code, 'aborted')
  const place = openSync(standbyPath(directory), 'w+')
  t.teardown(() => closeSync(place))
  t.true(tryLockWholeFile(place))
  let drained: (answer: { outstanding: number }) => void = () => {}
  engine.overrides['drain'] = () => new Promise((resolve) => (drained = resolve))
  const handover = failureOf(broker.handover(100))
  await until(() => engine.called('drain').length === 1, watch('the drain'))
  const asked = createCompletionQueue(client.client)
  t.is(engine.called('add-completion-queue').length, 1)
  drained({ outstanding: 3 })
  const failure = await handover
  t.is(failure.code, 'timeout')
  t.like(failure.context, { outstanding: 3 })
  await t.notThrowsAsync(asked)
  t.is(broker.state, 'running')
})

test.serial('only who could stop the broker may ask for a handover, and is told why not', async (t) => {
  const { directory } = await startTestBroker(t)
  const operator = new RawClient(t, directory)
  const failure = await failureOf(operator.ask('handover', { timeoutMs: 100 }))
  t.is(failure.code, 'aborted')
  t.regex(failure.message, /--standby/)
})
