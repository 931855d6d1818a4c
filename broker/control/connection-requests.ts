import { type Handler, nothing } from './request-handler.js'

export const connectQueuePair: Handler<'connectQueuePair'> = async (plane, session, body) => {
  const { remote, timeoutMs, ...identity } = body
  return { result: { remote: await plane.connections.connect(session, identity, remote, timeoutMs) } }
}

export const disconnectQueuePair: Handler<'disconnectQueuePair'> = async (plane, session, body) => {
  const { timeoutMs, ...identity } = body
  await plane.connections.disconnect(session, identity, timeoutMs)
  return nothing
}

export const resolveNode: Handler<'resolveNode'> = async (plane, session, body) => ({
  result: { nodeIndex: await plane.connections.resolveNode(session, body.node, body.timeoutMs) },
})
