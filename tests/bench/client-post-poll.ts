/**
 * What a work request costs the client's process: claim, encode, commit; and what a completion costs its poller. A loop-back "broker" in
 * this thread moves slots along between the timed parts, so queues and caches are warm and nobody sleeps.
 *
 *   npm run bench -- client
 */
import { attach, CompletionBatch, type ReceiveWorkRequest, type SendWorkRequest } from '../../client/index.js'
import { FakeBroker, type FakeQueuePair } from '../unit/client/fake-broker.js'
import { medianOf, printFigure } from './figures.js'

const rounds = 4000
const depth = 256
const region = await prepare()

async function prepare() {
  const cleanings: (() => void | Promise<void>)[] = []
  const broker = FakeBroker.start({ teardown: (clean) => cleanings.unshift(clean) })
  const session = await attach({ runtimeDir: broker.directory })
  const cq = await session.createCompletionQueue({ capacity: depth * 2 })
  const qp = await session.createQueuePair({ sendCq: cq, maxSend: depth, maxReceive: depth })
  const memory = await session.registerMemory(1 << 20)
  const fake = broker.queuePair(qp.number)
  const batch = new CompletionBatch(depth)
  const end = async (): Promise<void> => {
    await session.close()
    for (const clean of cleanings) await clean()
  }
  return { qp, cq, fake, memory, batch, end }
}

function turn(fake: FakeQueuePair, side: 'send' | 'receive'): void {
  for (const taken of fake.take(side)) fake.complete(taken)
}

/** Nanoseconds for each posted request and each polled completion: the medians of ten runs. */
function measure(name: string, side: 'send' | 'receive', post: () => number): void {
  const posts: number[] = []
  const polls: number[] = []
  for (let run = 0; run < 12; run++) {
    let postNs = 0
    let pollNs = 0
    let count = 0
    for (let round = 0; round < rounds / 10; round++) {
      const start = performance.now()
      let posted = 0
      while (posted < depth) posted += post()
      const middle = performance.now()
      turn(region.fake, side)
      const again = performance.now()
      let polled = 0
      while (polled < depth) polled += region.cq.pollInto(region.batch, 64)
      pollNs += (performance.now() - again) * 1e6
      postNs += (middle - start) * 1e6
      count += depth
    }
    // The first two runs are the compiler's.
    if (run < 2) continue
    posts.push(postNs / count)
    polls.push(pollNs / count)
  }
  printFigure(`client: post ${name}`, medianOf(posts), 'ns')
  printFigure(`client: poll ${name}`, medianOf(polls), 'ns')
}

const { qp, memory } = region
const local = [{ region: memory, offset: 0, length: 64 }]
const send: SendWorkRequest = { id: 1, opcode: 'send', local }
const write: SendWorkRequest = { id: 1, opcode: 'write', local, remote: { key: memory.remoteKey, offset: 0 } }
const inline: SendWorkRequest = { id: 1, opcode: 'send', inline: new Uint8Array(64) }
const receive: ReceiveWorkRequest = { id: 1, local }
const listOf = <Item>(item: Item): Item[] => Array.from({ length: 16 }, () => item)
const lists = { send: listOf(send), write: listOf(write), inline: listOf(inline), receive: listOf(receive) }

measure('send, lists of 16', 'send', () => qp.postSend(lists.send))
measure('send, one by one', 'send', () => qp.postSend(send))
measure('write, lists of 16', 'send', () => qp.postSend(lists.write))
measure('send of 64 bytes inline, lists of 16', 'send', () => qp.postSend(lists.inline))
measure('receive, lists of 16', 'receive', () => qp.postReceive(lists.receive))
measure('receive, one by one', 'receive', () => qp.postReceive(receive))
await region.end()
