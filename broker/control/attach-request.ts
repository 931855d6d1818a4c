/** The first request of every session: who are you, and do we speak the same language? */

import { brokerPageGeometry } from '../../protocol/broker-page.js'
import type { CheckedBody } from '../../protocol/control.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import { abiVersion, clientFingerprint } from '../../protocol/version.js'
import type { SeqpacketConnection } from '../../shm/seqpacket.js'
import { activityByteLength } from '../sessions/job.js'
import type { Session } from '../sessions/session.js'
import { draining } from '../sessions/sessions.js'
import type { ControlPlane } from './control-plane.js'
import type { Answer } from './request-handler.js'

export interface Attached {
  readonly session: Session
  readonly answer: Answer<'attach'>
}

export async function attach(
  plane: ControlPlane,
  connection: SeqpacketConnection,
  body: CheckedBody<'attach'>,
): Promise<Attached> {
  checkLanguage(body)
  if (plane.draining) throw draining('attach')
  const identity = { userId: connection.peer.uid, name: body.job }
  const isNew = plane.jobs.find(identity) === undefined
  const job = await plane.jobs.join(identity, body.jobKey)
  const session = await plane.sessions.attach(job, body.name, connection)
  plane.observer.log.debug({ member: session.member, job: job.name, pid: session.peer.pid }, 'attached')
  if (isNew) plane.observer.note('job-begun', `job ${job.name} of user ${job.userId}`)
  plane.sharing.jobAppeared(job)
  return { session, answer: answerOf(plane, session) }
}

/** Nothing else of the message is looked at before these agree. */
export function checkLanguage(body: { readonly abiVersion: number; readonly fingerprint: number }): void {
  if (body.abiVersion === abiVersion && body.fingerprint === clientFingerprint) return
  const theirs = `${body.abiVersion}/${body.fingerprint.toString(16)}`
  const ours = `${abiVersion}/${clientFingerprint.toString(16)}`
  throw new SharedVerbsError(
    'abi-mismatch',
    `the client was built for ABI ${theirs}, this broker for ${ours}; install the same version on both sides`,
    { client: theirs, broker: ours },
  )
}

function answerOf(plane: ControlPlane, session: Session): Answer<'attach'> {
  const { page, doorbell, nodeFile, settings, ready } = plane
  const result = {
    member: session.member,
    memberGeneration: session.generation,
    node: settings.node,
    epoch: nodeFile.epoch,
    brokerProcessId: process.pid,
    brokerPageByteLength: brokerPageGeometry.byteLength,
    activityByteLength,
    provider: ready.provider,
  }
  const { job } = session
  const descriptors = (): readonly number[] | undefined =>
    session.served ? [page.mapping.fd, job.activity.fd, job.livenessDescriptor, session.doorbell, doorbell] : undefined
  return { result, descriptors }
}
