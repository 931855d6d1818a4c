/**
 * Faults between two brokers under checked traffic: connections cut, gone deaf, late; a peer that never comes back; a broker that is
 * stopped. Nothing is lost, doubled or reordered, and where nothing more can come the verdicts do, in the time that was configured.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { type Connection, connectionsOf, cut, freeze } from '../support/socket-faults.js'
import { until, within } from '../support/until.js'
import { connectEnds, type End, makeEnd, type Node, reached, Stream, startNodes } from './restart-scene.js'

const TOTAL = 3000
const WATCH_MS = 40_000

interface Scene {
  readonly alpha: Node
  readonly beta: Node
  readonly one: End
  readonly other: End
  readonly stream: Stream
  readonly running: Promise<void>
}

async function begin(t: ExecutionContext, ...options: string[]): Promise<Scene> {
  const { alpha, beta } = await startNodes(t, ...options)
  const one = await makeEnd(t, alpha, 'one')
  const other = await makeEnd(t, beta, 'other')
  await connectEnds(one, other)
  const stream = new Stream(one, other, TOTAL)
  t.teardown(() => stream.stop())
  const running = stream.run()
  running.catch(() => undefined)
  await reached(stream, 100)
  return { alpha, beta, one, other, stream, running }
}

async function finish(t: ExecutionContext, { stream, running }: Scene): Promise<void> {
  await within(running, { timeoutMs: WATCH_MS, what: `the rest; ${stream.received} of ${TOTAL} came` })
  t.deepEqual(stream.trouble, [])
  t.is(stream.received, TOTAL)
  t.is(stream.confirmed, TOTAL)
}

const portOf = (node: Node): number => Number(node.started?.linkAddress.split(':')[1])

/** Connections of a broker to the other one. */
function between({ alpha, beta }: Scene, node: Node, which: 'link' | 'lanes'): Connection[] {
  const ports = [portOf(alpha), portOf(beta)]
  return connectionsOf(node.started?.processId ?? 0).filter(({ localPort, remotePort }) => {
    const isLink = ports.includes(localPort) || ports.includes(remotePort)
    return isLink === (which === 'link')
  })
}

/** At least one, as soon as there is one. */
const present = (scene: Scene, node: Node, which: 'link' | 'lanes'): Promise<Connection[]> =>
  until(
    () => {
      const found = between(scene, node, which)
      return found.length > 0 && found
    },
    { timeoutMs: WATCH_MS, what: `a connection: ${which}` },
  )

for (const which of ['lanes', 'link'] as const) {
  for (const victim of ['alpha', 'beta'] as const) {
    test.serial(`${which} of ${victim} cut under traffic, again and again`, async (t) => {
      const scene = await begin(t)
      const { stream } = scene
      for (let round = 1; round <= 4; round++) {
        const connections = await present(scene, scene[victim], which)
        t.true(connections.filter(cut).length > 0)
        const beganMs = performance.now()
        await reached(stream, stream.received + 200)
        t.log(`cut ${round}: 200 messages more after ${(performance.now() - beganMs).toFixed(0)} ms`)
      }
      await finish(t, scene)
      t.false(scene.one.events.concat(scene.other.events).some((kind) => kind.startsWith('queue-pair-error')))
    })
  }
}

test.serial('lanes that are deaf for a while, and late for a while', async (t) => {
  const scene = await begin(t)
  const { stream, alpha, beta } = scene
  const freezeAll = (): (() => void)[] => [alpha, beta].flatMap((node) => between(scene, node, 'lanes').map(freeze))
  const thaws = freezeAll()
  t.true(thaws.length >= 2)
  let [received, quietMs] = [-1, performance.now()]
  const isSilent = (): boolean => {
    if (stream.received !== received) [received, quietMs] = [stream.received, performance.now()]
    return performance.now() - quietMs > 700
  }
  await until(isSilent, { timeoutMs: WATCH_MS, what: 'silence' })
  for (const thaw of thaws) thaw()
  await reached(stream, stream.received + 200)
  // Now a segment passes only when the wire happens to hear.
  const enough = stream.received + 300
  while (stream.received < enough && stream.trouble.length === 0) {
    const late = freezeAll()
    await sleep(15)
    for (const thaw of late) thaw()
    await sleep(15)
  }
  await finish(t, scene)
})

test.serial(
  'a peer that never comes back: every request has its verdict when it counts as dead and the grace is over',
  async (t) => {
    const graceMs = 1500
    const scene = await begin(t, '--peer-grace-ms', String(graceMs))
    const { one, other, stream, beta } = scene
    stream.stop()
    await scene.running
    await until(
      () => {
        one.cq.poll(64)
        return stream.sent - stream.confirmed === 0 || performance.now()
      },
      { timeoutMs: WATCH_MS, what: 'the end of the stream' },
    )
    beta.kill()
    const beganMs = performance.now()
    await other.session.close()
    const count = 12
    const accepted = one.qp.postSend(
      Array.from({ length: count }, (_, id) => ({
        id: 10_000 + id,
        opcode: 'send' as const,
        inline: new Uint8Array(8),
      })),
    )
    const verdicts: string[] = []
    await until(
      () => {
        for (const { id, status } of one.cq.poll(64)) if (id >= 10_000) verdicts.push(status)
        return verdicts.length >= accepted
      },
      // A node counts as dead ten seconds after its last sign of life.
      { timeoutMs: 10_000 + graceMs + 5000, what: 'verdicts' },
    )
    t.log(`${accepted} verdicts ${(performance.now() - beganMs).toFixed(0)} ms after the kill, grace ${graceMs} ms`)
    t.true(accepted > 0)
    // No receive was posted for most of them, and no broker was there to take them.
    t.deepEqual(
      verdicts.filter((status) => status === 'success'),
      [],
    )
  },
)

test.serial('a broker that is stopped is not replaced, and gives no verdict, while it lives', async (t) => {
  const scene = await begin(t)
  const { alpha, stream, one } = scene
  alpha.kill('SIGSTOP')
  t.teardown(() => alpha.kill('SIGCONT'))
  const second = alpha.launch('0')
  const { code } = await second.ended(WATCH_MS)
  t.is(code, 4)
  const { confirmed, received } = stream
  const stillMs = performance.now()
  await until(() => performance.now() - stillMs > 1000, { timeoutMs: WATCH_MS, what: 'a second' })
  t.true(stream.confirmed - confirmed <= 64 && stream.received - received <= 64)
  t.deepEqual(
    one.events.filter((kind) => kind.startsWith('broker')),
    [],
  )
  alpha.kill('SIGCONT')
  await finish(t, scene)
})
