/**
 * A sender and a receiver that go on whatever happens: they attach and connect again after each failure. Every message has the number of
 * its connection and its place in it, so that one lost, doubled, torn or swapped is found; every request's verdict is counted.
 *
 *   for each connection:  success ≤ received ≤ success + uncertain
 */
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export const DEPTH = 8
export const MESSAGE_BYTES_MAX = 64 * 1024
/** Within a bounce buffer, and by a granted write. */
export const LENGTHS = [64, 3000, 40_000] as const
export const JOB = { job: 'traffic', jobKey: 'known to the traffic only' } as const

/** What became of the requests of one connection. */
export interface Tally {
  success: number
  /** Certainly not executed. */
  flushed: number
  /** May or may not have been executed. */
  uncertain: number
  /** The broker was lost before it said. */
  withoutVerdict: number
}

export interface TrafficReport {
  /** By number of the connection; of a sender. */
  readonly tallies: Readonly<Record<string, Tally>>
  /** Messages by number of the connection; of a receiver. */
  readonly received: Readonly<Record<string, number>>
  /** What must not happen. */
  readonly failures: readonly string[]
  /** Events of its sessions by kind, refused calls by code, verdicts by name. */
  readonly events: Readonly<Record<string, number>>
  readonly refusals: Readonly<Record<string, number>>
  readonly verdicts: Readonly<Record<string, number>>
}

export type TrafficOrder = 'report' | 'stop'

const fileOf = (role: 'sender' | 'receiver'): string => fileURLToPath(new URL(`./traffic-${role}.js`, import.meta.url))
const ANSWER_MS = 60_000

export class TrafficProcess {
  readonly child: ChildProcess
  #answers: ((report: TrafficReport) => void)[] = []

  constructor(role: 'sender' | 'receiver', runtimeDirectory: string, service: string, node = '') {
    this.child = fork(fileOf(role), [runtimeDirectory, service, node])
    this.child.on('message', (report: TrafficReport) => {
      for (const answer of this.#answers.splice(0)) answer(report)
    })
  }

  report(): Promise<TrafficReport> {
    return this.#order('report')
  }

  /** What is under way gets its verdict first. */
  stop(): Promise<TrafficReport> {
    return this.#order('stop')
  }

  #order(order: TrafficOrder): Promise<TrafficReport> {
    return new Promise((resolve, reject) => {
      const bark = setTimeout(
        () => reject(new Error(`no answer to '${order}' from ${this.child.spawnargs[1]}`)),
        ANSWER_MS,
      )
      this.#answers.push((report) => {
        clearTimeout(bark)
        resolve(report)
      })
      this.child.send(order satisfies TrafficOrder, () => {})
    })
  }

  /** Gone when this settles. */
  kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return Promise.resolve()
    return new Promise((resolve) => {
      this.child.once('exit', () => resolve())
      this.child.kill('SIGKILL')
    })
  }
}

export const successes = ({ tallies }: TrafficReport): number =>
  Object.values(tallies).reduce((sum, { success }) => sum + success, 0)

/** What the two ends say about each connection must fit together, unless the receiver was killed and forgot. */
export function contradictions(sent: TrafficReport, received: TrafficReport): string[] {
  const found = [...sent.failures, ...received.failures]
  for (const [connection, { success, uncertain, withoutVerdict }] of Object.entries(sent.tallies)) {
    const count = received.received[connection] ?? 0
    if (count < success || count > success + uncertain + withoutVerdict) {
      found.push(`connection ${connection}: ${success} succeeded, ${uncertain} uncertain, ${count} received`)
    }
  }
  return found
}
