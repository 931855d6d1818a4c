/** A session whose broker goes away: what it says to the next one, what waits, what goes on, and when it is over. */
import test from 'ava'
import { attach, type SessionEvent } from '../../../client/index.js'
import type { CheckedBody, RequestName } from '../../../protocol/control.js'
import { SharedVerbsError } from '../../../protocol/errors.js'
import { keySlot } from '../../../protocol/keys.js'
import { LivenessMonitor } from '../../../shm/liveness.js'
import { fileIdentity } from '../../../shm/mapping.js'
import { openDescriptors } from '../../support/leaks.js'
import { until, within } from '../../support/until.js'
import { attached } from './attached.js'
import { FakeBroker, type Respond } from './fake-broker.js'

const serial = test.serial
const watch = (what: string) => ({ timeoutMs: 10_000, what })
const recovering = { reconnectTimeoutMs: 20_000 }

/** Keeps what was asked, with the identity of each file that came with it. */
interface Asked {
  readonly name: RequestName
  readonly body: unknown
  readonly inodes: readonly number[]
}

function recorded(
  broker: FakeBroker,
  answer: Respond = (name, body, session) => broker.answer(name, body, session),
): Asked[] {
  const all: Asked[] = []
  broker.respond = (name, body, session, presented) => {
    all.push({ name, body, inodes: presented.map((fd) => fileIdentity(fd).inode) })
    return answer(name, body, session, presented)
  }
  return all
}

serial(
  'the next broker is told who this is and shown everything it holds, once, queues before queue pairs',
  async (t) => {
    const { broker, session, cq, qp, fake, region } = await attached(t, recovering)
    const events: SessionEvent[] = []
    session.on('event', (event) => events.push(event))
    const inodes = [broker.completionQueues.get(cq.number)!, broker.regions.get(region.localKey)!, fake].map(
      ({ mapping }) => mapping.identity.inode,
    )
    const files = [broker.liveness, broker.activity.fd].map((fd) => fileIdentity(fd).inode)
    broker.die()
    const next = FakeBroker.follow(t, broker)
    const asked = recorded(next)
    await until(() => events.some(({ kind }) => kind === 'broker-back'), watch('the return'))
    t.deepEqual(
      events.map(({ kind }) => kind),
      ['broker-lost', 'broker-back'],
    )
    t.like(events[0], { recovering: true })
    t.like(events[1], { epoch: 2 })
    t.deepEqual(
      asked.map(({ name }) => name),
      ['reattach', 'present', 'present', 'present', 'reattached'],
    )
    t.like(asked[0]?.body, { job: 'default', member: session.member, memberGeneration: 1, epoch: 1, node: 'here' })
    t.deepEqual(asked[0]?.inodes.slice(0, 2), files)
    t.deepEqual(
      asked.slice(1, 4).map(({ body }) => body),
      [
        { kind: 'completion-queue', number: cq.number, generation: 1 },
        { kind: 'memory-region', number: keySlot(region.localKey), generation: 1 },
        { kind: 'queue-pair', number: qp.number, generation: qp.generation },
      ],
    )
    t.deepEqual(
      asked.slice(1, 4).flatMap((one) => one.inodes),
      inodes,
    )
    t.true(next.rung())
  },
)

serial('posting and polling go on without a broker, and waits sleep on', async (t) => {
  const { broker, session, cq, qp, fake } = await attached(t, recovering)
  broker.die()
  await until(() => session.attachment.lost, watch('the loss'))
  t.is(qp.postSend({ id: 1, opcode: 'send', inline: new Uint8Array(4) }), 1)
  t.is(qp.postReceive({ id: 2, local: [] }), 1)
  const waiting = cq.wait({ timeoutMs: 10_000 })
  const [taken] = fake.take('send')
  fake.complete(taken!)
  t.true(await waiting)
  t.deepEqual(
    cq.poll().map(({ id, status }) => [id, status]),
    [[1, 'success']],
  )
  FakeBroker.follow(t, broker)
})

serial('requests that were under way and new ones wait, and are asked again', async (t) => {
  const { broker, session, qp } = await attached(t, recovering)
  broker.respond = () => new Promise(() => undefined)
  const underWay = session.registerMemory(100)
  const connecting = qp.connect({ node: 'there', service: 'name' })
  const closing = qp.disconnect()
  await until(
    () => broker.requests.filter((name) => name === 'disconnectQueuePair').length === 1,
    watch('the requests'),
  )
  broker.die()
  const next = FakeBroker.follow(t, broker)
  recorded(next, (name, body, from) => {
    if (name === 'disconnectQueuePair') throw new SharedVerbsError('not-connected', 'it is not connected')
    return next.answer(name, body, from)
  })
  const later = session.createCompletionQueue({ capacity: 4 })
  const [region, , , queue] = await Promise.all([underWay, connecting, closing, later])
  t.is(region.byteLength, 100)
  t.is(queue.capacity, 4)
  t.is(next.requests.filter((name) => name === 'connectQueuePair').length, 1)
  t.deepEqual(qp.remote, { node: 'there', number: 7, generation: 3 })
})

serial('a connect that the lost broker had done is not done again', async (t) => {
  const { broker, qp } = await attached(t, recovering)
  broker.respond = () => new Promise(() => undefined)
  const connecting = qp.connect({ node: 'there', service: 'name' })
  await until(() => broker.requests.includes('connectQueuePair'), watch('the request'))
  broker.die()
  const next = FakeBroker.follow(t, broker)
  const remote = { node: 'there', number: 99, generation: 4 }
  recorded(next, (name, body, from) =>
    name === 'present' && (body as CheckedBody<'present'>).kind === 'queue-pair'
      ? { result: { remote } }
      : next.answer(name, body, from),
  )
  await connecting
  t.deepEqual(qp.remote, remote)
  t.false(next.requests.includes('connectQueuePair'))
})

serial('listeners and ways to nodes are made again', async (t) => {
  const { broker, session, cq } = await attached(t, recovering)
  await session.listen('name', { sendCq: cq })
  await session.resolve('there')
  broker.die()
  const next = FakeBroker.follow(t, broker)
  const asked = recorded(next)
  await until(() => next.requests.includes('listen') && next.requests.includes('resolveNode'), watch('both'))
  const after = asked.slice(asked.findIndex(({ name }) => name === 'reattached') + 1)
  t.deepEqual(after.map(({ name }) => name).sort(), ['listen', 'resolveNode'])
  t.like(after.find(({ name }) => name === 'listen')?.body, { service: 'name', backlog: 128 })
})

serial('without another broker in time the session ends as it used to', async (t) => {
  const { broker, session, cq } = await attached(t, { reconnectTimeoutMs: 80 })
  const events: SessionEvent[] = []
  session.on('event', (event) => events.push(event))
  const waiting = cq.wait()
  const asking = session.createCompletionQueue()
  broker.die()
  await t.throwsAsync(within(waiting, watch('the wait')), { code: 'broker-lost' })
  await t.throwsAsync(within(asking, watch('the request')), { code: 'broker-lost' })
  t.deepEqual(
    events.map((event) => [event.kind, 'recovering' in event && event.recovering]),
    [
      ['broker-lost', true],
      ['broker-lost', false],
    ],
  )
})

serial('a session that has ended holds up no other: it counts as dead', async (t) => {
  const { broker, session } = await attached(t, { reconnectTimeoutMs: 0 })
  const monitor = new LivenessMonitor(broker.liveness)
  t.teardown(() => monitor.close())
  t.true(monitor.alive(session.member))
  broker.die()
  await until(() => session.attachment.ended !== undefined, watch('the end'))
  t.false(monitor.alive(session.member))
})

serial('a refusal of the next broker ends the session, and nothing stays open', async (t) => {
  const { broker, session } = await attached(t, recovering)
  broker.die()
  const next = FakeBroker.follow(t, broker)
  const before = openDescriptors()
  recorded(next, (name, body, from) => {
    if (name === 'present') throw new SharedVerbsError('segment-invalid', 'what is this?')
    return next.answer(name, body, from)
  })
  await t.throwsAsync(session.createCompletionQueue(), { code: 'broker-lost', message: /refused it: what is this/ })
  await until(() => next.sessions.every(({ connection }) => !connection.open), watch('the end of the connection'))
  for (const { doorbell } of next.sessions.splice(0)) t.true(doorbell >= 0)
  const left = openDescriptors().filter((one) => !before.includes(one) && !one.includes('eventfd'))
  t.deepEqual(left, [])
})

serial('a broker that dies while it is asked is followed by the next one', async (t) => {
  const { broker, session } = await attached(t, recovering)
  broker.die()
  const second = FakeBroker.follow(t, broker)
  second.respond = () => new Promise(() => undefined)
  await until(() => second.requests.includes('reattach'), watch('the first word'))
  second.die()
  const third = FakeBroker.follow(t, second)
  const queue = await session.createCompletionQueue({ capacity: 8 })
  t.is(queue.capacity, 8)
  t.deepEqual(third.requests.slice(0, 1), ['reattach'])
})

serial('a thread that blocks in a wait goes on with the next broker by itself', async (t) => {
  const { broker, session, cq } = await attached(t, recovering)
  const events: string[] = []
  session.on('event', ({ kind }) => events.push(kind))
  broker.die()
  // Nobody answers while this thread blocks: what shows is that the wait notices, keeps its deadline and tells nothing meanwhile.
  const beganMs = performance.now()
  t.false(cq.waitSync({ timeoutMs: 120 }))
  t.true(performance.now() - beganMs >= 119)
  t.deepEqual(events, [])
  FakeBroker.follow(t, broker)
  await until(() => events.length === 2, watch('the return'))
  t.deepEqual(events, ['broker-lost', 'broker-back'])
})

serial('a session that the broker ends itself looks for no other', async (t) => {
  const { broker, session } = await attached(t, recovering)
  const events: SessionEvent[] = []
  session.on('event', (event) => events.push(event))
  broker.sessions[0]?.event('session-ended', { reason: 'the broker stops' })
  broker.die()
  await until(() => events.length > 0, watch('the end'))
  t.like(events[0], { kind: 'broker-lost', recovering: false, reason: 'the broker stops' })
  await t.throwsAsync(session.createCompletionQueue(), { code: 'broker-lost' })
})

serial('a close without a broker does not wait for one', async (t) => {
  const { broker, session } = await attached(t, recovering)
  broker.die()
  await until(() => session.attachment.lost, watch('the loss'))
  await within(session.close(), { timeoutMs: 1000, what: 'the close' })
  t.pass()
})

serial('an attach whose broker ends under it goes on with the next', async (t) => {
  const first = FakeBroker.start(t)
  first.respond = () => new Promise(() => undefined)
  const attaching = attach({ runtimeDir: first.directory, timeoutMs: 10_000 })
  await until(() => first.requests.includes('attach'), watch('the request'))
  first.die()
  FakeBroker.follow(t, first)
  const session = await attaching
  t.is(session.attachment.epoch, 2)
  await session.close()
})
