/** What a run of the benchmark is told, and what it found. */
import type { BenchWait } from '../../../protocol/bench.js'

export const testNames = [
  'latency',
  'rate',
  'bandwidth',
  'atomics',
  'pairs',
  'pairs-latency',
  'mix',
  'post-poll',
  'attach',
  'connect',
  'idle',
] as const
export type TestName = (typeof testNames)[number]

export interface BenchSettings {
  readonly tests: readonly TestName[]
  /** Bytes of messages; empty: what each test has by itself. */
  readonly sizes: readonly number[]
  /** Numbers of pairs of processes in the tests of many pairs. */
  readonly pairs: readonly number[]
  readonly isLocal: boolean
  readonly wait: BenchWait
  readonly inline: boolean
  /** Of each measurement, without its warm-up. */
  readonly durationMs: number
  /** Outstanding requests of rates. */
  readonly depth: number
  readonly bulkByteLength: number
  readonly idleSessions: number
  readonly idle: 'adaptive' | 'spin' | 'block'
  readonly provider: 'soft' | 'verbs' | 'auto'
  /** Every process of a node on one core of its own. */
  readonly isPinned: boolean
  /** A computing process on each core. */
  readonly isLoaded: boolean
  /** Of two brokers that run already. */
  readonly runtimeDirectories: readonly [string, string] | undefined
  /** The directory with the logs stays. */
  readonly keep: boolean
}

/** What a test finds: what was done, and numbers by name, whose unit comes last. */
export interface MeasuredRow {
  readonly test: TestName
  readonly work: string
  readonly bytes: number
  readonly pairs: number
  readonly place: 'remote' | 'local'
  readonly values: Readonly<Record<string, number>>
  /** Of all cores, used by others while it was measured. */
  readonly foreignCpuPercent: number
}

/** One result. */
export interface BenchRow extends MeasuredRow {
  /** How far apart cores 0 and 1 were before or after, whichever is more, in nanoseconds; null: one core, or others had them. */
  readonly coresNsApart: number | null
}

export interface BenchResult {
  readonly machine: { readonly cores: number; readonly processor: string; readonly node: string; readonly load: number }
  readonly settings: BenchSettings
  readonly rows: readonly BenchRow[]
  readonly seconds: number
  /** Where everything was kept, with --keep. */
  readonly directory: string | null
}
