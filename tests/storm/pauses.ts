/** How long the others notice that one of them was killed. */
import type { Life } from './crew.js'
import type { Taken } from './ledger.js'
import { queueOfSeat } from './plan.js'

/** A pause that begins later than this after a kill has another cause. */
const SHADOW_MS = 100
const BEFORE_MS = 1000
/** How long before a kill nothing of it can be seen. */
const ORDINARY_MS = 400
const AFTER_MS = 5000

export interface Pauses {
  /** Over the kills: the longest time without a completion at the survivors that poll the same queue. */
  readonly medianMs: number
  readonly mostMs: number
  /** The same median at moments shortly before the kills: what the machine does to everybody. */
  readonly ordinaryMs: number
  readonly kills: number
}

export interface Outage {
  readonly fromMs: number
  readonly toMs: number
}

/** Kills while a broker was away or a link was cut say nothing about kills. */
export function pausesOf(lives: readonly Life[], taken: readonly Taken[], outages: readonly Outage[]): Pauses {
  const timesOf = new Map(taken.map(({ process, timesMs }) => [process, timesMs]))
  const longest: number[] = []
  const ordinary: number[] = []
  for (const dead of lives) {
    const { killedMs } = dead
    if (killedMs === null || outages.some(({ fromMs, toMs }) => killedMs > fromMs - BEFORE_MS && killedMs < toMs))
      continue
    const others = lives.filter((life) => life !== dead && sharesQueue(life, dead))
    const near = others.flatMap(({ process }) =>
      between(timesOf.get(process) ?? [], killedMs - BEFORE_MS, killedMs + AFTER_MS),
    )
    const inOrder = near.sort((one, other) => one - other)
    const pause = longestPause(inOrder, killedMs)
    if (pause === undefined) continue
    longest.push(pause)
    ordinary.push(longestPause(inOrder, killedMs - ORDINARY_MS) ?? 0)
  }
  const ordinaryMs = part(ordinary, 0.5)
  return { medianMs: part(longest, 0.5), mostMs: part(longest, 1), ordinaryMs, kills: longest.length }
}

function part(values: readonly number[], of: number): number {
  const inOrder = [...values].sort((one, other) => one - other)
  return inOrder[Math.min(inOrder.length - 1, Math.floor(inOrder.length * of))] ?? 0
}

const sharesQueue = (one: Life, other: Life): boolean =>
  one.node === other.node && queueOfSeat(one.seat) === queueOfSeat(other.seat)

/** Of ascending times. */
function between(times: readonly number[], fromMs: number, toMs: number): readonly number[] {
  return times.slice(firstAfter(times, fromMs), firstAfter(times, toMs))
}

/** Of pauses that end after the kill and began before the shadow's end; undefined at the storm's ends. */
function longestPause(times: readonly number[], killedMs: number): number | undefined {
  const first = firstAfter(times, killedMs)
  if (first === 0 || first === times.length) return undefined
  let longest = 0
  for (let index = first; index < times.length; index++) {
    const before = times[index - 1]!
    if (before > killedMs + SHADOW_MS) break
    longest = Math.max(longest, times[index]! - before)
  }
  return longest
}

function firstAfter(times: readonly number[], timeMs: number): number {
  let [low, high] = [0, times.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (times[middle]! <= timeMs) low = middle + 1
    else high = middle
  }
  return low
}
