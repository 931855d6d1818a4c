/** Who uses how much: sessions, queue pairs and bytes, by job and by user. A charge is whole or refused, with numbers. */
import { SharedVerbsError } from '../../protocol/errors.js'
import type { BrokerLimits } from '../control/limits.js'

export interface Charge {
  readonly sessions?: number
  readonly queuePairs?: number
  readonly bytes?: number
}

/** Who is charged. */
export interface Account {
  readonly job: number
  readonly userId: number
}

type Resource = keyof Charge
type Used = Record<Resource, number>

const resources: readonly Resource[] = ['sessions', 'queuePairs', 'bytes']
const words: Readonly<Record<Resource, string>> = {
  sessions: 'sessions',
  queuePairs: 'queue pairs',
  bytes: 'registered bytes',
}

export class Accounts {
  readonly #limits: BrokerLimits
  readonly #jobs = new Map<number, Used>()
  readonly #users = new Map<number, Used>()

  constructor(limits: BrokerLimits) {
    this.#limits = limits
  }

  /** Throws `limit-exceeded` and then nothing is charged. */
  charge(account: Account, charge: Charge): void {
    for (const resource of resources) {
      const asked = charge[resource] ?? 0
      if (asked === 0) continue
      check(resource, asked, used(this.#jobs, account.job)[resource], this.#maximum(resource, 'Job'), 'job')
      check(resource, asked, used(this.#users, account.userId)[resource], this.#maximum(resource, 'User'), 'user')
    }
    this.#add(account, charge, 1)
  }

  refund(account: Account, charge: Charge): void {
    this.#add(account, charge, -1)
  }

  #add(account: Account, charge: Charge, sign: number): void {
    const job = used(this.#jobs, account.job)
    const user = used(this.#users, account.userId)
    for (const resource of resources) {
      job[resource] += sign * (charge[resource] ?? 0)
      user[resource] += sign * (charge[resource] ?? 0)
    }
    forgetIfNothing(this.#jobs, account.job)
    forgetIfNothing(this.#users, account.userId)
  }

  #maximum(resource: Resource, whose: 'Job' | 'User'): number {
    if (resource === 'sessions') return this.#limits[`sessionsPer${whose}`]
    if (resource === 'queuePairs') return this.#limits[`queuePairsPer${whose}`]
    return this.#limits[`registeredBytesPer${whose}`]
  }
}

function used(all: Map<number, Used>, key: number): Used {
  const found = all.get(key) ?? { sessions: 0, queuePairs: 0, bytes: 0 }
  all.set(key, found)
  return found
}

function forgetIfNothing(all: Map<number, Used>, key: number): void {
  const found = all.get(key)
  if (found && resources.every((resource) => found[resource] === 0)) all.delete(key)
}

function check(resource: Resource, asked: number, before: number, maximum: number, whose: string): void {
  if (before + asked <= maximum) return
  throw new SharedVerbsError(
    'limit-exceeded',
    `${asked} more ${words[resource]} asked for, the ${whose} has ${before} of at most ${maximum}; ` +
      `close some or raise the broker's limit`,
    { resource, asked, used: before, maximum, whose },
  )
}
