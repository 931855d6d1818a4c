/** A job that an earlier broker of this node left, until its sessions are back or known not to come. */
import type { ProcessWatch } from '../../shm/liveness.js'
import type { Job, JobIdentity } from './job.js'

/**
 * missing: awaited. back: its session is here and presents what it has. done: it has presented everything, or ended again.
 * dead: the kernel says so. resting: it lives, and came too late or had left before; its number rests until it is dead.
 */
export type LeftMemberState = 'missing' | 'back' | 'done' | 'dead' | 'resting'

export interface LeftMember {
  readonly row: number
  readonly generation: number
  state: LeftMemberState
  watch: ProcessWatch | null
}

export class LeftJob implements JobIdentity {
  readonly number: number
  readonly userId: number
  readonly name: string
  readonly members = new Map<number, LeftMember>()
  /** Settles when the job goes on, or is given up. */
  readonly settled: Promise<void>
  /** Made anew by the first session that comes back. */
  job: Job | null = null
  reviving: Promise<Job> | null = null
  /** Presentations under way. */
  readonly work = new Set<Promise<unknown>>()
  lifting: Promise<void> | null = null
  settle: () => void = () => {}

  constructor(number: number, identity: JobIdentity) {
    this.number = number
    this.userId = identity.userId
    this.name = identity.name
    this.settled = new Promise((resolve) => {
      this.settle = resolve
    })
  }

  in(...states: readonly LeftMemberState[]): LeftMember[] {
    return [...this.members.values()].filter(({ state }) => states.includes(state))
  }
}
