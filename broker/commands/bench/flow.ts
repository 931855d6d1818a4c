/** Rates and bandwidths: of one pair, and of many at once with what each of them got. */
import type { BenchFlow, OneSidedOpcode } from '../../../protocol/bench.js'
import type { Spent } from './brokers.js'
import { type Pair, processIdsOf } from './crew.js'
import { alone, sizesOr } from './latency.js'
import type { MeasuredRow, TestName } from './settings.js'
import { isNewWork, linkPlan, placeOf, type Rows, rowOf, type Stage } from './stage.js'
import { costs, spentIn, type Timed, windowFor } from './window.js'

/** Bytes under way of a bandwidth test: more would only leave the caches. */
const BANDWIDTH_BYTES = 8 * 2 ** 20
const LEAST_OUTSTANDING = 2
/** As many atomics as a connection may have under way. */
const ATOMICS_OUTSTANDING = 16

type FlowOf = (pair: Pair, window: Timed) => Promise<BenchFlow>

const sends: FlowOf = async ({ near, far }, { fromMs, untilMs, lastingMs }) => {
  const [, flow] = await Promise.all([
    near.order('stream', { fromMs, untilMs }, lastingMs),
    far.order('drain', { fromMs, untilMs }, lastingMs),
  ])
  return flow
}

const oneSided =
  (opcode: OneSidedOpcode, outstanding: number): FlowOf =>
  ({ near }, { fromMs, untilMs, lastingMs }) =>
    near.order('one-sided', { opcode, outstanding, fromMs, untilMs }, lastingMs)

/** Pairs share what may be outstanding: more of it only pushes each other's requests out of the caches. */
const LEAST_OF_EACH_PAIR = 128

interface FlowTest {
  readonly test: TestName
  readonly work: string
  readonly bytes: number
  readonly pairs?: number
  readonly flow: FlowOf
  readonly slots?: number
}

async function flowRow(stage: Stage, { test, work, bytes, pairs = 1, flow, slots }: FlowTest): Promise<MeasuredRow> {
  const { settings, crew, brokers } = stage
  const { durationMs } = settings
  const plan = linkPlan(stage, bytes, slots)
  const [flows, spent] = await crew.linked(pairs, placeOf(stage), plan, (all) => {
    const window = windowFor(durationMs, pairs, isNewWork(stage, test, work, pairs))
    return Promise.all([
      Promise.all(all.map((pair) => flow(pair, window))),
      spentIn(window, brokers, processIdsOf(all)),
    ])
  })
  return rowOf(stage, test, { work, bytes, pairs }, flowValues(flows, spent, durationMs))
}

function flowValues(
  flows: readonly BenchFlow[],
  spent: Spent & { readonly clientsMs: number },
  durationMs: number,
): Record<string, number> {
  const messages = flows.reduce((sum, one) => sum + one.messages, 0)
  const bytes = flows.reduce((sum, one) => sum + one.bytes, 0)
  const counts = flows.map((one) => one.messages)
  return {
    millionsPerSecond: messages / durationMs / 1e3,
    megabytesPerSecond: bytes / durationMs / 1e3,
    slowestToFastest: Math.min(...counts) / Math.max(1, ...counts),
    ...costs(spent, messages),
    brokersCpuPercent: (spent.processorMs / durationMs) * 100,
  }
}

export async function* rate(stage: Stage): Rows {
  for (const bytes of sizesOr(stage, [64])) {
    yield flowRow(stage, { test: 'rate', work: 'send', bytes, flow: sends })
    const slots = linkPlan(stage, bytes).slots
    const outstanding = Math.max(LEAST_OUTSTANDING, Math.min(256, slots >> 1))
    yield flowRow(stage, { test: 'rate', work: 'write', bytes, flow: oneSided('write', outstanding) })
  }
}

export async function* bandwidth(stage: Stage): Rows {
  for (const bytes of sizesOr(stage, [65_536, 2 ** 20])) {
    const most = Math.min(stage.settings.depth, Math.max(LEAST_OUTSTANDING, Math.floor(BANDWIDTH_BYTES / bytes)))
    for (const opcode of ['write', 'read'] as const) {
      yield flowRow(stage, { test: 'bandwidth', work: opcode, bytes, flow: oneSided(opcode, most), slots: most })
    }
    yield flowRow(stage, { test: 'bandwidth', work: 'send', bytes, flow: sends, slots: Math.max(4, most) })
  }
}

export async function* pairs(stage: Stage): Rows {
  for (const count of stage.settings.pairs) {
    const outstanding = Math.max(LEAST_OF_EACH_PAIR, Math.floor(stage.settings.depth / count))
    for (const bytes of sizesOr(stage, [64])) {
      const { slots } = linkPlan(stage, bytes, outstanding)
      yield flowRow(stage, { test: 'pairs', work: 'send', bytes, pairs: count, flow: sends, slots })
    }
  }
}

export async function* atomics(stage: Stage): Rows {
  for (const opcode of ['fetch-and-add', 'compare-and-swap'] as const) {
    const times = await alone(stage, opcode, 8)
    const flow = oneSided(opcode, ATOMICS_OUTSTANDING)
    const row = await flowRow(stage, { test: 'atomics', work: opcode, bytes: 8, flow })
    const { p50: p50Us, p99: p99Us, p999: p999Us } = times
    yield { ...row, values: { p50Us, p99Us, p999Us, ...row.values } }
  }
}
