import type { QueuePair } from '../sessions/queue-pair.js'
import { type Answer, type Handler, nothing, segmentOf } from './request-handler.js'

const grant = (queuePair: QueuePair): Answer<'createQueuePair'> & Answer<'openQueuePair'> => ({
  result: {
    number: queuePair.number,
    generation: queuePair.generation,
    type: queuePair.type,
    sendSlots: queuePair.geometry.sendSlots,
    receiveSlots: queuePair.geometry.receiveSlots,
    inlineByteLength: queuePair.geometry.inlineByteLength,
    byteLength: queuePair.mapping.byteLength,
    sendCompletionQueue: queuePair.sendQueue.number,
    receiveCompletionQueue: queuePair.receiveQueue.number,
  },
  descriptors: segmentOf(queuePair),
})

export const createQueuePair: Handler<'createQueuePair'> = async (plane, session, body) =>
  grant(await plane.queuePairs.create(session, body))

/** Generation 0 asks for whatever lives under the number: a poller of a shared queue knows no more. */
export const openQueuePair: Handler<'openQueuePair'> = (plane, session, body) =>
  grant(plane.queuePairs.open(session, body, true))

export const closeQueuePair: Handler<'closeQueuePair'> = async (plane, session, body) => {
  await plane.queuePairs.close(session, body)
  return nothing
}
