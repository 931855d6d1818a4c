/** Latencies: of one pair, of many at once, and beside a bulk transfer. */
import type { BenchTimes, OneSidedOpcode, PingPongOpcode } from '../../../protocol/bench.js'
import type { Pair } from './crew.js'
import { link, processIdsOf } from './crew.js'
import { linkPlan, placeOf, type Rows, rowOf, type Stage } from './stage.js'
import { atLeast, costs, spentIn, type Timed, windowFor } from './window.js'

const PING_PONG_SLOTS = 64
/** Beside bulk the slowest of a hundred trips are the point. */
const MIX_MS = 2000

/** The times of a pair that plays ping-pong in the window. */
async function pingPong({ near, far }: Pair, opcode: PingPongOpcode, window: Timed): Promise<BenchTimes> {
  const { fromMs, untilMs, lastingMs } = window
  const [times] = await Promise.all([
    near.order('ping', { opcode, fromMs, untilMs }, lastingMs),
    far.order('pong', { opcode }, lastingMs),
  ])
  return times
}

const microseconds = ({ p50, p99, p999, samples }: BenchTimes): Record<string, number> => ({
  p50Us: p50,
  p99Us: p99,
  p999Us: p999,
  samples,
})

export async function* latency(stage: Stage): Rows {
  const { settings, crew, brokers } = stage
  for (const bytes of sizesOr(stage, [64])) {
    const plan = linkPlan(stage, bytes, PING_PONG_SLOTS)
    for (const opcode of ['send', 'write'] as const) {
      const [times, spent] = await crew.linked(1, placeOf(stage), plan, ([pair]) => {
        const window = windowFor(settings.durationMs, 1)
        return Promise.all([pingPong(pair!, opcode, window), spentIn(window, brokers, processIdsOf([pair!]))])
      })
      const values = { ...microseconds(times), ...costs(spent, 2 * times.samples) }
      yield rowOf(stage, 'latency', { work: opcode, bytes }, values)
    }
    const times = await alone(stage, 'read', bytes)
    yield rowOf(stage, 'latency', { work: 'read', bytes }, microseconds(times))
  }
}

/** One request at a time, from its post to its completion. */
export async function alone(stage: Stage, opcode: OneSidedOpcode, bytes: number): Promise<BenchTimes> {
  const { settings, crew } = stage
  return crew.linked(1, placeOf(stage), linkPlan(stage, bytes, PING_PONG_SLOTS), async ([pair]) => {
    const { fromMs, untilMs, lastingMs } = windowFor(settings.durationMs, 1)
    const done = await pair!.near.order('one-sided', { opcode, outstanding: 1, fromMs, untilMs }, lastingMs)
    return done.times
  })
}

export async function* pairsLatency(stage: Stage): Rows {
  const { settings, crew, brokers } = stage
  for (const count of settings.pairs) {
    for (const bytes of sizesOr(stage, [64])) {
      const plan = linkPlan(stage, bytes, PING_PONG_SLOTS)
      const [each, spent] = await crew.linked(count, placeOf(stage), plan, (pairs) => {
        const window = windowFor(settings.durationMs, count)
        const games = Promise.all(pairs.map((pair) => pingPong(pair, 'send', window)))
        return Promise.all([games, spentIn(window, brokers, processIdsOf(pairs))])
      })
      const samples = each.reduce((sum, one) => sum + one.samples, 0)
      const halves = each.map(({ p50 }) => p50).sort((a, b) => a - b)
      const median = halves[halves.length >> 1]!
      yield rowOf(
        stage,
        'pairs-latency',
        { work: 'send', bytes, pairs: count },
        {
          p50Us: median,
          worstP50Us: halves.at(-1)!,
          worstToMedian: halves.at(-1)! / median,
          p99Us: Math.max(...each.map(({ p99 }) => p99)),
          samples,
          ...costs(spent, 2 * samples),
        },
      )
    }
  }
}

/** A ping-pong alone, then beside one write after the other of another pair on the same shared queue pair. */
export async function* mix(stage: Stage): Rows {
  const { settings, crew } = stage
  const bytes = settings.sizes[0] ?? 64
  const [small, bulk] = await crew.pairs(2, placeOf(stage))
  await link(small!, linkPlan(stage, bytes, PING_PONG_SLOTS))
  const before = await pingPong(small!, 'send', windowFor(settings.durationMs, 1))
  await Promise.all([small!.near.order('close', null), small!.far.order('close', null)])
  yield rowOf(
    stage,
    'mix',
    { work: 'alone', bytes },
    { ...microseconds(before), maximumUs: before.maximum, bulkMBps: 0 },
  )

  await link(small!, linkPlan(stage, bytes, PING_PONG_SLOTS))
  const { bulkByteLength, wait } = settings
  await link(bulk!, { wait, inline: false, depth: 64, slots: 1, byteLength: bulkByteLength })
  const window = windowFor(atLeast(MIX_MS, settings.durationMs), 2)
  const { fromMs, untilMs, lastingMs } = window
  const bulkOrder = { opcode: 'write', outstanding: 1, fromMs, untilMs } as const
  const [times, { all }] = await Promise.all([
    pingPong(small!, 'send', window),
    bulk!.near.order('one-sided', bulkOrder, lastingMs),
  ])
  yield rowOf(
    stage,
    'mix',
    { work: 'beside bulk', bytes, pairs: 2 },
    {
      ...microseconds(times),
      maximumUs: times.maximum,
      bulkMBps: (all.messages * bulkByteLength) / all.durationMs / 1e3,
      bulkWrites: all.messages,
    },
  )
  for (const { near, far } of [small!, bulk!]) await Promise.all([near.order('close', null), far.order('close', null)])
}

export const sizesOr = ({ settings }: Stage, own: readonly number[]): readonly number[] =>
  settings.sizes.length > 0 ? settings.sizes : own
