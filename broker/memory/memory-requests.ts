import { type Answer, type Handler, nothing, segmentOf } from '../control/request-handler.js'
import { identityOfKey, type Region } from './region.js'

const grant = (region: Region): Answer<'registerMemory'> & Answer<'openMemory'> => ({
  result: {
    key: region.key,
    byteLength: region.byteLength,
    mappedByteLength: region.mapping.byteLength,
    rights: region.rights,
  },
  descriptors: segmentOf(region),
})

export const registerMemory: Handler<'registerMemory'> = async (plane, session, body) =>
  grant(await plane.regions.create(session, body.byteLength, body.rights))

export const openMemory: Handler<'openMemory'> = (plane, session, body) =>
  grant(plane.regions.open(session, identityOfKey(body.key)))

export const closeMemory: Handler<'closeMemory'> = async (plane, session, body) => {
  await plane.regions.close(session, identityOfKey(body.key))
  return nothing
}
