/** Brokers are killed, stopped, replaced under traffic; sessions go on and nothing is lost, doubled or reordered. */
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { readNodeFile } from '../../broker/observe/node-file-reader.js'
import { runCli } from '../support/cli.js'
import { startProcess } from '../support/processes.js'
import { until, within } from '../support/until.js'
import { connectEnds, type End, makeEnd, reached, Sender, Stream, startNodes, Writer } from './restart-scene.js'

const TOTAL = 3000

interface Scene {
  readonly one: End
  readonly other: End
  readonly stream: Stream
  readonly running: Promise<void>
}

async function begin(t: ExecutionContext, one: End, other: End): Promise<Scene> {
  await connectEnds(one, other)
  const stream = new Stream(one, other, Number.POSITIVE_INFINITY)
  t.teardown(() => stream.stop())
  const running = stream.run()
  running.catch(() => undefined)
  await reached(stream, 200)
  return { one, other, stream, running }
}

/** Some more messages, and then all of them must be there. */
async function finish(t: ExecutionContext, { one, other, stream, running }: Scene): Promise<void> {
  stream.total = stream.sent + 300
  await within(running, { timeoutMs: 60_000, what: `the rest; ${stream.received} of ${stream.total} came` })
  t.deepEqual(stream.trouble, [])
  t.is(stream.received, stream.total)
  t.is(stream.confirmed, stream.total)
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

test.serial('a process that only ever blocks survives its broker', async (t) => {
  const { alpha, beta } = await startNodes(t)
  const one = await makeEnd(t, alpha, 'one')
  const script = fileURLToPath(new URL('fixtures/blocking-receiver.ts', import.meta.url))
  const words = ['--import=./broker/typescript.js', script, beta.directory, JSON.stringify(one.qp.address), `${TOTAL}`]
  const receiver = startProcess(t, process.execPath, words)
  const [address] = await receiver.printed(/^\{"node".*$/m)
  await one.qp.connect(JSON.parse(address), { timeoutMs: 30_000 })
  const sender = new Sender(one, TOTAL)
  t.teardown(() => sender.stop())
  const sending = sender.run()
  sending.catch(() => undefined)
  await until(() => sender.confirmed >= 200, { timeoutMs: 30_000, what: 'the first messages' })
  beta.kill()
  await beta.start()
  const [line] = await receiver.printed(/^\{"received".*$/m, 60_000)
  await within(sending, { timeoutMs: 30_000, what: 'the last verdicts' })
  t.deepEqual(JSON.parse(line), { received: TOTAL, trouble: [], events: ['broker-lost', 'broker-back'] })
  t.deepEqual(sender.trouble, [])
  t.is((await receiver.ended()).code, 0)
})

test.serial('a broker hands over under traffic: nothing unknown, and a short blackout', async (t) => {
  const { alpha, beta } = await startNodes(t)
  const scene = await begin(t, await makeEnd(t, alpha, 'one'), await makeEnd(t, beta, 'other'))
  const writing = new Writer(await makeEnd(t, alpha, 'writer'), await makeEnd(t, beta, 'written'))
  t.teardown(() => writing.stop())
  await connectEnds(writing.from, writing.to)
  const written = writing.run()
  const drainCli = ['drain', '--handover', '--json', '--runtime-dir', alpha.directory]
  const alone = await runCli(t, drainCli)
  t.is(alone.code, 1)
  t.regex(alone.stderr, /nobody stands by/)
  const before = alpha.started
  const standby = alpha.launch(before?.linkAddress.split(':')[1] ?? '0', '--standby')
  await standby.printed(/"event":"standby"/)
  const second = await runCli(t, ['start', '--standby', '--runtime-dir', alpha.directory])
  t.is(second.code, 4)
  const drained = await runCli(t, drainCli, { timeoutMs: 60_000 })
  t.is(drained.code, 0, drained.stderr)
  const { blackoutMs, from, processId, epoch } = JSON.parse(drained.stdout)
  t.is(from, before?.processId)
  t.not(processId, from)
  t.is(epoch, 2)
  await finish(t, scene)
  writing.stop()
  await written
  t.deepEqual(writing.trouble, [])
  const longestMs = Math.max(scene.stream.longestPauseMs, writing.longestPauseMs)
  t.log(`blackout ${blackoutMs} ms by the new broker, ${longestMs.toFixed(0)} ms by a client; ${writing.done} writes`)
  t.deepEqual(
    scene.one.events.filter((kind) => /^broker/.test(kind)),
    ['broker-lost', 'broker-back'],
  )
})

test.serial('a stopped broker is never replaced while it lives', async (t) => {
  const { alpha, beta } = await startNodes(t)
  const scene = await begin(t, await makeEnd(t, alpha, 'one'), await makeEnd(t, beta, 'other'))
  const standby = alpha.launch(alpha.started?.linkAddress.split(':')[1] ?? '0', '--standby')
  await standby.printed(/"event":"standby"/)
  alpha.kill('SIGSTOP')
  const hung = () => readNodeFile(alpha.directory).life === 'hung'
  await until(hung, { timeoutMs: 20_000, what: 'the stopped broker to look hung' })
  t.is(readNodeFile(alpha.directory).lockHolder, alpha.started?.processId ?? -1)
  t.is((await runCli(t, ['start', '--runtime-dir', alpha.directory, '--node', 'alpha'])).code, 4)
  t.notRegex(standby.stdout(), /"event":"started"/)
  alpha.kill('SIGCONT')
  const stopped = scene.stream.received
  await reached(scene.stream, stopped + 300)
  alpha.kill()
  await standby.printed(/"event":"started"/, 30_000)
  await finish(t, scene)
})

test.serial('datagrams and connections by service go on after a restart', async (t) => {
  const { alpha, beta } = await startNodes(t)
  const one = await makeEnd(t, alpha, 'one')
  const other = await makeEnd(t, beta, 'other')
  const make = (end: End) =>
    end.session.createQueuePair({ type: 'datagram', sendCq: end.cq, maxSend: 32, maxReceive: 32 })
  const [from, to] = await Promise.all([make(one), make(other)])
  const numbers: number[] = []
  const exchange = async (): Promise<void> => {
    const number = numbers.length
    to.postReceive({ id: number, local: [{ region: other.region, offset: 0, length: 64 }] })
    const inline = new Uint8Array([number])
    t.is(from.postSend({ id: number, opcode: 'send', inline, destination: to.address }), 1)
    for (const end of [one, other]) {
      let found = end.cq.poll(1)
      while (found.length === 0 && (await end.cq.wait({ timeoutMs: 30_000 }))) found = end.cq.poll(1)
      t.like(found[0], { id: number, status: 'success' })
    }
    numbers.push(other.region.bytes[0] ?? -1)
  }
  await one.session.resolve('beta', { timeoutMs: 30_000 })
  await exchange()
  for (const node of [alpha, beta]) {
    node.kill()
    await node.start()
    await exchange()
    await exchange()
  }
  t.deepEqual(numbers, [0, 1, 2, 3, 4])
  const listener = await other.session.listen('later', { sendCq: other.cq })
  beta.kill()
  const connecting = one.qp.connect({ node: 'beta', service: 'later' }, { timeoutMs: 30_000 })
  await beta.start()
  await connecting
  t.truthy(await listener.accept())
  await Promise.all([one.session.close(), other.session.close()])
})
