/** What a node does about a peer that was lost: waits for it, takes it back, or gives it up. */
import { createServer } from 'node:net'
import test from 'ava'
import { readNodeFile } from '../../../broker/observe/node-file-reader.js'
import { SharedVerbsError } from '../../../protocol/errors.js'
import { queuePairState } from '../../../protocol/queue-pair-segment.js'
import { until } from '../../support/until.js'
import { startPair, untilShared } from './broker-pair.js'
import { connect, failureOf } from './client-steps.js'
import { equippedClient, leaveBehind, presentAll, reattach, writeConnection } from './left-behind.js'
import { startTestBroker } from './start-test-broker.js'

const watch = (what: string) => ({ timeoutMs: 15_000, what })

test.serial(
  'a peer that hands over is waited for, fenced and taken back, and its job is not asked too early',
  async (t) => {
    const { alpha, beta } = await startPair(t)
    const survivor = await equippedClient(t, beta.directory)
    await connect(alpha.client, 'beta')
    await untilShared(alpha, 1)
    beta.client.end()
    await until(() => readNodeFile(beta.directory).rows('members').length === 1, watch('one member on beta'))
    const port = beta.broker.linkPort
    await leaveBehind(beta)
    await until(() => alpha.engine.called('destroy-lane').length === 1, watch('the end of the old lane'))
    await alpha.client.event('path-lost')
    const next = await startTestBroker(t, { node: 'beta', runtimeDirectory: beta.directory, port })
    const linked = () =>
      readNodeFile(alpha.directory)
        .rows('peers')
        .some((row) => row.node === 'beta' && row.epoch === 2)
    await until(linked, watch('the link to the new broker'))
    // The job waits for its session there, so its domain is not open and no lane comes.
    t.is(alpha.engine.called('create-lane').length, 1)
    t.is(next.engine.called('create-lane').length, 0)
    const client = await reattach(t, beta.directory, survivor, { node: 'beta' })
    await presentAll(client, survivor)
    await client.ask('reattached', {})
    await until(() => alpha.engine.called('create-lane').length === 2, watch('the new lane'))
    await untilShared(alpha, 1)
    await alpha.client.event('path-recovered')
    const [first, second] = alpha.engine.called('create-lane')
    t.is(first?.index, second?.index)
    t.not(first?.incarnation, second?.incarnation)
    t.deepEqual(alpha.engine.called('abandon-path'), [])
    t.is(alpha.client.events.filter(({ name }) => name === 'path-lost').length, 1)
  },
)

test.serial('a peer that stops for good is given up at once', async (t) => {
  const { alpha, beta } = await startPair(t)
  await connect(alpha.client, 'beta')
  await untilShared(alpha, 1)
  beta.client.end()
  await beta.broker.stop()
  await until(() => alpha.engine.called('abandon-path').length === 1, watch('the end of the path'))
  t.like(alpha.engine.called('abandon-path')[0], { job: 1, peer: 1, trafficClass: 0 })
  t.is(alpha.engine.called('destroy-lane').length, 1)
  await alpha.client.event('path-lost')
  t.is(alpha.client.events.filter(({ name }) => name === 'path-lost').length, 1)
})

test.serial('a peer that does not come back is given up after the grace', async (t) => {
  const { alpha, beta } = await startPair(t, { alpha: { peerGraceMs: 300 } })
  await connect(alpha.client, 'beta')
  await untilShared(alpha, 1)
  await leaveBehind(beta)
  await until(() => alpha.engine.called('destroy-lane').length === 1, watch('the end of the lane'))
  t.deepEqual(alpha.engine.called('abandon-path'), [])
  await until(() => alpha.engine.called('abandon-path').length === 1, watch('the end of the path'))
  t.regex(alpha.engine.called('abandon-path')[0]?.reason ?? '', /300 ms/)
})

test.serial('a peer whose job was given up there is given up here', async (t) => {
  const { alpha, beta } = await startPair(t)
  await connect(alpha.client, 'beta')
  await untilShared(alpha, 1)
  const port = beta.broker.linkPort
  await leaveBehind(beta)
  const directory = beta.directory
  await startTestBroker(t, { node: 'beta', runtimeDirectory: directory, port, reattachGraceMs: 100 })
  await until(() => alpha.engine.called('abandon-path').length === 1, watch('the end of the path'))
  t.regex(alpha.engine.called('abandon-path')[0]?.reason ?? '', /job job has ended on node beta/)
})

test.serial('a broker that comes back on another port calls the peers that its sessions need', async (t) => {
  const { alpha, beta } = await startPair(t)
  const survivor = await equippedClient(t, beta.directory)
  await connect(alpha.client, 'beta')
  await untilShared(alpha, 1)
  beta.client.end()
  await until(() => readNodeFile(beta.directory).rows('members').length === 1, watch('one member on beta'))
  await leaveBehind(beta)
  const connection = { peer: 1, peerNumber: 1, peerGeneration: 1, laneIndex: 0, condition: queuePairState.connected }
  writeConnection(beta.directory, survivor.queuePair.number, connection)
  // Alpha had called, so all that beta knows of it is what alpha said of itself.
  const next = await startTestBroker(t, { node: 'beta', runtimeDirectory: beta.directory })
  t.not(next.broker.linkPort, beta.broker.linkPort)
  const client = await reattach(t, beta.directory, survivor, { node: 'beta' })
  await presentAll(client, survivor)
  await client.ask('reattached', {})
  await until(() => next.engine.called('create-lane').length === 1, watch('the lane of the queue pair that came back'))
  t.is(next.engine.called('create-lane')[0]?.peer, 1)
  t.is(next.engine.called('create-lane')[0]?.peerNode, 'alpha')
})

test.serial('connections that came back wait for their peer only so long', async (t) => {
  const { alpha, beta } = await startPair(t)
  const survivor = await equippedClient(t, beta.directory)
  await connect(alpha.client, 'beta')
  beta.client.end()
  await until(() => readNodeFile(beta.directory).rows('members').length === 1, watch('one member on beta'))
  await leaveBehind(beta)
  await leaveBehind(alpha)
  const connection = { peer: 1, peerNumber: 1, peerGeneration: 1, laneIndex: 0, condition: queuePairState.connected }
  writeConnection(beta.directory, survivor.queuePair.number, connection)
  const next = await startTestBroker(t, { node: 'beta', runtimeDirectory: beta.directory, peerGraceMs: 200 })
  const client = await reattach(t, beta.directory, survivor, { node: 'beta' })
  await presentAll(client, survivor)
  await client.ask('reattached', {})
  const abandoned = () => next.engine.called('abandon-path').filter(({ peer }) => peer === 1)
  await until(() => abandoned().length === 1, watch('the end of the wait'))
  await client.event('path-lost')
  t.is(abandoned()[0]?.job, 1)
})

test.serial('a connect whose lane is lost is tried again until its deadline', async (t) => {
  const { alpha } = await startPair(t)
  let lost = 0
  alpha.engine.overrides['connect-queue-pair'] = ({ remote }) => {
    if (lost++ < 2) throw new SharedVerbsError('path-lost', 'the lane was lost')
    return 'service' in remote ? { number: 1, generation: 1 } : remote
  }
  await connect(alpha.client, 'beta')
  t.is(lost, 3)
  lost = Number.NEGATIVE_INFINITY
  t.is((await failureOf(connect(alpha.client, 'beta', 200))).code, 'path-lost')
})

test.serial('a port that its dead predecessor still holds is waited for', async (t) => {
  const before = await startTestBroker(t)
  await equippedClient(t, before.directory)
  const { linkPort: port } = before.broker
  await leaveBehind(before)
  const holder = createServer()
  await new Promise<void>((resolve) => holder.listen(port, '127.0.0.1', resolve))
  setTimeout(() => holder.close(), 100)
  const { broker } = await startTestBroker(t, { runtimeDirectory: before.directory, port })
  t.is(broker.linkPort, port)
})
