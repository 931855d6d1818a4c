/** The piece of time that all processes of a measurement count in, and what the brokers spent in it. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { BenchWindow } from '../../../protocol/bench.js'
import { clock } from '../../../shm/libc.js'
import { type BenchBroker, processorMs, type Spent, spentBetween, spentBy } from './brokers.js'

/** Compilers need this long, and longer when many processes share the cores. */
const WARM_UP_MS = 500
const WARM_UP_OF_EACH_PAIR_MS = 400
/** Until work of a new kind runs as fast as it will, where the compilers' threads share a core with it: 1 MiB writes go from 3 to 7 GB/s in two seconds. */
const WARM_UP_OF_NEW_WORK_MS = 1800
/** Who measures for a shorter moment only wants to see that it works. */
const MOMENT_MS = 500
const WARM_UPS_MOST = 3
const DURATIONS_MOST = 10

export interface Timed extends BenchWindow {
  readonly durationMs: number
  /** From now to its end. */
  readonly lastingMs: number
}

/** For a test that says nothing before so much time, except to who measures for a moment. */
export function atLeast(leastMs: number, durationMs: number): number {
  return Math.max(durationMs, Math.min(leastMs, DURATIONS_MOST * durationMs))
}

export function windowFor(durationMs: number, pairs: number, isNewWork = false): Timed {
  const nowMs = clock.nowMs()
  const neededMs = WARM_UP_MS + pairs * WARM_UP_OF_EACH_PAIR_MS + (isNewWork ? WARM_UP_OF_NEW_WORK_MS : 0)
  const warmUpMs = durationMs < MOMENT_MS ? Math.min(neededMs, WARM_UPS_MOST * durationMs) : neededMs
  const fromMs = nowMs + warmUpMs
  const untilMs = fromMs + durationMs
  return { fromMs, untilMs, durationMs, lastingMs: untilMs - nowMs }
}

/** What the brokers, and the clients' processes, spent between its beginning and its end. */
export async function spentIn(
  window: BenchWindow,
  brokers: readonly BenchBroker[],
  clients: readonly number[],
): Promise<Spent & { readonly clientsMs: number }> {
  const now = (): Spent & { readonly clientsMs: number } => ({
    ...spentBy(brokers),
    clientsMs: clients.reduce((sum, processId) => sum + processorMs(processId), 0),
  })
  await sleep(Math.max(0, window.fromMs - clock.nowMs()))
  const before = now()
  await sleep(Math.max(0, window.untilMs - clock.nowMs()))
  return spentBetween(before, now())
}

/** The same for each of what was counted, as values of a row. */
export function costs(spent: Spent & { readonly clientsMs: number }, count: number): Record<string, number> {
  const each = (inAll: number): number => (count === 0 ? 0 : inAll / count)
  return {
    systemCallsPerMessage: each(spent.systemCalls),
    framesPerMessage: each(spent.frames),
    acknowledgementsPerMessage: each(spent.acknowledgements),
    wakeUpsPerMessage: each(spent.wakeUps),
    sleepsPerMessage: each(spent.sleeps),
    turnsPerMessage: each(spent.turns),
    laneStallsPerMessage: each(spent.laneStalls),
    queuePairStallsPerMessage: each(spent.queuePairStalls),
    brokersNsPerMessage: each(spent.processorMs * 1e6),
    clientsNsPerMessage: each(spent.clientsMs * 1e6),
  }
}
