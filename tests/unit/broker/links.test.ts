import test from 'ava'
import { readNodeFile } from '../../../broker/observe/node-file-reader.js'
import { makeHello } from '../../../broker/peers/hello.js'
import { LinkConnection } from '../../../broker/peers/link-connection.js'
import { dialLink } from '../../../broker/peers/link-dialler.js'
import type { LinkMessage } from '../../../protocol/link.js'
import { until } from '../../support/until.js'
import { sharedQueuePairs, startPair, untilShared } from './broker-pair.js'
import { attachedClient, connect, failureOf } from './client-steps.js'
import { startTestBroker } from './start-test-broker.js'

const watch = (what: string) => ({ timeoutMs: 10_000, what })
const counters = (directory: string) => readNodeFile(directory).counters()

test.serial('a queue pair connects over a lane to another node', async (t) => {
  const { alpha, beta } = await startPair(t)
  await connect(alpha.client, 'beta')
  await untilShared(beta, 1)
  t.like(alpha.engine.called('connect-queue-pair')[0], { lane: 1, peer: 1 })
  t.like(readNodeFile(alpha.directory).rows('peers')[1], { node: 'beta', state: 2, epoch: 1, lanes: 1 })
  const [mine] = sharedQueuePairs(alpha)
  const [yours] = sharedQueuePairs(beta)
  t.is(mine?.providerNumber, yours?.remoteNumber)
  t.is(yours?.providerNumber, mine?.remoteNumber)
})

test.serial('it makes no difference who knows whom, and who opens lanes', async (t) => {
  for (const knows of ['alpha', 'beta', 'both'] as const) {
    const { alpha, beta } = await startPair(t, { knows })
    if (knows === 'beta') await connect(beta.client, 'alpha')
    await connect(alpha.client, 'beta')
    await connect(beta.client, 'alpha')
    await untilShared(alpha, 1)
    await untilShared(beta, 1)
    t.is(alpha.engine.called('create-lane').length, 1)
  }
})

test.serial('sessions on both sides connect at once five times: one set of lanes', async (t) => {
  for (let round = 0; round < 5; round++) {
    const { alpha, beta } = await startPair(t, { knows: 'both' })
    await Promise.all([connect(alpha.client, 'beta'), connect(beta.client, 'alpha')])
    await untilShared(alpha, 1)
    await untilShared(beta, 1)
    const made = [alpha, beta].map(({ engine }) => engine.called('create-lane').length)
    t.deepEqual(made, [1, 1])
    alpha.client.end()
    beta.client.end()
    await Promise.all([alpha.broker.stop(), beta.broker.stop()])
  }
})

test.serial('a wrong cluster key is named on both sides and not tried in a hurry', async (t) => {
  const { alpha, beta } = await startPair(t, { beta: { clusterKey: 'another' } })
  const failure = await failureOf(connect(alpha.client, 'beta'))
  t.is(failure.code, 'wrong-cluster-key', failure.message)
  await until(() => counters(beta.directory)['link-refusals'] === 1, watch('the refusal'))
  t.is(readNodeFile(beta.directory).rows('errors')[0]?.code, 'wrong-cluster-key')
  t.is(readNodeFile(alpha.directory).rows('errors')[0]?.code, 'wrong-cluster-key')
  t.is(counters(alpha.directory)['link-refusals'], 1)
})

test.serial('a broker without a cluster key has no links and says so', async (t) => {
  const alone = await startTestBroker(t, { clusterKey: '' })
  t.is(alone.broker.linkPort, 0)
  const client = await attachedClient(t, alone.directory)
  const failure = await failureOf(connect(client, 'beta'))
  t.is(failure.code, 'invalid-argument')
  t.regex(failure.message, /cluster key/)
})

/** A stranger that knows the cluster key and says what it is told. */
function knock(port: number): { readonly connection: LinkConnection; readonly heard: LinkMessage[]; ended: boolean } {
  const connection = new LinkConnection(dialLink({ host: '127.0.0.1', port }, 'cluster secret'), true)
  const stranger = { connection, heard: [] as LinkMessage[], ended: false }
  connection.start({
    onMessage: (message) => stranger.heard.push(message),
    onEnd: () => {
      stranger.ended = true
    },
  })
  return stranger
}

const stranger = {
  node: 'stranger',
  nodeId: 'ff'.repeat(16),
  bootId: 'boot',
  epoch: 1,
  port: 0,
  provider: 'soft',
  lanes: 1,
  sharing: 'job',
} as const

test.serial('every mismatch is refused with the field and both values, on both sides', async (t) => {
  const { broker, directory } = await startTestBroker(t)
  const hello = makeHello(stranger, '00')
  const cases = [
    ['protocol', { ...hello, protocolMinimum: 7, protocolMaximum: 9 }, '1..1', '7..9'],
    ['wireFingerprint', { ...hello, wireFingerprint: 5 }, String(hello.wireFingerprint), '5'],
    ['provider', { ...hello, provider: 'verbs' as const }, 'soft', 'verbs'],
    ['sharing', { ...hello, sharing: 'node' as const }, 'job', 'node'],
    ['node', { ...hello, node: 'alpha' }, 'alpha', 'alpha'],
    ['lanes', { ...hello, lanes: 0 }, '1', '0'],
  ] as const
  for (const [field, wrong, mine, yours] of cases) {
    const caller = knock(broker.linkPort)
    caller.connection.send('hello', wrong)
    await until(() => caller.ended, watch(`the refusal of ${field}`))
    const refused = caller.heard.find((message) => message.name === 'refused')
    t.like(refused?.body, { code: 'peer-refused', field, mine, yours })
  }
  const errors = readNodeFile(directory).rows('errors')
  t.true(errors.some(({ message }) => message.includes('provider is soft here and verbs there')))
  t.is(counters(directory)['link-refusals'], cases.length)
  t.is(readNodeFile(directory).rows('peers').length, 1)
})

test.serial('a wrong proof is refused although the connection has the key', async (t) => {
  const { broker } = await startTestBroker(t)
  const caller = knock(broker.linkPort)
  caller.connection.send('hello', makeHello(stranger, '00'))
  caller.connection.send('welcome', { proof: 'ab'.repeat(32) })
  await until(() => caller.ended, watch('the refusal'))
  t.like(caller.heard.find((message) => message.name === 'refused')?.body, { code: 'wrong-cluster-key' })
})

test.serial('two brokers of different providers refuse each other', async (t) => {
  const { alpha } = await startPair(t, { beta: { parameters: { providerKind: 'verbs' } } })
  const failure = await failureOf(connect(alpha.client, 'beta'))
  t.is(failure.code, 'peer-refused')
  t.like(failure.context, { field: 'provider', mine: 'soft', yours: 'verbs' })
})

test.serial('a node under another name than it was called by is refused', async (t) => {
  const { alpha, beta } = await startPair(t)
  alpha.broker.addPeer('gamma', `127.0.0.1:${beta.broker.linkPort}`)
  t.like((await failureOf(connect(alpha.client, 'gamma'))).context, { field: 'node', mine: 'gamma', yours: 'beta' })
})

test.serial('a name that nobody knows is refused soon, one that does not answer at the deadline', async (t) => {
  const { alpha, beta } = await startPair(t)
  const unknown = await failureOf(connect(alpha.client, 'nowhere.invalid', 20_000))
  t.is(unknown.code, 'peer-unknown')
  await beta.broker.stop()
  const silent = await failureOf(connect(alpha.client, 'beta', 300))
  t.is(silent.code, 'peer-unreachable')
  t.regex(silent.message, /127\.0\.0\.1:\d+ cannot be reached \(ECONNREFUSED\)/)
  const names = readNodeFile(alpha.directory)
    .rows('peers')
    .map((row) => row.node)
  t.deepEqual(names, ['alpha'])
})

test.serial('the job opens when its first member appears on the other node', async (t) => {
  const { alpha, beta } = await startPair(t)
  const early = await attachedClient(t, alpha.directory, 'late-job')
  const connecting = connect(early, 'beta', 10_000)
  await until(() => counters(beta.directory)['link-connects'] === 1, watch('the link'))
  await attachedClient(t, beta.directory, 'late-job')
  await t.notThrowsAsync(connecting)
  t.is(sharedQueuePairs(beta).length, 1)
})

test.serial('a node that cannot find the other waits to be found', async (t) => {
  const { alpha, beta } = await startPair(t)
  const waiting = connect(beta.client, 'alpha', 10_000)
  await until(() => counters(beta.directory)['link-failures'] > 0, watch('an attempt in vain'))
  await connect(alpha.client, 'beta')
  await t.notThrowsAsync(waiting)
})

test.serial('a job that does not appear is named at the deadline', async (t) => {
  const { alpha } = await startPair(t)
  const early = await attachedClient(t, alpha.directory, 'late-job')
  const failure = await failureOf(connect(early, 'beta', 3000))
  t.is(failure.code, 'timeout')
  t.regex(failure.message, /late-job has no member on node beta/)
})

test.serial('a job with another key on the other node is refused at once', async (t) => {
  const { alpha, beta } = await startPair(t, { betaKey: 'another' })
  t.is((await failureOf(connect(alpha.client, 'beta', 20_000))).code, 'wrong-job-key')
  t.is((await failureOf(connect(alpha.client, 'beta', 20_000))).code, 'wrong-job-key')
  t.deepEqual([...sharedQueuePairs(alpha), ...sharedQueuePairs(beta)], [])
})

test.serial('a stop says goodbye, and the peer lets go at once', async (t) => {
  const { alpha, beta } = await startPair(t)
  await connect(alpha.client, 'beta')
  await untilShared(beta, 1)
  await beta.broker.stop()
  await untilShared(alpha, 0)
  t.like((await alpha.client.event('path-lost')).body, { node: 'beta' })
  t.deepEqual(beta.engine.called('destroy-lane').length, 1)
})

test.serial('a node with a new life is let in after the lanes of the old one are gone', async (t) => {
  const { alpha, beta } = await startPair(t)
  await connect(alpha.client, 'beta')
  await beta.broker.stop()
  const again = await startTestBroker(t, { node: 'beta' })
  alpha.broker.addPeer('beta', `127.0.0.1:${again.broker.linkPort}`)
  await attachedClient(t, again.directory)
  await connect(alpha.client, 'beta', 10_000)
  const names = alpha.engine.calls.map((call) => call.name).filter((name) => name.endsWith('-lane'))
  t.deepEqual(names, ['create-lane', 'connect-lane', 'destroy-lane', 'create-lane', 'connect-lane'])
})
