import type { CompletionQueue } from '../sessions/completion-queue.js'
import { type Answer, type Handler, nothing, segmentOf } from './request-handler.js'

const grant = (queue: CompletionQueue): Answer<'createCompletionQueue'> & Answer<'openCompletionQueue'> => ({
  result: {
    number: queue.number,
    generation: queue.generation,
    capacity: queue.capacity,
    byteLength: queue.mapping.byteLength,
  },
  descriptors: segmentOf(queue),
})

export const createCompletionQueue: Handler<'createCompletionQueue'> = async (plane, session, body) =>
  grant(await plane.completionQueues.create(session, body))

export const openCompletionQueue: Handler<'openCompletionQueue'> = (plane, session, body) =>
  grant(plane.completionQueues.open(session, body))

export const closeCompletionQueue: Handler<'closeCompletionQueue'> = async (plane, session, body) => {
  await plane.completionQueues.close(session, body)
  return nothing
}
