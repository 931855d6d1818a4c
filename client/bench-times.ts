/** Times of single things. Recording allocates nothing. */
import { build, type Histogram } from 'hdr-histogram-js'
import type { BenchTimes } from '../protocol/bench.js'

/** Recorded in nanoseconds, up to a minute, three digits exact. */
const LONGEST_NS = 60e9
const NS_IN: Readonly<Record<BenchTimes['unit'], number>> = { ns: 1, us: 1e3, ms: 1e6 }

export class Times {
  readonly #histogram: Histogram = build({
    bitBucketSize: 32,
    highestTrackableValue: LONGEST_NS,
    numberOfSignificantValueDigits: 3,
  })

  recordMs(durationMs: number): void {
    this.#histogram.recordValue(Math.min(LONGEST_NS, Math.max(1, Math.round(durationMs * 1e6))))
  }

  result(unit: BenchTimes['unit']): BenchTimes {
    const histogram = this.#histogram
    const samples = histogram.totalCount
    const scaled = (ns: number): number => (samples === 0 ? 0 : Math.round((ns / NS_IN[unit]) * 1000) / 1000)
    return {
      samples,
      unit,
      minimum: scaled(histogram.minNonZeroValue),
      p50: scaled(histogram.getValueAtPercentile(50)),
      p99: scaled(histogram.getValueAtPercentile(99)),
      p999: scaled(histogram.getValueAtPercentile(99.9)),
      maximum: scaled(histogram.maxValue),
    }
  }
}
