/** All requests of attached sessions, each with the function that answers it. */
import { closeMemory, openMemory, registerMemory } from '../memory/memory-requests.js'
import { closeCompletionQueue, createCompletionQueue, openCompletionQueue } from './completion-queue-requests.js'
import { connectQueuePair, disconnectQueuePair, resolveNode } from './connection-requests.js'
import { closeQueuePair, createQueuePair, openQueuePair } from './queue-pair-requests.js'
import { present, reattached } from './reattach-requests.js'
import { type Handlers, nothing, type SessionRequestName } from './request-handler.js'
import { acceptConnection, listen, rejectConnection, unlisten } from './service-requests.js'

export const handlers: Handlers = {
  detach: async (plane, session) => {
    await plane.sessions.leave(session, true)
    return nothing
  },
  present: (plane, session, body, [descriptor = -1]) => present(plane, session, body, descriptor),
  reattached: (plane, session) => reattached(plane, session),
  createCompletionQueue,
  openCompletionQueue,
  closeCompletionQueue,
  createQueuePair,
  openQueuePair,
  closeQueuePair,
  connectQueuePair,
  disconnectQueuePair,
  resolveNode,
  registerMemory,
  openMemory,
  closeMemory,
  listen,
  unlisten,
  acceptConnection,
  rejectConnection,
}

/** What a session does before its job goes on; everything else waits. */
export const servedBeforeResumption: ReadonlySet<SessionRequestName> = new Set<SessionRequestName>([
  'present',
  'reattached',
])

/** What a draining broker still does: end things, and let others share what there is. */
export const servedWhileDraining: ReadonlySet<SessionRequestName> = new Set<SessionRequestName>([
  'detach',
  'closeCompletionQueue',
  'closeQueuePair',
  'closeMemory',
  'openCompletionQueue',
  'openQueuePair',
  'openMemory',
  'disconnectQueuePair',
  'rejectConnection',
  'unlisten',
])
