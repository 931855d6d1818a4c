/** Lengths one off at every threshold, cut into entries at random on both sides. */
import { defaultLaneParameters } from '../../../broker/engine/lane-parameters.js'
import type { Entry } from '../../support/engine-node.js'
import { Choices, type End } from '../../support/engine-stage.js'
import { type EngineCase, play } from './case.js'

/** A stretch of memory as one to four entries. */
function cut(choices: Choices, end: End, offset: number, length: number): Entry[] {
  const cuts = [0, length]
  for (let more = choices.below(4); more > 0; more--) cuts.push(length === 0 ? 0 : choices.below(length + 1))
  cuts.sort((one, two) => one - two)
  return cuts
    .slice(1)
    .map((to, index) => ({ region: end.memory, offset: offset + cuts[index]!, length: to - cuts[index]! }))
}

const around = (...edges: number[]): number[] =>
  [...new Set(edges.flatMap((edge) => [edge - 1, edge, edge + 1]))].filter((length) => length >= 0)

const cases: readonly EngineCase[] = [
  { chunk: 8192, bounce: 512 },
  { chunk: 65_536, bounce: 4096 },
].map(
  ({ chunk, bounce }): EngineCase => ({
    number: '90',
    name: `every opcode at every threshold, frames of ${bounce} and chunks of ${chunk} bytes`,
    where: 'both',
    options: { bounceByteLength: bounce },
    parameters: { bounceByteLength: bounce, chunkByteLength: chunk },
    run: async (t, stage) => {
      const choices = new Choices(90)
      const payload = bounce - 16 - 40
      const lengths = [
        ...around(0, 1, 8, payload - 24, payload, 2 * payload, 3 * payload, 4 * payload, 5 * payload),
        ...around(bounce, 4096, 4097, chunk, 2 * chunk, 3 * chunk + 5, 1 << 20),
      ].filter((length, index, all) => all.indexOf(length) === index)
      const [left, right] = await stage.pair({ memoryByteLength: 3 << 20 })
      const { near, far } = { near: 1 << 20, far: 1 << 19 }
      let expected = 0
      for (const [index, length] of lengths.entries()) {
        for (const opcode of ['send', 'send-with-immediate', 'write', 'write-with-immediate', 'read'] as const) {
          const seed = index * 8 + opcode.length
          const [source, target] = opcode === 'read' ? [right, left] : [left, right]
          const [from, to] = opcode === 'read' ? [far, near] : [near, far]
          source.fill(from, length, seed)
          target.u8.fill(0, to, to + length + 8)
          const receives = opcode.startsWith('send') || opcode === 'write-with-immediate'
          const into = opcode.startsWith('send') ? cut(choices, right, far, length) : right.at(0, 0)
          if (receives) right.queuePair.receive({ id: index, local: into })
          const local = cut(choices, left, near, length)
          const remote = { key: right.memory.key, offset: far }
          left.queuePair.send({ id: index, opcode, local, remote, immediate: seed })
          await stage.until(() => left.poll() > expected && right.poll() >= 0, `${opcode} of ${length} bytes`)
          expected++
          const completion = left.done.at(-1)!
          if (completion.status !== 'success' || completion.byteLength !== length) t.fail(JSON.stringify(completion))
          if (!target.holds(to, length, seed)) t.fail(`${opcode} of ${length} bytes arrived wrong`)
          if (target.u8[to + length] !== 0) t.fail(`${opcode} of ${length} bytes wrote behind its end`)
          if (!receives) continue
          await stage.until(() => right.poll() >= 0 && right.done.at(-1)?.id === index, 'the receive is told')
          if (right.done.at(-1)!.byteLength !== length)
            t.fail(`${length} bytes are told as ${right.done.at(-1)!.byteLength}`)
        }
      }
      t.is(left.done.length, lengths.length * 5)
      t.log(`${lengths.length} lengths, 5 opcodes`)
    },
  }),
)

const inline: EngineCase = {
  number: '90b',
  name: 'inline payload of every length, also in frames so small that it takes several',
  where: 'both',
  options: { bounceByteLength: 256 },
  parameters: { bounceByteLength: 256 },
  run: async (t, stage) => {
    const [left, right] = await stage.pair({ inlineByteLength: 512, sendSlots: 8, receiveSlots: 8 })
    for (const [index, length] of [0, 1, 7, 8, 63, 64, 65, 199, 200, 201, 400, 511, 512].entries()) {
      const bytes = Uint8Array.from({ length }, (_, at) => (at * 3 + length) & 0xff)
      const matches = (): boolean => bytes.every((byte, at) => right.u8[4096 + at] === byte)
      right.u8.fill(0, 4096, 5000)
      right.queuePair.receive({ id: index, local: right.at(4096, 512) })
      left.queuePair.send({ id: 2 * index, opcode: 'send', inline: bytes })
      await stage.until(() => right.poll() > index, 'received')
      t.true(matches(), `send of ${length}`)
      right.u8.fill(0, 4096, 5000)
      left.queuePair.send({
        id: 2 * index + 1,
        opcode: 'write',
        inline: bytes,
        remote: { key: right.memory.key, offset: 4096 },
      })
      await stage.until(() => left.poll() > 2 * index + 1, 'written')
      t.true(matches(), `write of ${length}`)
    }
    t.true([...left.done, ...right.done].every(({ status }) => status === 'success'))
  },
}

const unequal: EngineCase = {
  number: '90c',
  name: 'peers that differ in size and number of bounce buffers keep to the smaller',
  where: 'remote',
  options: { bounceByteLength: 8192, bounceCount: 32 },
  parameters: {},
  run: async (t, stage) => {
    const { left, right } = stage
    // A second lane, whose sides were made with different offers before they agreed.
    const offer = defaultLaneParameters(left.engine.device, left.engine.options)
    const small = { ...offer, bounceByteLength: 1024, bounceCount: 8 }
    const common = { lane: 1, job: 1, incarnation: 9, shared: 9, index: 1, trafficClass: 0 }
    const leftAddress = await left.call('create-lane', { ...common, peer: 1, peerNode: 'beta', parameters: offer })
    const rightAddress = await right.call('create-lane', { ...common, peer: 1, peerNode: 'alpha', parameters: small })
    const agreed = { incarnation: 9, parameters: small, timeoutMs: 5000, lane: 1 }
    await stage.during(
      Promise.all([
        left.call('connect-lane', { ...agreed, remote: rightAddress, initiator: true }),
        right.call('connect-lane', { ...agreed, remote: leftAddress, initiator: false }),
      ]),
    )
    const near = await stage.end(left, 'connected')
    const far = await stage.end(right, 'connected')
    const ends = [near, far]
    const connects = ends.map(({ queuePair, node }, index) =>
      node.call('connect-queue-pair', {
        number: queuePair.number,
        generation: 1,
        lane: 1,
        peer: 1,
        remote: { number: ends[1 - index]!.queuePair.number, generation: 1 },
        timeoutMs: 5000,
      }),
    )
    await stage.during(Promise.all(connects))
    for (const end of ends) for (let id = 0; id < 50; id++) end.queuePair.receive({ id, local: end.at(0, 4000) })
    for (const end of ends)
      for (let id = 0; id < 50; id++) end.queuePair.send({ id, opcode: 'send', local: end.at(0, 3500) })
    await stage.completed([
      [near, 100],
      [far, 100],
    ])
    t.true([...near.done, ...far.done].every(({ status }) => status === 'success'))
    t.is(left.engine.lanes[1]!.state, 'up')
  },
}

play([...cases, inline, unequal])
