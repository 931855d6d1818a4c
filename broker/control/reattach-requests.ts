/** How a session that lost its broker goes on with this one: who it is, what it holds, and that this was all. */
import { brokerPageGeometry } from '../../protocol/broker-page.js'
import type { CheckedBody } from '../../protocol/control.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import { closeDescriptor } from '../../shm/libc.js'
import type { SeqpacketConnection } from '../../shm/seqpacket.js'
import type { Session } from '../sessions/session.js'
import { draining } from '../sessions/sessions.js'
import type { ObjectIdentity } from '../sessions/shared-object.js'
import { checkLanguage } from './attach-request.js'
import type { ControlPlane } from './control-plane.js'
import { type Answer, nothing } from './request-handler.js'

export interface Reattached {
  readonly session: Session
  readonly answer: Answer<'reattach'>
}

/** `descriptors` are this function's in any case. */
export async function reattach(
  plane: ControlPlane,
  connection: SeqpacketConnection,
  body: CheckedBody<'reattach'>,
  descriptors: readonly number[],
): Promise<Reattached> {
  const { page, doorbell, nodeFile, settings, ready, restart } = plane
  checkLanguage(body)
  if (plane.draining) throw draining('reattach')
  if (body.node !== settings.node || body.epoch >= nodeFile.epoch) {
    const message = `the session was of node ${body.node}, epoch ${body.epoch}; this is ${settings.node}, epoch ${nodeFile.epoch}`
    throw new SharedVerbsError('stale-handle', message, { node: settings.node, epoch: nodeFile.epoch })
  }
  const session = await restart.reattach(body, connection, descriptors)
  plane.observer.log.debug({ member: session.member, job: session.job.name, pid: session.peer.pid }, 'reattached')
  const result = {
    epoch: nodeFile.epoch,
    brokerProcessId: process.pid,
    brokerPageByteLength: brokerPageGeometry.byteLength,
    provider: ready.provider,
  }
  const given = (): readonly number[] | undefined => (session.served ? [page.mapping.fd, doorbell] : undefined)
  return { session, answer: { result, descriptors: given } }
}

/** `descriptor` is this function's in any case. */
export async function present(
  plane: ControlPlane,
  session: Session,
  body: CheckedBody<'present'>,
  descriptor: number,
): Promise<Answer<'present'>> {
  const registries = {
    'completion-queue': plane.completionQueues,
    'memory-region': plane.regions,
    'queue-pair': plane.queuePairs,
  }
  let taken = false
  const show = (): Promise<unknown> => {
    taken = true
    return registries[body.kind].present(session, body, descriptor)
  }
  try {
    await plane.restart.presenting(session, show)
  } catch (error) {
    if (!taken) closeDescriptor(descriptor)
    throw error
  }
  return body.kind === 'queue-pair' ? { result: { remote: remoteOf(plane, body) } } : nothing
}

function remoteOf({ queuePairs, nodeFile }: ControlPlane, identity: ObjectIdentity) {
  const connection = queuePairs.connectionOf(identity)
  if (!connection) return undefined
  const { node } = nodeFile.peers.read(connection.peer)
  return { node, number: connection.number, generation: connection.generation }
}

export async function reattached(plane: ControlPlane, session: Session): Promise<Answer<'reattached'>> {
  await plane.restart.reattached(session)
  return nothing
}
