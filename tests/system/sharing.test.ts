/**
 * De-duplication with everything real but the process borders: two brokers with their engines, links and lanes, and 2, 8 or 32 sessions on
 * each node. The number of queue pairs on the provider is the number of distinct keys, whatever the number of sessions and queue pairs.
 */
import test, { type ExecutionContext } from 'ava'
import { readNodeFile } from '../../broker/observe/node-file-reader.js'
import { type RunningBroker, runBroker } from '../../broker/run.js'
import { attach, type CompletionQueue, type QueuePair, type Session } from '../../client/index.js'
import { laneStateNames } from '../../protocol/node-file.js'
import { openDescriptors } from '../support/leaks.js'
import { temporaryDirectory } from '../support/temporary-directory.js'
import { until, within } from '../support/until.js'

const UP = laneStateNames.indexOf('up')

interface Pair {
  readonly alpha: RunningBroker
  readonly beta: RunningBroker
}

async function startPair(t: ExecutionContext, options: { lanes?: number; idleReapMs?: number } = {}): Promise<Pair> {
  const directory = temporaryDirectory(t)
  const start = (node: string) =>
    runBroker({
      runtimeDirectory: `${directory}/${node}`,
      node,
      clusterKey: 'secret of the test',
      provider: 'soft',
      logLevel: 'silent',
      idle: 'block',
      ...options,
    })
  const [alpha, beta] = await Promise.all([start('alpha'), start('beta')])
  alpha.addPeer('beta', `127.0.0.1:${beta.linkPort}`)
  beta.addPeer('alpha', `127.0.0.1:${alpha.linkPort}`)
  t.teardown(async () => {
    await Promise.all([alpha.stop(), beta.stop()])
  })
  return { alpha, beta }
}

interface Node {
  readonly session: Session
  readonly cq: CompletionQueue
  readonly queuePairs: QueuePair[]
}

async function sessions(broker: RunningBroker, count: number, job = 'sharing'): Promise<Node[]> {
  return Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const session = await attach({ runtimeDir: broker.runtimeDirectory, job, jobKey: 'key', name: `p${index}` })
      return { session, cq: await session.createCompletionQueue({ capacity: 256 }), queuePairs: [] }
    }),
  )
}

async function connect(left: Node, right: Node, trafficClass = 0): Promise<void> {
  const make = async (node: Node): Promise<QueuePair> => {
    const queuePair = await node.session.createQueuePair({ sendCq: node.cq, maxSend: 8, maxReceive: 8, trafficClass })
    node.queuePairs.push(queuePair)
    return queuePair
  }
  const [one, other] = await Promise.all([make(left), make(right)])
  await Promise.all([
    one.connect(other.address, { timeoutMs: 30_000 }),
    other.connect(one.address, { timeoutMs: 30_000 }),
  ])
}

const lanesUp = (broker: RunningBroker): number =>
  readNodeFile(broker.runtimeDirectory)
    .rows('sharedQueuePairs')
    .filter((row) => row.state === UP).length

async function expectLanes(t: ExecutionContext, { alpha, beta }: Pair, lanes: number): Promise<void> {
  // The engine writes the table a few times a second.
  await until(() => lanesUp(alpha) === lanes && lanesUp(beta) === lanes, {
    timeoutMs: 10_000,
    what: `${lanes} shared queue pairs on both nodes`,
  })
  t.is(lanesUp(alpha), lanes)
  t.is(lanesUp(beta), lanes)
}

async function exchange(t: ExecutionContext, left: Node, right: Node): Promise<void> {
  const [sender, receiver] = [left.queuePairs.at(-1)!, right.queuePairs.at(-1)!]
  const region = await right.session.registerMemory(4096)
  t.is(receiver.postReceive({ id: 1, local: [{ region, offset: 0, length: 64 }] }), 1)
  t.is(sender.postSend({ id: 2, opcode: 'send', inline: new Uint8Array([1, 2, 3, 4]) }), 1)
  t.true(await right.cq.wait({ timeoutMs: 10_000 }))
  t.deepEqual([...region.bytes.subarray(0, 4)], [1, 2, 3, 4])
}

const close = (nodes: readonly Node[]): Promise<unknown> => Promise.all(nodes.map((node) => node.session.close()))

for (const processes of [2, 8, 32]) {
  test.serial(`${processes} sessions on each node share one queue pair of the provider`, async (t) => {
    const pair = await startPair(t)
    const [left, right] = await Promise.all([sessions(pair.alpha, processes), sessions(pair.beta, processes)])
    // Everybody with everybody, up to eight partners each: 2·2, 8·8 and 32·8 connected pairs.
    const partners = Math.min(processes, 8)
    for (let step = 0; step < partners; step++) {
      await Promise.all(left.map((node, index) => connect(node, right[(index + step) % processes]!)))
    }
    await expectLanes(t, pair, 1)
    await exchange(t, left[0]!, right[(partners - 1) % processes]!)
    t.log(
      `${processes} + ${processes} sessions, ${processes * partners} connected pairs, provider queue pairs per node: ${lanesUp(pair.alpha)}`,
    )
    await close([...left, ...right])
  })
}

test.serial('a job uses as many queue pairs as lanes times traffic classes, and another job has its own', async (t) => {
  const pair = await startPair(t, { lanes: 2, idleReapMs: 200 })
  const [left, right] = await Promise.all([sessions(pair.alpha, 2), sessions(pair.beta, 2)])
  for (const trafficClass of [0, 0, 0, 0]) await connect(left[0]!, right[1]!, trafficClass)
  await expectLanes(t, pair, 2)
  await connect(left[0]!, right[0]!, 32)
  await expectLanes(t, pair, 4)
  const [strangers, partners] = await Promise.all([sessions(pair.alpha, 1, 'other'), sessions(pair.beta, 1, 'other')])
  await connect(strangers[0]!, partners[0]!)
  await expectLanes(t, pair, 6)
  await close([...left, ...right, ...strangers, ...partners])
  await expectLanes(t, pair, 0)
})

test.serial('idle shared queue pairs are reaped and come back with the next connect', async (t) => {
  const pair = await startPair(t, { idleReapMs: 200 })
  const [left, right] = await Promise.all([sessions(pair.alpha, 1), sessions(pair.beta, 1)])
  await connect(left[0]!, right[0]!)
  await expectLanes(t, pair, 1)
  await Promise.all([...left, ...right].flatMap((node) => node.queuePairs.map((queuePair) => queuePair.close())))
  await expectLanes(t, pair, 0)
  await connect(left[0]!, right[0]!)
  await expectLanes(t, pair, 1)
  await exchange(t, left[0]!, right[0]!)
  await close([...left, ...right])
})

test.serial('a stopped pair of brokers leaves no descriptor', async (t) => {
  const before = openDescriptors().length
  const pair = await startPair(t)
  const [left, right] = await Promise.all([sessions(pair.alpha, 2), sessions(pair.beta, 2)])
  await connect(left[0]!, right[1]!)
  await close([...left, ...right])
  await within(Promise.all([pair.alpha.stop(), pair.beta.stop()]), { timeoutMs: 20_000, what: 'both brokers to stop' })
  await until(() => openDescriptors().length <= before, { timeoutMs: 5000, what: 'all descriptors to be closed' })
  t.pass()
})
