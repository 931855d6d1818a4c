import { type Handler, nothing } from './request-handler.js'

export const listen: Handler<'listen'> = (plane, session, body) => {
  plane.services.listen(session, body.service, body.backlog)
  return nothing
}

export const unlisten: Handler<'unlisten'> = (plane, session, body) => {
  plane.services.unlisten(session, body.service)
  return nothing
}

export const acceptConnection: Handler<'acceptConnection'> = async (plane, session, body) => {
  const { connection, ...identity } = body
  return { result: { remote: await plane.connections.accept(session, connection, identity) } }
}

export const rejectConnection: Handler<'rejectConnection'> = async (plane, session, body) => {
  await plane.connections.reject(session, body.connection)
  return nothing
}
