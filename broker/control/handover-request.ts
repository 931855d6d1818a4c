/** An operator asks this broker to hand over to the one that stands by. */
import type { CheckedBody } from '../../protocol/control.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import type { SeqpacketConnection } from '../../shm/seqpacket.js'
import type { ControlPlane } from './control-plane.js'
import type { Answer } from './request-handler.js'

/** Whoever could stop this broker by a signal may ask. Answered when everything is quiet and before the connection ends. */
export async function handover(
  plane: ControlPlane,
  { peer }: SeqpacketConnection,
  { timeoutMs }: CheckedBody<'handover'>,
): Promise<Answer<'handover'>> {
  if (peer.uid !== 0 && peer.uid !== process.getuid?.()) {
    throw new SharedVerbsError('access-denied', `user ${peer.uid} may not end this broker; ask its own user`)
  }
  await plane.handover(timeoutMs)
  return { result: { epoch: plane.nodeFile.epoch, processId: process.pid } }
}
