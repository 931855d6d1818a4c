/**
 * After the death of a member: no lock names it any more, nobody sleeps for a wake that died with it, and the slots it only claimed
 * are free. Death is what the kernel says (pidfd, or the liveness token is gone), never a closed socket. Every step may be repeated.
 */

import { SharedVerbsError } from '../../protocol/errors.js'
import { queuePairHeader } from '../../protocol/queue-pair-segment.js'
import { eventfdSignal } from '../../shm/libc.js'
import { ownerWord, type SweepResult, sweepLock } from '../../shm/robust-lock.js'
import type { ObjectServices } from './object-services.js'
import type { QueuePair, QueuePairs } from './queue-pair.js'
import type { Session } from './session.js'

const locks = [queuePairHeader.word.sendLock, queuePairHeader.word.receiveLock] as const

/** Nothing to repair: inside these locks everything is published by one final store, so an unfinished list was never posted. */
const repair = (): void => {}

export async function sweepMember(session: Session, queuePairs: QueuePairs, services: ObjectServices): Promise<void> {
  const { engine, observer, nodeFile } = services
  const broker = ownerWord(0, nodeFile.epoch)
  for (const queuePair of queuePairs.ofJob(session.job.number)) {
    if (queuePair.mapping.closed) continue
    for (const lock of locks) {
      const result = sweepLock(queuePair.mapping.words, lock, session.member, broker, repair)
      record(result, queuePair, observer)
    }
  }
  // A ring that the dead one took for the others, and did not answer, is rung again.
  for (const other of session.job.sessions) eventfdSignal(other.doorbell)
  const { slotsSwept } = await engine.call('sweep-member', {
    job: session.job.number,
    member: session.member,
    generation: session.generation,
  })
  observer.count('slots-swept', slotsSwept)
}

function record(result: SweepResult, queuePair: QueuePair, observer: ObjectServices['observer']): void {
  if (result === 'repaired') observer.count('locks-reclaimed')
  if (result !== 'unstable') return
  // Only a hostile writer does this; it harms nobody but those who share this queue pair with it.
  const what = `queue pair ${queuePair.number}`
  observer.report(new SharedVerbsError('protocol-violation', `a lock word of ${what} does not come to rest`), what)
}
