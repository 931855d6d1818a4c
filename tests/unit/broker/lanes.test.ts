import test from 'ava'
import type { EngineArguments } from '../../../broker/engine/commands.js'
import { readNodeFile } from '../../../broker/observe/node-file-reader.js'
import { agreeParameters, findParameterMismatch } from '../../../broker/sharing/lane-parameters.js'
import { SharedVerbsError } from '../../../protocol/errors.js'
import { until } from '../../support/until.js'
import { openerOf, type Side, sharedQueuePairs, startPair, untilShared } from './broker-pair.js'
import { attachedClient, connect, createQueuePair, failureOf } from './client-steps.js'
import { fakeLaneParameters } from './fake-engine.js'
import { ManualClock } from './manual-clock.js'
import { startTcpProxy } from './tcp-proxy.js'

const heardTimeMs = (side: Side): number => readNodeFile(side.directory).rows('peers').at(-1)?.heardTimeMs ?? 0

/** Lets a second pass and waits until each side has heard what the other sent. */
async function passSecond(clock: ManualClock, sides: readonly Side[]): Promise<void> {
  const before = sides.map(heardTimeMs)
  // The calendar must move too, or the new times would look like the old.
  await until(() => Date.now() > Math.max(...before), watch('the next millisecond'))
  clock.advance(1000)
  const arrived = (): boolean => sides.every((side, index) => heardTimeMs(side) > (before[index] ?? 0))
  await until(arrived, watch('heartbeats'))
}

const watch = (what: string) => ({ timeoutMs: 15_000, what })

test.serial('many queue pairs of many sessions share the lanes of their job', async (t) => {
  const { alpha, beta } = await startPair(t)
  const second = await attachedClient(t, alpha.directory)
  for (const client of [alpha.client, second]) {
    await Promise.all(Array.from({ length: 10 }, () => connect(client, 'beta')))
  }
  await connect(beta.client, 'alpha')
  t.is(sharedQueuePairs(alpha).length, 1)
  t.is(sharedQueuePairs(beta).length, 1)
  t.is(alpha.engine.called('create-lane').length, 1)
  t.is(readNodeFile(alpha.directory).counters()['shared-queue-pairs-created'], 1)
})

test.serial('jobs and traffic classes do not share', async (t) => {
  const { alpha, beta } = await startPair(t)
  const other = await attachedClient(t, alpha.directory, 'other-job')
  await attachedClient(t, beta.directory, 'other-job')
  await connect(alpha.client, 'beta')
  await connect(alpha.client, 'beta', 5000, 3)
  await connect(other, 'beta')
  const rows = sharedQueuePairs(alpha).map(({ job, trafficClass }) => [job, trafficClass])
  t.deepEqual(rows, [
    [1, 0],
    [1, 3],
    [2, 0],
  ])
})

test.serial('the smaller wish for lanes is used, and new queue pairs take the lane with the fewest', async (t) => {
  const { alpha, beta } = await startPair(t, { alpha: { lanes: 4 }, beta: { lanes: 2 } })
  const connected = []
  for (let count = 0; count < 6; count++) connected.push(await connect(alpha.client, 'beta'))
  await untilShared(beta, 2)
  t.is(sharedQueuePairs(alpha).length, 2)
  const lanes = alpha.engine.called('connect-queue-pair').map(({ lane }) => lane)
  t.deepEqual([...lanes].sort(), [1, 1, 1, 2, 2, 2])
  const first = connected[0]
  if (first) await alpha.client.ask('closeQueuePair', first)
  await connect(alpha.client, 'beta')
  t.is(alpha.engine.called('connect-queue-pair').at(-1)?.lane, lanes[0])
})

test.serial('parameters are agreed to the smaller value on both ends', async (t) => {
  const small = { bounceByteLength: 1024, bounceCount: 32, readsAccepted: 4, mtu: 1500, atomicWindow: 8 }
  const { alpha, beta } = await startPair(t, {
    beta: { parameters: small },
    alpha: { parameters: { chunkByteLength: 8192 } },
  })
  await connect(alpha.client, 'beta')
  await untilShared(beta, 1)
  const used = [alpha, beta].map(({ engine }) => engine.called('connect-lane')[0]?.parameters)
  t.deepEqual(used[0], used[1])
  t.like(used[0], { ...small, chunkByteLength: 8192, readsInitiated: 4 })
  const initiators = [alpha, beta].filter(({ engine }) => engine.called('connect-lane')[0]?.initiator)
  t.is(initiators.length, 1)
})

test.serial('what must be equal is refused by its name', (t) => {
  const mismatch = findParameterMismatch(fakeLaneParameters, { ...fakeLaneParameters, providerKind: 'verbs' })
  t.deepEqual(mismatch, { field: 'providerKind', mine: 'soft', yours: 'verbs' })
  t.is(findParameterMismatch(fakeLaneParameters, { ...fakeLaneParameters, bounceCount: 0 })?.field, 'bounceCount')
  t.is(findParameterMismatch(fakeLaneParameters, fakeLaneParameters), null)
  t.deepEqual(agreeParameters(fakeLaneParameters, fakeLaneParameters), fakeLaneParameters)
})

test.serial('an idle lane is reaped on both ends and comes back when it is needed', async (t) => {
  const { alpha, beta } = await startPair(t, { both: { idleReapMs: 50 } })
  for (let round = 1; round <= 3; round++) {
    const queuePair = await connect(alpha.client, 'beta')
    await untilShared(beta, 1)
    await alpha.client.ask('disconnectQueuePair', { ...queuePair, timeoutMs: 100 })
    await untilShared(alpha, 0)
    await untilShared(beta, 0)
    t.is(readNodeFile(alpha.directory).counters()['shared-queue-pairs-reaped'], round)
    t.is(readNodeFile(beta.directory).counters()['shared-queue-pairs-reaped'], round)
  }
  t.true(alpha.engine.called('destroy-lane').every(({ orderly }) => orderly))
  t.deepEqual(alpha.client.events, [])
})

test.serial('a lane that the other side or its engine still needs is not reaped', async (t) => {
  const pair = await startPair(t, { both: { idleReapMs: 30 }, knows: 'both' })
  const { opener, other } = openerOf(pair)
  let asked = 0
  const busy = ({ orderly }: EngineArguments<'destroy-lane'>): null => {
    if (orderly) asked++
    if (orderly && asked < 3) throw new SharedVerbsError('busy', 'in use')
    other.engine.objects.delete('lane 1')
    return null
  }
  other.engine.overrides['destroy-lane'] = busy
  // Which side opens lanes is decided by chance: both know each other here.
  const queuePair = await connect(opener.client, other.node)
  await opener.client.ask('closeQueuePair', queuePair)
  await until(() => asked === 3, watch('three attempts'))
  await untilShared(opener, 0)
  delete other.engine.overrides['destroy-lane']
  await other.client.ask('resolveNode', { node: opener.node, timeoutMs: 5000 })
  const rows = sharedQueuePairs(opener).length
  t.is(rows, 1)
  t.true(opener.engine.called('destroy-lane').every(({ orderly }) => orderly))
})

test.serial('datagrams get a way to a node, and again when a lane is rebuilt', async (t) => {
  const { alpha, beta } = await startPair(t)
  const { result } = await alpha.client.ask('resolveNode', { node: 'beta', timeoutMs: 5000 })
  t.is(result.nodeIndex, 1)
  await untilShared(beta, 1)
  const [before] = sharedQueuePairs(alpha)
  const told = () => alpha.engine.called('add-datagram-path')
  t.like(told().at(-1), { job: 1, peer: 1, lane: 1 })
  const { incarnation = 0 } = before ?? {}
  const calls = told().length
  alpha.engine.emit('lane-failed', { lane: 1, incarnation, reason: 'pulled' })
  t.like((await alpha.client.event('path-lost')).body, { node: 'beta', reason: 'pulled' })
  await alpha.client.event('path-recovered')
  await until(() => told().length > calls, watch('the new way'))
  await untilShared(beta, 1)
  t.is(beta.engine.called('destroy-lane').length, 1)
  t.is(sharedQueuePairs(alpha)[0]?.incarnation === incarnation, false)
})

test.serial('a failed lane that nobody needs is not rebuilt until somebody does', async (t) => {
  const { alpha, beta } = await startPair(t)
  const queuePair = await connect(alpha.client, 'beta')
  const incarnation = sharedQueuePairs(alpha)[0]?.incarnation ?? 0
  alpha.engine.emit('queue-pair-error', { ...queuePair, job: 1, status: 12, reason: 'path' })
  alpha.engine.emit('lane-failed', { lane: 1, incarnation, reason: 'pulled' })
  await untilShared(alpha, 0)
  await untilShared(beta, 0)
  await connect(alpha.client, 'beta')
  t.is(alpha.engine.called('create-lane').length, 2)
})

test.serial('an engine that cannot make a lane is heard on both sides', async (t) => {
  const { alpha, beta } = await startPair(t)
  const refuse = () => Promise.reject(new SharedVerbsError('no-memory', 'no room for a lane'))
  beta.engine.overrides['create-lane'] = refuse
  for (const [side, node] of [
    [alpha, 'beta'],
    [beta, 'alpha'],
  ] as const) {
    const failure = await failureOf(connect(side.client, node, 10_000))
    t.is(failure.code, 'no-memory')
    t.regex(failure.message, /no room for a lane/)
  }
  t.deepEqual([...sharedQueuePairs(alpha), ...sharedQueuePairs(beta)], [])
  delete beta.engine.overrides['create-lane']
  await t.notThrowsAsync(connect(alpha.client, 'beta', 10_000))
})

test.serial('a lane that does not come up is tried again until the deadline', async (t) => {
  const { alpha } = await startPair(t)
  let tries = 0
  alpha.engine.overrides['connect-lane'] = () => {
    tries++
    if (tries < 3) throw new SharedVerbsError('peer-unreachable', 'no probe came back')
    return null
  }
  await t.notThrowsAsync(connect(alpha.client, 'beta', 10_000))
  t.is(tries, 3)
})

test.serial('a peer whose engine does not move is dead, whatever its socket says', async (t) => {
  const clock = new ManualClock()
  const { alpha, beta } = await startPair(t, { both: { clock } })
  await alpha.client.ask('resolveNode', { node: 'beta', timeoutMs: 60_000 })
  const happened = (kind: string): boolean =>
    readNodeFile(alpha.directory)
      .rows('events')
      .some((row) => row.kind === kind)
  beta.engine.stall()
  // The first heartbeat, after a second, is the last news of the peer's engine.
  for (let second = 1; second <= 10; second++) {
    alpha.engine.turn()
    await passSecond(clock, [alpha, beta])
    t.is(happened('peer-suspected'), second > 3)
  }
  t.is(alpha.client.events.length, 0)
  clock.advance(1000)
  const lost = await alpha.client.event('path-lost')
  t.like(lost.body, { node: 'beta', reason: 'no heartbeat for 10000 ms' })
  t.true(happened('peer-dead'))
  t.is(alpha.engine.called('destroy-lane').length, 1)
})

test.serial('a peer that goes on is not suspected, however long it is idle', async (t) => {
  const clock = new ManualClock()
  const { alpha, beta } = await startPair(t, { both: { clock } })
  await alpha.client.ask('resolveNode', { node: 'beta', timeoutMs: 60_000 })
  for (let second = 0; second < 12; second++) {
    alpha.engine.turn()
    beta.engine.turn()
    await passSecond(clock, [alpha, beta])
  }
  t.false(
    readNodeFile(alpha.directory)
      .rows('events')
      .some(({ kind }) => kind === 'peer-suspected'),
  )
})

test.serial('a session that leaves gives up its wait for a node', async (t) => {
  const { alpha, beta } = await startPair(t)
  await beta.broker.stop()
  const client = await attachedClient(t, alpha.directory)
  connect(client, 'beta', 60_000).catch(() => undefined)
  await until(() => readNodeFile(alpha.directory).counters()['link-failures'] > 0, watch('an attempt'))
  client.end()
  await until(() => readNodeFile(alpha.directory).rows('peers').length === 1, watch('the end of the attempts'))
  t.is(alpha.engine.called('connect-queue-pair').length, 0)
})

test.serial('the last member of a job takes its lanes along after the reap time', async (t) => {
  const { alpha, beta } = await startPair(t, { both: { idleReapMs: 40 } })
  await connect(alpha.client, 'beta')
  await untilShared(beta, 1)
  alpha.client.end()
  await untilShared(alpha, 0)
  await until(() => alpha.engine.called('remove-job').length === 1, watch('the end of the job'))
  await untilShared(beta, 0)
  t.is(readNodeFile(alpha.directory).rows('jobs').length, 0)
  const back = await attachedClient(t, alpha.directory)
  await t.notThrowsAsync(connect(back, 'beta'))
  await t.notThrowsAsync(createQueuePair(back))
})

test.serial('a lane that failed while there was no link is told of when there is one again', async (t) => {
  const { alpha, beta } = await startPair(t)
  const wire = await startTcpProxy(t, beta.broker.linkPort)
  alpha.broker.addPeer('beta', `127.0.0.1:${wire.port}`)
  const queuePair = await connect(alpha.client, 'beta')
  await untilShared(beta, 1)
  const incarnation = sharedQueuePairs(alpha)[0]?.incarnation ?? 0
  const events = (kind: string): number =>
    readNodeFile(alpha.directory)
      .rows('events')
      .filter((row) => row.kind === kind).length
  wire.cut()
  await until(() => events('link-down') === 1, watch('the end of the link'))
  alpha.engine.emit('lane-failed', { lane: 1, incarnation, reason: 'pulled' })
  // Nobody needs the path, so nobody dials before the next connect.
  alpha.engine.emit('queue-pair-error', { ...queuePair, job: 1, status: 12, reason: 'path' })
  await connect(alpha.client, 'beta', 10_000)
  await untilShared(beta, 1)
  t.is(beta.engine.called('destroy-lane').length, 1)
})

test.serial('lanes outlive a link that is cut, and connects go on over them', async (t) => {
  const { alpha, beta } = await startPair(t)
  const wire = await startTcpProxy(t, beta.broker.linkPort)
  alpha.broker.addPeer('beta', `127.0.0.1:${wire.port}`)
  await connect(alpha.client, 'beta')
  await untilShared(beta, 1)
  wire.cut()
  for (let count = 0; count < 5; count++) await connect(alpha.client, 'beta')
  await until(() => readNodeFile(alpha.directory).counters()['link-connects'] === 2, watch('another link'))
  await connect(alpha.client, 'beta')
  for (const side of [alpha, beta]) {
    t.is(side.engine.called('create-lane').length, 1)
    t.is(side.engine.called('destroy-lane').length, 0)
  }
})
