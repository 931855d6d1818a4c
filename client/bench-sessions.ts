/** What it costs to come and to connect, and sessions that are only there. */
import type { QueuePairAddress } from '../protocol/address.js'
import type { BenchPlan, BenchTimes } from '../protocol/bench.js'
import { clock } from '../shm/libc.js'
import { attach } from './attach.js'
import { Times } from './bench-times.js'
import type { QueuePair } from './queue-pair.js'
import type { Session } from './session.js'

const CONNECT_MS = 20_000

export async function attachOften(plan: BenchPlan, warmUp: number, count: number): Promise<BenchTimes> {
  const { runtimeDirectory: runtimeDir, job, jobKey, name } = plan
  const times = new Times()
  for (let time = 0; time < warmUp + count; time++) {
    const startMs = clock.nowMs()
    const session = await attach({ runtimeDir, job, jobKey, name })
    if (time >= warmUp) times.recordMs(clock.nowMs() - startMs)
    await session.close()
  }
  return times.result('ms')
}

/** A session in a job of its own, and queue pairs that wait to be connected. */
export class OwnJob {
  readonly #session: Session
  readonly #queuePairs: readonly QueuePair[]

  private constructor(session: Session, queuePairs: readonly QueuePair[]) {
    this.#session = session
    this.#queuePairs = queuePairs
  }

  static async open(plan: BenchPlan, job: string, jobKey: string, count: number): Promise<OwnJob> {
    const session = await attach({ runtimeDir: plan.runtimeDirectory, job, jobKey, name: plan.name })
    const sendCq = await session.createCompletionQueue({ capacity: 64 })
    const queuePairs: QueuePair[] = []
    while (queuePairs.length < count) queuePairs.push(await session.createQueuePair({ sendCq }))
    return new OwnJob(session, queuePairs)
  }

  get addresses(): readonly QueuePairAddress[] {
    return this.#queuePairs.map(({ address }) => address)
  }

  async connect(addresses: readonly QueuePairAddress[], atOnce: boolean): Promise<number[]> {
    const one = async (queuePair: QueuePair, index: number): Promise<number> => {
      const startMs = clock.nowMs()
      await queuePair.connect(addresses[index]!, { timeoutMs: CONNECT_MS })
      return clock.nowMs() - startMs
    }
    if (atOnce) return Promise.all(this.#queuePairs.map(one))
    const eachMs: number[] = []
    for (const [index, queuePair] of this.#queuePairs.entries()) eachMs.push(await one(queuePair, index))
    return eachMs
  }

  close(): Promise<void> {
    return this.#session.close()
  }
}

/** Attaches that many times and keeps the sessions until the process ends. */
export async function holdSessions(plan: BenchPlan, job: string, jobKey: string, count: number): Promise<Session[]> {
  const sessions: Session[] = []
  const options = { runtimeDir: plan.runtimeDirectory, job, jobKey, name: plan.name, timeoutMs: CONNECT_MS }
  while (sessions.length < count) sessions.push(await attach(options))
  return sessions
}
