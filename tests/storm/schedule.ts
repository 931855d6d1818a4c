/** The faults of a storm, all from its seed: what, when, whom. */
import { type NodeName, nodeNames } from './plan.js'
import { randomOf } from './random.js'

export type Fault =
  | { readonly atMs: number; readonly what: 'kill'; readonly node: NodeName; readonly seat: number }
  | {
      readonly atMs: number
      readonly what: 'stop'
      readonly node: NodeName
      readonly seat: number
      readonly forMs: number
    }
  | { readonly atMs: number; readonly what: 'broker'; readonly nodes: readonly NodeName[]; readonly pauseMs: number }
  | { readonly atMs: number; readonly what: 'cut'; readonly node: NodeName; readonly which: 'link' | 'lanes' | 'all' }

export interface ScheduleOptions {
  readonly seed: number
  readonly seconds: number
  readonly processes: number
  readonly kills: number
  readonly stops: number
  readonly brokerKills: number
  readonly linkCuts: number
}

/** A seat rests for so many kills after it was chosen, as long as there are others. */
const REST = 5
const BOTH = 0.25

export function scheduleOf(options: ScheduleOptions): Fault[] {
  const { seed, seconds, processes } = options
  const random = randomOf(seed)
  const timesOf = (count: number): number[] =>
    Array.from({ length: count }, (_, index) => ((index + random.part()) * seconds * 1000) / count)
  const nodeOf = (): NodeName => nodeNames[random.below(2)]!
  const recent: string[] = []
  const placeOf = (): { node: NodeName; seat: number } => {
    for (;;) {
      const place = { node: nodeOf(), seat: random.below(processes) }
      const name = `${place.node} ${place.seat}`
      if (recent.includes(name)) continue
      recent.push(name)
      if (recent.length > REST) recent.shift()
      return place
    }
  }
  const faults: Fault[] = timesOf(options.kills).map((atMs) => ({ atMs, what: 'kill', ...placeOf() }))
  for (const atMs of timesOf(options.stops)) {
    faults.push({ atMs, what: 'stop', node: nodeOf(), seat: random.below(processes), forMs: 20 + random.below(400) })
  }
  for (let killed = 0; killed < options.brokerKills; ) {
    const both = options.brokerKills - killed >= 2 && random.part() < BOTH
    const atMs = ((killed + random.part()) * seconds * 1000) / options.brokerKills
    faults.push({ atMs, what: 'broker', nodes: both ? nodeNames : [nodeOf()], pauseMs: random.below(200) })
    killed += both ? 2 : 1
  }
  for (const atMs of timesOf(options.linkCuts)) {
    faults.push({ atMs, what: 'cut', node: nodeOf(), which: (['link', 'lanes', 'all'] as const)[random.below(3)]! })
  }
  return faults.sort((one, other) => one.atMs - other.atMs)
}
