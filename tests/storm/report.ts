/** What is asked of a storm, and how it is told. */
import type { Tally } from './judge.js'

export interface StormOptions {
  readonly seconds: number
  readonly kills: number
  readonly stops: number
  readonly brokerKills: number
  readonly linkCuts: number
  /** On each node. */
  readonly processes: number
  /** Requests a second of each process. */
  readonly rate: number
  readonly seed: number
  /** Journals and logs of a storm that failed stay. */
  readonly keep: boolean
}

export interface Progress {
  say(text: string): void
}

export interface StormResult extends Tally {
  readonly kills: number
  readonly stops: number
  readonly brokerKills: number
  readonly linkCuts: number
  readonly stuck: number
  readonly leakedSegments: number
  readonly leakedDescriptors: number
  /** Median over the kills. */
  readonly longestSurvivorPauseMs: number
  readonly longestSurvivorPauseMaxMs: number
  /** As the median, where nobody was killed. */
  readonly ordinaryPauseMs: number
  readonly trouble: string[]
  readonly events: readonly (readonly [string, number])[]
  readonly secondsTaken: number
  readonly seed: number
}

const FAULTS = [
  'lost',
  'duplicated',
  'reordered',
  'corrupted',
  'wrongVerdicts',
  'stuck',
  'leakedSegments',
  'leakedDescriptors',
] as const

export const isFaultless = (result: StormResult): boolean =>
  FAULTS.every((name) => result[name] === 0) && result.trouble.length === 0

/** One line of JSON, the names that scripts look for first. */
export function jsonOf(result: StormResult): string {
  const { kills, brokerKills, linkCuts, messages, lost, duplicated, reordered, corrupted, wrongVerdicts } = result
  const { unknownVerdicts, stuck, leakedSegments, leakedDescriptors, longestSurvivorPauseMs, seed } = result
  const { longestSurvivorPauseMaxMs, ordinaryPauseMs, stops, unrecorded, refused, secondsTaken, trouble, notes } =
    result
  return JSON.stringify({
    ...{
      kills,
      brokerKills,
      linkCuts,
      messages,
      lost,
      duplicated,
      reordered,
      corrupted,
      wrongVerdicts,
      unknownVerdicts,
    },
    ...{
      stuck,
      leakedSegments,
      leakedDescriptors,
      longestSurvivorPauseMs,
      seed,
      longestSurvivorPauseMaxMs,
      ordinaryPauseMs,
      stops,
    },
    ...{ unrecorded, refused, secondsTaken, ...(isFaultless(result) ? {} : { trouble, notes }) },
  })
}

const WIDTH = 79

export function tableOf(result: StormResult): string {
  const row = (name: string, value: number | string, note = ''): string =>
    `  ${name.padEnd(26)}${String(value).padStart(10)}  ${note}`.trimEnd().slice(0, WIDTH)
  const lines = [
    `storm  seed ${result.seed}  ${result.secondsTaken} s`,
    row('processes killed', result.kills),
    row('processes stopped', result.stops, 'for a while, then continued'),
    row('brokers killed', result.brokerKills),
    row('links cut', result.linkCuts),
    row('messages', result.messages, 'all opcodes, each judged'),
    row('unknown verdicts', result.unknownVerdicts, 'writes and adds by datagram only'),
    row('unrecorded', result.unrecorded, 'polled by a process that was killed right then'),
    row('refused', result.refused, 'memory of the poster died with it'),
    row('survivors pause, median', result.longestSurvivorPauseMs, 'ms, over the kills'),
    row('pause without a kill', result.ordinaryPauseMs, 'ms, what the machine does to everybody'),
    row('survivors pause, longest', result.longestSurvivorPauseMaxMs, 'ms'),
    ...FAULTS.map((name) => row(name, result[name], result[name] === 0 ? '' : 'FAULT')),
    ...[...result.trouble, ...result.notes].slice(0, 5).map((text) => `  ${text}`.slice(0, WIDTH)),
    isFaultless(result) ? 'nothing lost, nothing wrong' : `failed; again with --seed ${result.seed}`,
  ]
  return lines.join('\n')
}
