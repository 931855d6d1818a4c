/** Brokers are killed, stopped, replaced under traffic; sessions go on and nothing is lost, doubled or reordered. */
import test, { type ExecutionContext } from 'ava'
import { within } from '../support/until.js'
import { connectEnds, type End, makeEnd, reached, Stream, startNodes } from './restart-scene.js'

const TOTAL = 3000

interface Scene {
  readonly one: End
  readonly other: End
  readonly stream: Stream
  readonly running: Promise<void>
}

async function begin(t: ExecutionContext, one: End, other: End): Promise<Scene> {
  await connectEnds(one, other)
  const stream = new Stream(one, other, TOTAL)
  t.teardown(() => stream.stop())
  const running = stream.run()
  running.catch(() => undefined)
  await reached(stream, 200)
  return { one, other, stream, running }
}

async function finish(t: ExecutionContext, { one, other, stream, running }: Scene): Promise<void> {
  await within(running, { timeoutMs: 60_000, what: `the rest; ${stream.received} of ${TOTAL} came` })
  t.deepEqual(stream.trouble, [])
  t.is(stream.received, TOTAL)
  t.is(stream.confirmed, TOTAL)
  await Promise.all([one.session.close(), other.session.close()])
}

for (const victim of ['sender', 'receiver', 'both'] as const) {
  test.serial(`kill -9 of the broker of ${victim} under traffic`, async (t) => {
    const { alpha, beta } = await startNodes(t)
    const scene = await begin(t, await makeEnd(t, alpha, 'one'), await makeEnd(t, beta, 'other'))
    const victims = { sender: [alpha], receiver: [beta], both: [alpha, beta] }[victim]
    for (const node of victims) node.kill()
    const beganMs = performance.now()
    const before = scene.stream.received
    await Promise.all(victims.map((node) => node.start()))
    await reached(scene.stream, before + 300)
    t.log(`300 messages more ${(performance.now() - beganMs).toFixed(0)} ms after the kill`)
    await finish(t, scene)
    for (const [node, end] of [
      [alpha, scene.one],
      [beta, scene.other],
    ] as const) {
      const mine = victims.includes(node)
      t.deepEqual(
        end.events.filter((kind) => /^broker/.test(kind)),
        mine ? ['broker-lost', 'broker-back'] : [],
      )
    }
  })
}

test.serial('kill -9 under traffic on one node', async (t) => {
  const { alpha } = await startNodes(t)
  const scene = await begin(t, await makeEnd(t, alpha, 'one'), await makeEnd(t, alpha, 'other'))
  alpha.kill()
  const before = scene.stream.received
  await alpha.start()
  await reached(scene.stream, before + 300)
  await finish(t, scene)
})
