/** What measurements work with. */
import type { BenchLinkPlan } from '../../../protocol/bench.js'
import type { BenchBroker } from './brokers.js'
import type { Crew } from './crew.js'
import type { Foreign } from './foreign.js'
import type { BenchSettings, MeasuredRow, TestName } from './settings.js'

export interface Stage {
  readonly settings: BenchSettings
  readonly brokers: readonly [BenchBroker, BenchBroker]
  readonly crew: Crew
  readonly foreign: Foreign
  /** Kinds of work that ran before, as `isNewWork` keeps them. */
  readonly works: Set<string>
}

/** Whether such work of so many pairs never ran on this stage, so that some process is new to it; from then on it did. */
export function isNewWork({ works }: Stage, test: TestName, work: string, pairs: number): boolean {
  const before = works.size
  return works.add(`${test} ${work} ${pairs}`).size > before
}

export type Rows = AsyncGenerator<MeasuredRow, void, undefined>

export const placeOf = ({ settings }: Stage): 'local' | 'remote' => (settings.isLocal ? 'local' : 'remote')

/** Memory of a message queue: fewer pieces when they are large, but some, unless they are very large. */
const MESSAGE_BYTES = 64 * 2 ** 20
const LEAST_SLOTS = 4
const MOST_BYTES = 2 ** 30
const LEAST_DEPTH = 64

/** A queue pair, and pieces of memory for as many messages as can be outstanding. */
export function linkPlan({ settings }: Stage, byteLength: number, most = settings.depth): BenchLinkPlan {
  const least = Math.max(1, Math.min(LEAST_SLOTS, Math.floor(MOST_BYTES / byteLength)))
  const slots = Math.min(most, Math.max(least, Math.floor(MESSAGE_BYTES / byteLength)))
  const { wait, inline } = settings
  return { wait, inline, slots, byteLength, depth: Math.max(LEAST_DEPTH, slots) }
}

export function rowOf(
  stage: Stage,
  test: TestName,
  what: { readonly work: string; readonly bytes: number; readonly pairs?: number },
  values: MeasuredRow['values'],
): MeasuredRow {
  const { work, bytes, pairs = 1 } = what
  return { test, work, bytes, pairs, place: placeOf(stage), values, foreignCpuPercent: stage.foreign.percent() }
}
