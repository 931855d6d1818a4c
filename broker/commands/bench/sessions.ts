/** Costs outside the data path: attaching, connecting, idling; and of posting and polling in the client itself. */
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BenchTimes } from '../../../protocol/bench.js'
import { processorMs } from './brokers.js'
import { linkPlan, placeOf, type Rows, rowOf, type Stage } from './stage.js'
import { atLeast, windowFor } from './window.js'

const LIST = 16
const ATTACHES = { warmUp: 20, count: 200 }
/** Each in a job of its own, because a job keeps its shared queue pair for a while. */
const FIRST_CONNECTS = 20
/** Fewer than the broker takes from one session at the same time. */
const NEXT_CONNECTS = 60
const SESSIONS_OF_A_PROCESS = 100
const QUEUE_PAIRS = 64
/** Brokers do their work for new sessions first. */
const SETTLE_MS = 2000
/** The kernel counts processor time in ticks of 10 ms. */
const IDLE_MS = 5000

export async function* postPoll(stage: Stage): Rows {
  const { settings, crew } = stage
  const bytes = settings.sizes[0] ?? 64
  const plan = { ...linkPlan(stage, bytes, 256), depth: 256 }
  const found = await crew.linked(1, placeOf(stage), plan, ([pair]) => {
    const { fromMs, untilMs, lastingMs } = windowFor(settings.durationMs, 1)
    return pair!.near.order('post-poll', { list: LIST, fromMs, untilMs }, lastingMs)
  })
  for (const work of ['post', 'poll', 'both'] as const) {
    const { p50: p50Ns, p99: p99Ns, p999: p999Ns, samples } = found[work]
    yield rowOf(stage, 'post-poll', { work, bytes }, { p50Ns, p99Ns, p999Ns, samples })
  }
}

const milliseconds = ({ p50, p99, maximum, samples }: BenchTimes): Record<string, number> => ({
  p50Ms: p50,
  p99Ms: p99,
  maximumMs: maximum,
  samples,
})

export async function* attach(stage: Stage): Rows {
  const [pair] = await stage.crew.pairs(1, placeOf(stage))
  const times = await pair!.near.order('attach-often', ATTACHES)
  yield rowOf(stage, 'attach', { work: 'attach', bytes: 0 }, milliseconds(times))
}

export async function* connect(stage: Stage): Rows {
  const [pair] = await stage.crew.pairs(1, placeOf(stage))
  const { near, far } = pair!
  const first: number[] = []
  const next: number[] = []
  for (let round = 0; round < FIRST_CONNECTS; round++) {
    const isLast = round === FIRST_CONNECTS - 1
    const own = {
      job: `bench-connect-${randomBytes(6).toString('hex')}`,
      jobKey: randomBytes(16).toString('hex'),
      queuePairs: isLast ? NEXT_CONNECTS + 1 : 1,
    }
    const [here, there] = await Promise.all([near.order('open-job', own), far.order('open-job', own)])
    const [measured] = await Promise.all([
      near.order('connect-job', { addresses: there.addresses, atOnce: false }),
      far.order('connect-job', { addresses: here.addresses, atOnce: true }),
    ])
    first.push(measured.eachMs[0]!)
    next.push(...measured.eachMs.slice(1))
    await Promise.all([near.order('close-job', null), far.order('close-job', null)])
  }
  yield rowOf(stage, 'connect', { work: 'first', bytes: 0 }, spread(first))
  yield rowOf(stage, 'connect', { work: 'next', bytes: 0 }, spread(next))
}

function spread(each: readonly number[]): Record<string, number> {
  const sorted = [...each].sort((a, b) => a - b)
  const at = (part: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]!
  return { p50Ms: at(0.5), p99Ms: at(0.99), maximumMs: sorted.at(-1)!, samples: sorted.length }
}

/** Sessions that do nothing, and what a queue pair with all defaults takes. */
export async function* idle(stage: Stage): Rows {
  const { settings, crew, brokers } = stage
  const own = { job: 'bench-idle', jobKey: crew.jobKey }
  const [broker] = brokers
  const holders = []
  for (let left = settings.idleSessions; left > 0; left -= SESSIONS_OF_A_PROCESS) {
    const holder = await crew.extra(0, `idle-${holders.length}`)
    holders.push(holder)
    await holder.order('hold-sessions', { ...own, sessions: Math.min(left, SESSIONS_OF_A_PROCESS) })
  }
  await sleep(SETTLE_MS)
  const startMs = performance.now()
  const before = processorMs(broker.processId)
  await sleep(atLeast(IDLE_MS, settings.durationMs))
  const spentMs = processorMs(broker.processId) - before
  const cpuPercent = (spentMs / (performance.now() - startMs)) * 100

  const first = holders[0]!
  const sizes = [sharedBytes(first.processId)]
  for (const queuePairs of [1, 1 + QUEUE_PAIRS]) {
    await first.order('hold-queue-pairs', { queuePairs })
    sizes.push(sharedBytes(first.processId))
  }
  const [none, one, many] = sizes as [number, number, number]
  // Each order also makes a completion queue of the same size, which the difference takes away.
  const bytesPerQueuePair = (many - one - (one - none)) / QUEUE_PAIRS
  await Promise.all(holders.map((holder) => holder.finish()))
  const values = { sessions: settings.idleSessions, cpuPercent, kibibytesPerQueuePair: bytesPerQueuePair / 1024 }
  yield rowOf(stage, 'idle', { work: 'sessions', bytes: 0, pairs: 0 }, values)
}

/** Bytes of shared segments that a process has mapped. */
function sharedBytes(processId: number): number {
  let bytes = 0
  for (const line of readFileSync(`/proc/${processId}/maps`, 'utf8').split('\n')) {
    const [, from = '', to = ''] = /^([0-9a-f]+)-([0-9a-f]+) .*\/memfd:/.exec(line) ?? []
    if (to !== '') bytes += Number.parseInt(to, 16) - Number.parseInt(from, 16)
  }
  return bytes
}
