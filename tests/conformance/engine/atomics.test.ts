/** Atomics: exact across nodes, same node and the owner's own operations; refusals touch only their own request. */
import test from 'ava'
import { atomic64 } from '../../../shm/words.js'
import { connect, EngineNode, link, turnToRest, turnUntil } from '../../support/engine-node.js'
import { Choices, checkAtRest, End, type Stage } from '../../support/engine-stage.js'
import { type EngineCase, play } from './case.js'

const WORD = 512

/** An owner, two other nodes with a lane to it each, and a queue pair on each of the three that reaches the owner. */
async function threeNodes(): Promise<{
  nodes: EngineNode[]
  owner: EngineNode
  clients: End[]
  word: BigInt64Array
  key: number
}> {
  const names = ['alpha', 'beta', 'gamma']
  const nodes = await Promise.all(names.map((name) => new EngineNode(name).start()))
  const owner = nodes[0]!
  await link(owner, nodes[1]!, 0)
  await link(owner, nodes[2]!, 1)
  const target = await owner.region(4096)
  const clients: End[] = []
  for (const [index, node] of nodes.entries()) {
    const queue = await node.completionQueue()
    const queuePair = await node.queuePair(queue)
    const far = await owner.queuePair(await owner.completionQueue())
    await connect(queuePair, far, node === owner ? 0 : index - 1)
    clients.push(new End(queuePair, queue, await node.region(4096)))
  }
  return { nodes, owner, clients, word: target.mapping.memory.i64, key: target.key }
}

function closeAll(nodes: readonly EngineNode[]): void {
  for (const node of nodes) node.close()
}

test.serial(
  '35 fetch-and-add from three nodes, the owner node among them, and the owner itself: the sum is exact',
  async (t) => {
    const { nodes, clients, word, key } = await threeNodes()
    t.teardown(() => closeAll(nodes))
    const each = 400
    const originals = new Set<bigint>()
    const sent = [0, 0, 0]
    let own = 0
    const done = (): number => clients.reduce((sum, end) => sum + end.done.length, 0)
    await turnUntil(
      nodes,
      () => {
        for (const [index, end] of clients.entries()) {
          while (sent[index]! < each) {
            // Each result has its own place, so that none is overwritten before it is looked at.
            const local = end.at((sent[index]! % 64) * 8, 8)
            const posted = {
              id: sent[index]! % 64,
              opcode: 'fetch-and-add',
              local,
              remote: { key, offset: WORD },
              swap: 1n,
            } as const
            if (end.queuePair.send(posted) === 0) break
            sent[index]!++
          }
          for (const { id } of end.queue.poll()) {
            originals.add(end.memory.mapping.memory.i64[id]!)
            end.done.push({} as never)
          }
        }
        // The owner adds among the others, and the rest when they are through.
        for (let burst = done() < 3 * each ? 4 : each; burst > 0 && own < each; burst--) {
          originals.add(atomic64.add(word, WORD / 8, 1n))
          own++
        }
        return done() >= 3 * each && own >= each
      },
      'all added',
    )
    t.is(atomic64.load(word, WORD / 8), BigInt(4 * each))
    t.is(originals.size, 4 * each, 'no two saw the same value')
    await turnToRest(nodes)
    checkAtRest(t, nodes)
  },
)

test.serial('36 a lock by compare-and-swap excludes holders on three nodes', async (t) => {
  const { nodes, clients, word, key } = await threeNodes()
  t.teardown(() => closeAll(nodes))
  const goal = 60
  const choices = new Choices(36)
  // Steps of each contender: take the lock, read the counter, write it back one higher, give the lock back.
  const step = ['take', 'take', 'take']
  const rounds = [0, 0, 0]
  const post = (index: number): void => {
    const { queuePair, ...end } = clients[index]!
    const { memory } = end
    const at = (offset: number) => [{ region: memory, offset, length: 8 }]
    const lock = { key, offset: WORD }
    const counter = { key, offset: WORD + 8 }
    const me = BigInt(index + 1)
    if (step[index] === 'take')
      queuePair.send({ id: 0, opcode: 'compare-and-swap', local: at(0), remote: lock, compare: 0n, swap: me })
    if (step[index] === 'read') queuePair.send({ id: 1, opcode: 'read', local: at(8), remote: counter })
    if (step[index] === 'write') queuePair.send({ id: 2, opcode: 'write', local: at(8), remote: counter })
    if (step[index] === 'give') {
      queuePair.send({
        id: 3,
        opcode: 'compare-and-swap',
        local: at(0),
        remote: lock,
        compare: me,
        swap: 0n,
        fence: true,
      })
    }
  }
  for (const index of clients.keys()) post(index)
  await turnUntil(
    nodes,
    () => {
      for (const [index, end] of clients.entries()) {
        for (const { id, status } of end.queue.poll()) {
          if (status !== 'success') t.fail(status)
          const { i64 } = end.memory.mapping.memory
          if (id === 0) step[index] = i64[0] === 0n ? 'read' : 'take'
          if (id === 1) {
            i64[1]!++
            step[index] = 'write'
          }
          if (id === 2) step[index] = 'give'
          if (id === 3) {
            if (i64[0] !== BigInt(index + 1)) t.fail('somebody else held the lock')
            rounds[index]!++
            step[index] = rounds[index]! < goal ? 'take' : 'end'
          }
          if (choices.chance(3)) nodes[index]!.turn()
          post(index)
        }
      }
      return rounds.every((count) => count >= goal)
    },
    'everybody had the lock often enough',
  )
  t.is(word[WORD / 8 + 1], BigInt(3 * goal))
})

const cases: readonly EngineCase[] = [
  {
    number: '37',
    name: 'atomics that are misaligned, out of bounds, of another length or of no key end alone',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair()
      const wrong = [
        { remote: { key: right.memory.key, offset: 4 }, expected: 'remote-invalid-request' },
        { remote: { key: right.memory.key, offset: 1 << 16 }, expected: 'remote-access-error' },
        { remote: { key: right.memory.key, offset: (1 << 16) - 8 }, expected: 'success' },
        { remote: { key: right.memory.key, offset: -8 }, expected: 'remote-access-error' },
        { remote: { key: right.memory.key + 1, offset: 0 }, expected: 'remote-access-error' },
        { remote: { key: right.memory.key, offset: 0 }, length: 4, expected: 'local-length-error' },
        { remote: { key: right.memory.key, offset: 0 }, length: 16, expected: 'local-length-error' },
      ]
      for (const [index, { remote, length = 8 }] of wrong.entries()) {
        const opcode = index % 2 === 0 ? 'fetch-and-add' : 'compare-and-swap'
        left.queuePair.send({ id: index, opcode, local: left.at(0, length), remote, swap: 1n })
      }
      left.queuePair.send({
        id: 99,
        opcode: 'fetch-and-add',
        local: left.at(8, 8),
        remote: { key: right.memory.key, offset: 8 },
        swap: 5n,
      })
      await stage.completed([[left, wrong.length + 1]])
      t.deepEqual(
        left.done.map(({ status }) => status),
        [...wrong.map(({ expected }) => expected), 'success'],
      )
      t.is(right.memory.mapping.memory.i64[1], 5n)
      t.is(right.memory.mapping.memory.i64[0], 0n)
    },
  },
  {
    number: '37b',
    name: 'more atomics than the window keep their order and their count',
    where: 'both',
    run: async (t, stage: Stage) => {
      const [left, right] = await stage.pair({ sendSlots: 256 })
      const remote = { key: right.memory.key, offset: 0 }
      for (let index = 0; index < 200; index++) {
        left.queuePair.send({ id: index, opcode: 'fetch-and-add', local: left.at(index * 8, 8), remote, swap: 1n })
      }
      await stage.completed([[left, 200]])
      const { i64 } = left.memory.mapping.memory
      for (let index = 0; index < 200; index++) t.is(i64[index], BigInt(index))
    },
  },
]

play(cases)
