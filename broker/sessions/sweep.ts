/**
 * After the death of a member: no lock names it any more, nobody sleeps for a wake that died with it, and the slots it only claimed
 * are free. Death is what the kernel says (pidfd, or the liveness token is gone), never a closed socket. Every step may be repeated.
 */

import { SharedVerbsError } from '../../protocol/errors.js'
import { queuePairHeader } from '../../protocol/queue-pair-segment.js'
import { eventfdSignal } from '../../shm/libc.js'
import { ownerWord, type SweepResult, sweepLock } from '../../shm/robust-lock.js'
import type { Job } from './job.js'
import type { ObjectServices } from './object-services.js'
import type { QueuePair, QueuePairs } from './queue-pair.js'

const locks = [queuePairHeader.word.sendLock, queuePairHeader.word.receiveLock] as const

/** Nothing to repair: inside these locks everything is published by one final store, so an unfinished list was never posted. */
const repair = (): void => {}

/** A member of a job: a session of this broker, or what an earlier one left of it. */
export interface SweptMember {
  readonly member: number
  readonly generation: number
  readonly job: Job
}

export async function sweepMember(swept: SweptMember, queuePairs: QueuePairs, services: ObjectServices): Promise<void> {
  const { engine, observer } = services
  const { member, generation, job } = swept
  sweepLocks(job, member, queuePairs, services)
  // A ring that the dead one took for the others, and did not answer, is rung again.
  for (const other of job.sessions) eventfdSignal(other.doorbell)
  const { slotsSwept } = await engine.call('sweep-member', { job: job.number, member, generation })
  observer.count('slots-swept', slotsSwept)
}

/** Member 0 is the broker: locks that name an earlier one are its successor's to free, who holds its token. */
export function sweepLocks(job: Job, member: number, queuePairs: QueuePairs, services: ObjectServices): void {
  const broker = ownerWord(0, services.nodeFile.epoch)
  for (const queuePair of queuePairs.ofJob(job.number)) {
    if (queuePair.mapping.closed) continue
    for (const lock of locks) {
      const result = sweepLock(queuePair.mapping.words, lock, member, broker, repair)
      record(result, queuePair, services.observer)
    }
  }
}

function record(result: SweepResult, queuePair: QueuePair, observer: ObjectServices['observer']): void {
  if (result === 'repaired') observer.count('locks-reclaimed')
  if (result !== 'unstable') return
  // Only a hostile writer does this; it harms nobody but those who share this queue pair with it.
  const what = `queue pair ${queuePair.number}`
  observer.report(new SharedVerbsError('protocol-violation', `a lock word of ${what} does not come to rest`), what)
}
