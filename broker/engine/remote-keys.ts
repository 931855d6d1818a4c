/**
 * Resolving and revoking remote keys over a lane group.
 *
 *   user of a key                         owner
 *   resolve(key) ───────────────────────► looks it up, remembers who asked
 *   ◄──────────────── resolved(rights, device key)
 *   … writes and reads …
 *   ◄──────────────────────── revoke(key)   the region is being closed: no new use
 *   waits until its posted requests ended
 *   revokeAcknowledged(key) ─────────────► when everybody answered: deregister, pages may be unmapped
 *
 * All of it goes over the group's first lane that is up, so answers and revocations keep their order.
 */
import { keyGeneration, keySlot, packKey } from '../../protocol/keys.js'
import { counterIndex } from '../../protocol/node-file.js'
import { status } from '../../protocol/statuses.js'
import { keyExtension, messageType, resolvedExtension } from '../../protocol/wire.js'
import type { Memory } from '../../shm/memory.js'
import type { Engine } from './engine.js'
import type { Flow } from './flow.js'
import type { Lane, LooseMessage } from './lane.js'
import type { LaneGroup } from './lane-group.js'
import type { Region } from './region.js'
import type { SendRequest } from './request.js'

/** A message without queue pairs. */
function loose(type: number, payloadByteLength: number, write: (memory: Memory, offset: number) => void): LooseMessage {
  return {
    type,
    payloadByteLength,
    write,
    sequence: 0,
    immediate: 0,
    destinationNumber: 0,
    destinationGeneration: 0,
    sourceNumber: 0,
    sourceGeneration: 0,
  }
}

/** Tells whether a request may use its remote key now; on `ready` the request holds the region. */
export function useRemoteRegion(group: LaneGroup, request: SendRequest, right: number): 'ready' | 'wait' | 'refused' {
  const region = group.remoteRegion(request.remoteKey)
  if (region.state === 'resolving') return 'wait'
  if (region.state === 'revoked' || (region.rights & right) === 0) return 'refused'
  if (request.remoteOffset + request.byteLength > region.byteLength) return 'refused'
  request.remote = region
  return 'ready'
}

export function askForRegion(engine: Engine, lane: Lane, key: number): void {
  const region = lane.group.remoteRegion(key)
  if (region.carrier) return
  region.carrier = lane.group.up ?? lane
  engine.addLoose(region.carrier, aboutKey(messageType.resolve, key))
  engine.counters[counterIndex.resolves]!++
}

function aboutKey(type: number, key: number): LooseMessage {
  return loose(type, keyExtension.byteLength, (memory, offset) => keyExtension.write(memory, offset, { key }))
}

/** A request ended: its remote region is free of it; a waiting revocation may be acknowledged. */
export function releaseRemoteRegion(engine: Engine, request: SendRequest): void {
  const region = request.remote
  if (!region) return
  request.remote = null
  region.uses--
  const lane = request.flow?.lane
  if (lane && region.acknowledgementDue) acknowledgeRevocation(engine, lane.group, region.key)
}

/** On the lane that brought the revocation: if that lane is lost, the owner asks again on another. */
function acknowledgeRevocation(engine: Engine, group: LaneGroup, key: number): void {
  const region = group.remoteRegions.get(key)
  if (!region?.acknowledgementDue || region.uses > 0 || region.carrier?.state !== 'up') return
  group.forgetRegion(key)
  engine.addLoose(region.carrier, aboutKey(messageType.revokeAcknowledged, key))
}

/** The owner's answer to `resolve`. */
export function answerResolve(engine: Engine, lane: Lane, memory: Memory, payload: number): void {
  const { key } = keyExtension.read(memory, payload)
  const region = engine.regions.find(key, lane.job)
  const found = region?.registered ? region : null
  if (found) found.resolvers.set(lane.group, lane)
  const answer = {
    key,
    address: 0,
    byteLength: found?.byteLength ?? 0,
    deviceKey: found?.registered?.remoteKey ?? 0,
    rights: found?.rights ?? 0,
    status: found ? 0 : status.remoteAccessError,
  }
  engine.addLoose(
    lane,
    loose(messageType.resolved, resolvedExtension.byteLength, (target, offset) =>
      resolvedExtension.write(target, offset, answer),
    ),
  )
}

/** False: an answer that cannot be. */
export function takeResolved(engine: Engine, lane: Lane, memory: Memory, payload: number): boolean {
  const row = resolvedExtension.read(memory, payload)
  if (!Number.isSafeInteger(row.address) || !Number.isSafeInteger(row.byteLength)) return false
  if (row.address < 0 || row.byteLength < 0) return false
  const { group } = lane
  const region = group.remoteRegions.get(row.key)
  if (region?.state !== 'resolving') return true
  if (row.status === 0) {
    region.state = 'ready'
    region.carrier = null
    region.deviceKey = row.deviceKey
    region.address = row.address
    region.byteLength = row.byteLength
    region.rights = row.rights
  } else {
    // No negative entry stays: those who waited are refused, the next request asks again.
    group.forgetRegion(row.key)
    for (const flow of group.keyWaiters) refuseWaiter(engine, flow, row.key)
  }
  engine.wakeKeyWaiters(group)
  return true
}

function refuseWaiter(engine: Engine, flow: Flow, key: number): void {
  const request = flow.waiting.head
  if (flow.blocked !== 'key' || !request || request.remoteKey !== key) return
  request.refused = status.remoteAccessError
  engine.counters[counterIndex['containment-refusals']]!++
}

/** The owner closes a region: no new use from here on. */
export function takeRevoke(engine: Engine, lane: Lane, memory: Memory, payload: number): void {
  const { key } = keyExtension.read(memory, payload)
  engine.counters[counterIndex.revokes]!++
  const region = lane.group.remoteRegion(key)
  region.state = 'revoked'
  region.carrier = lane
  region.acknowledgementDue = true
  acknowledgeRevocation(engine, lane.group, key)
  engine.wakeKeyWaiters(lane.group)
}

export function takeRevokeAcknowledged(engine: Engine, lane: Lane, memory: Memory, payload: number): void {
  const { key } = keyExtension.read(memory, payload)
  const region = engine.regions.get(keySlot(key))
  if (region && !region.open && region.generation === keyGeneration(key) && region.job === lane.job) {
    region.forget(lane.group)
  }
}

/** Asks every peer that resolved the region to stop; a peer that lost its last lane was forgotten then. */
export function revokeEverywhere(engine: Engine, region: Region): void {
  for (const group of region.resolvers.keys()) revoke(engine, region, group)
}

/** On the lane that carried the answer, so that it cannot overtake it; if that is lost, on any. */
function revoke(engine: Engine, region: Region, group: LaneGroup): void {
  const told = region.resolvers.get(group)
  const lane = told?.state === 'up' ? told : group.up
  if (!lane) return
  region.resolvers.set(group, lane)
  engine.addLoose(lane, aboutKey(messageType.revoke, packKey(region.number, region.generation)))
}

/** A lane of the group was lost or came up: what was asked, answered or revoked on a lost one goes again on another. */
export function askAgain(engine: Engine, group: LaneGroup): void {
  for (const region of group.remoteRegions.values()) {
    if (region.state === 'resolving' && region.carrier?.state !== 'up') region.carrier = null
  }
  for (const region of engine.regions) {
    const lane = region.resolvers.get(group)
    if (lane && !region.open && lane.state !== 'up') revoke(engine, region, group)
  }
  engine.wakeKeyWaiters(group)
}

/** The last lane of a group is gone: what was cached or lent is void on both sides. */
export function dropGroup(engine: Engine, group: LaneGroup): void {
  group.forgetRegions()
  for (const region of engine.regions) region.forget(group)
  engine.wakeKeyWaiters(group)
}
