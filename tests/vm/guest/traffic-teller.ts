/** What a process of the traffic has seen, and how it tells its parent. */
import { SharedVerbsError } from '../../../client/index.js'
import type { TrafficOrder, TrafficReport } from './traffic.js'

export class TrafficTeller implements TrafficReport {
  readonly tallies: Record<string, { success: number; flushed: number; uncertain: number; withoutVerdict: number }> = {}
  readonly received: Record<string, number> = {}
  readonly failures: string[] = []
  readonly events: Record<string, number> = {}
  readonly refusals: Record<string, number> = {}
  readonly verdicts: Record<string, number> = {}
  isStopping = false

  constructor() {
    process.on('message', (order: TrafficOrder) => {
      if (order === 'report') process.send?.(this)
      else this.isStopping = true
    })
    // Whoever lost its parent has nobody to tell.
    process.on('disconnect', () => process.exit())
  }

  count(of: 'events' | 'refusals' | 'verdicts', name: string): void {
    this[of][name] = (this[of][name] ?? 0) + 1
  }

  /** A call that was refused, which may happen at any time; anything else is a mistake of ours. */
  refused(error: unknown): void {
    if (error instanceof SharedVerbsError) this.count('refusals', error.code)
    else this.failures.push(error instanceof Error ? (error.stack ?? error.message) : String(error))
  }

  end(): void {
    process.send?.(this, () => process.exit())
  }
}
