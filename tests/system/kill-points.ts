/** Named steps of a client at which it can be made to end itself, or to stop: the methods that do the step are wrapped. */
import { writeSync } from 'node:fs'
import { ArmedBit } from '../../client/arming.js'
import { Attachment } from '../../client/attachment.js'
import { CompletionQueue } from '../../client/completion-queue.js'
import { ControlClient } from '../../client/control-client.js'
import { Poster } from '../../client/posting.js'
import { RobustLock } from '../../shm/robust-lock.js'
import { SharedWords } from '../../shm/words.js'

export const postingPoints = ['claim, body', 'body, lock', 'lock, tail', 'tail, unlock', 'unlock, mark'] as const
export const pollingPoints = ['read, claim', 'claim, head'] as const
export const waitingPoints = ['arm, sleep'] as const
/** Between request and reply. */
export const requestPoints = ['attach', 'registerMemory', 'openQueuePair', 'closeQueuePair', 'detach'] as const
export const killPoints = [...postingPoints, ...pollingPoints, ...waitingPoints, ...requestPoints] as const
export type KillPoint = (typeof killPoints)[number]

type Method = (...given: unknown[]) => unknown
type Methods = Record<string, Method>

let armed = false

/** From now on the next time counts. */
export function arm(): void {
  armed = true
}

/** Says when, and never returns from a SIGKILL. */
function reach(signal: NodeJS.Signals): void {
  if (!armed) return
  armed = false
  writeSync(1, `reached ${Number(process.hrtime.bigint()) / 1e6}\n`)
  process.kill(process.pid, signal)
}

/** `around` gets the method as it was. */
function wrap(
  type: { readonly prototype: object },
  name: string,
  around: (real: () => unknown, given: unknown[]) => unknown,
): void {
  const methods = type.prototype as Methods
  const real = methods[name]!
  methods[name] = function wrapped(this: unknown, ...given: unknown[]): unknown {
    return around(() => real.apply(this, given), given)
  }
}

const before = (type: { readonly prototype: object }, name: string, signal: NodeJS.Signals): void =>
  wrap(type, name, (real) => {
    reach(signal)
    return real()
  })

const after = (type: { readonly prototype: object }, name: string, signal: NodeJS.Signals): void =>
  wrap(type, name, (real) => {
    const result = real()
    reach(signal)
    return result
  })

export function setKillPoint(point: KillPoint, signal: NodeJS.Signals): void {
  if (point === 'claim, body') after(Poster, 'claim', signal)
  else if (point === 'body, lock') before(RobustLock, 'acquire', signal)
  else if (point === 'lock, tail') after(RobustLock, 'acquire', signal)
  else if (point === 'tail, unlock') before(RobustLock, 'release', signal)
  else if (point === 'unlock, mark') before(Attachment, 'notify', signal)
  else if (point === 'arm, sleep') after(ArmedBit, 'set', signal)
  else if (point === 'read, claim' || point === 'claim, head') setPollingPoint(point, signal)
  else setRequestPoint(point, signal)
}

/** The first exchange of a poll is the claim of a completion. */
function setPollingPoint(point: 'read, claim' | 'claim, head', signal: NodeJS.Signals): void {
  let polling = false
  wrap(CompletionQueue, 'pollInto', (real) => {
    polling = true
    try {
      return real()
    } finally {
      polling = false
    }
  })
  wrap(SharedWords, 'compareExchange', (real, [, expected]) => {
    if (polling && point === 'read, claim') reach(signal)
    const found = real()
    if (polling && point === 'claim, head' && found === expected) reach(signal)
    return found
  })
}

function setRequestPoint(point: (typeof requestPoints)[number], signal: NodeJS.Signals): void {
  wrap(ControlClient, 'request', (real, [name]) => {
    const reply = real()
    if (name === point) reach(signal)
    return reply
  })
}
