import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setImmediate as turn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import { freeClaimedBy } from '../../../shm/slot-state.js'
import { repositoryDirectory } from '../../support/cli.js'
import { until, within } from '../../support/until.js'
import { type Attached, attached } from './attached.js'

const fixture = fileURLToPath(new URL('./fixtures/shared-poster.ts', import.meta.url))
const watchdogMs = 40_000

class Poster {
  readonly child: ChildProcess
  readonly lines: string[] = []
  readonly ended: Promise<unknown>

  constructor(t: ExecutionContext, { broker, qp }: Attached, total: number) {
    const parameters = [broker.directory, JSON.stringify(qp.share()), String(total)]
    this.child = spawn(process.execPath, ['--import=./broker/typescript.js', fixture, ...parameters], {
      cwd: repositoryDirectory,
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.ended = once(this.child, 'exit')
    createInterface({ input: this.child.stdout! }).on('line', (line) => this.lines.push(line))
    t.teardown(async () => {
      this.child.kill('SIGKILL')
      await this.ended
    })
  }

  get member(): number {
    return Number(/^member (\d+)$/.exec(this.lines[0] ?? '')?.[1] ?? 0)
  }

  get hasPosted(): boolean {
    return this.lines[1] === 'posted'
  }

  /** Tells it to stop; what it polled. */
  async polled(): Promise<number[]> {
    this.child.stdin!.write('stop\n')
    await within(this.ended, { timeoutMs: watchdogMs, what: 'the end of a poster' })
    return JSON.parse(this.lines[2]!) as number[]
  }
}

/**
 * Plays the engine until `done`: takes, completes at once, gives everybody else the processor. Returns ids as they
 * were taken.
 */
async function serve({ fake }: Attached, done: () => boolean): Promise<number[]> {
  const order: number[] = []
  await until(
    async () => {
      for (let round = 0; round < 50; round++) {
        for (const taken of fake.take('send')) {
          order.push(taken.id)
          fake.complete(taken)
        }
        fake.sendCq.refill()
        await turn()
      }
      return done()
    },
    { timeoutMs: watchdogMs, what: 'everything to be posted' },
  )
  return order
}

const memberOf = (id: number): number => Math.floor(id / 2 ** 32)

/** Each call's accepted requests lie side by side, the calls of a member in order: the first id that breaks it. */
function misplaced(order: readonly number[]): number | undefined {
  const last = new Map<number, number>()
  return order.find((id, index) => {
    const isTorn = id % 16 > 0 && order[index - 1] !== id - 1
    const isLate = (last.get(memberOf(id)) ?? -1) >= id
    last.set(memberOf(id), id)
    return isTorn || isLate
  })
}

const sorted = (ids: readonly number[]): number[] => [...ids].sort((one, other) => one - other)

test('processes share a queue pair: lists stay whole, each completion is delivered once', async (t) => {
  const all = await attached(t, { maxSend: 64 })
  const posters = [new Poster(t, all, 15_000), new Poster(t, all, 15_000)]
  const order = await serve(all, () => posters.every((poster) => poster.hasPosted) && !all.cq.available)
  t.is(misplaced(order), undefined)
  const polled = (await Promise.all(posters.map((poster) => poster.polled()))).flat()
  t.deepEqual(sorted(polled), sorted(order))
  t.true(order.length >= 30_000)
})

test('a process killed while it posts and polls takes nobody along', async (t) => {
  const all = await attached(t, { maxSend: 64 })
  const victim = new Poster(t, all, 1e9)
  const posters = [new Poster(t, all, 8000), new Poster(t, all, 8000)]
  const begun = [victim, ...posters]
  const early = await serve(all, () => begun.every(({ member }) => member > 0))
  victim.child.kill('SIGKILL')
  const late = await serve(all, () => victim.child.signalCode !== null)
  // What it had committed was taken by now; what it only claimed is given back, as the broker does after a death.
  for (const { offset, generation } of slotsOf(all)) {
    freeClaimedBy(all.fake.mapping.words, offset, victim.member, generation)
  }
  const rest = await serve(all, () => posters.every((poster) => poster.hasPosted) && !all.cq.available)
  const order = [...early, ...late, ...rest]
  t.is(misplaced(order), undefined)
  const polled = new Set((await Promise.all(posters.map((poster) => poster.polled()))).flat())
  const missing = order.filter((id) => !polled.has(id))
  t.true(polled.size + missing.length === order.length)
  // Only what the victim had taken for itself is gone, and it took nothing after its death.
  t.deepEqual(
    rest.filter((id) => !polled.has(id)),
    [],
  )
})

function* slotsOf({ fake }: Attached): Generator<{ offset: number; generation: number }> {
  for (let slot = 0; slot < fake.geometry.sendSlots; slot++) {
    yield { offset: fake.slotOffset('send', slot) / 4, generation: fake.readSend(slot).generation }
  }
}

test('a worker thread is a session of its own', async (t) => {
  const { broker, session } = await attached(t)
  const worker = new Worker(new URL('./fixtures/worker.ts', import.meta.url), { workerData: broker.directory })
  t.teardown(() => worker.terminate())
  const [created] = (await once(worker, 'message')) as [{ member: number; number: number }]
  t.not(created.member, session.member)
  const exit = within(once(worker, 'exit'), { timeoutMs: watchdogMs, what: 'the end of the worker' })
  const fake = broker.queuePair(created.number)
  const taken = await until(() => fake.take('send')[0], { timeoutMs: watchdogMs, what: 'a post' })
  fake.complete(taken)
  const [code] = await exit
  t.is(code, 0)
})
