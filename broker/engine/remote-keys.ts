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
  if (region.state === 'unknown') {
    // No negative entry stays: the next request asks again.
    group.remoteRegions.delete(region.key)
    return 'refused'
  }
  if (region.state === 'revoked' || (region.rights & right) === 0) return 'refused'
  if (request.remoteOffset + request.byteLength > region.byteLength) return 'refused'
  request.remote = region
  return 'ready'
}

export function askForRegion(engine: Engine, lane: Lane, key: number): void {
  const region = lane.group.remoteRegion(key)
  if (region.asked) return
  const carrier = lane.group.up ?? lane
  region.asked = carrier.addLoose(
    loose(messageType.resolve, keyExtension.byteLength, (memory, offset) =>
      keyExtension.write(memory, offset, { key }),
    ),
  )
  engine.counters[counterIndex.resolves]!++
  engine.markBusy(carrier)
}

/** A request ended: its remote region is free of it; a waiting revocation may be acknowledged. */
export function releaseRemoteRegion(engine: Engine, request: SendRequest): void {
  const region = request.remote
  if (!region) return
  request.remote = null
  region.uses--
  const lane = request.flow?.lane
  if (lane) acknowledgeRevocation(engine, lane.group, region.key)
}

function acknowledgeRevocation(engine: Engine, group: LaneGroup, key: number): void {
  const region = group.remoteRegions.get(key)
  const lane = group.up
  if (!region?.acknowledgementDue || region.uses > 0 || !lane) return
  group.remoteRegions.delete(key)
  lane.addLoose(
    loose(messageType.revokeAcknowledged, keyExtension.byteLength, (memory, offset) =>
      keyExtension.write(memory, offset, { key }),
    ),
  )
  engine.markBusy(lane)
}

/** The owner's answer to `resolve`. */
export function answerResolve(engine: Engine, lane: Lane, memory: Memory, payload: number): void {
  const { key } = keyExtension.read(memory, payload)
  const region = engine.regions.find(key, lane.job)
  const found = region?.registered ? region : null
  if (found) found.resolvers.add(lane.group)
  const answer = {
    key,
    address: 0,
    byteLength: found?.byteLength ?? 0,
    deviceKey: found?.registered?.remoteKey ?? 0,
    rights: found?.rights ?? 0,
    status: found ? 0 : status.remoteAccessError,
  }
  const told = lane.addLoose(
    loose(messageType.resolved, resolvedExtension.byteLength, (target, offset) =>
      resolvedExtension.write(target, offset, answer),
    ),
  )
  if (!told) engine.failLane(lane, 'the peer asks for more keys than can be answered')
}

export function takeResolved(engine: Engine, lane: Lane, memory: Memory, payload: number): void {
  const row = resolvedExtension.read(memory, payload)
  const region = lane.group.remoteRegions.get(row.key)
  if (region?.state !== 'resolving') return
  region.state = row.status === 0 ? 'ready' : 'unknown'
  region.deviceKey = row.deviceKey
  region.address = row.address
  region.byteLength = row.byteLength
  region.rights = row.rights
  engine.wakeKeyWaiters(lane.group)
}

/** The owner closes a region: no new use from here on. */
export function takeRevoke(engine: Engine, lane: Lane, memory: Memory, payload: number): void {
  const { key } = keyExtension.read(memory, payload)
  engine.counters[counterIndex.revokes]!++
  const region = lane.group.remoteRegion(key)
  region.state = 'revoked'
  region.acknowledgementDue = true
  acknowledgeRevocation(engine, lane.group, key)
  engine.wakeKeyWaiters(lane.group)
}

export function takeRevokeAcknowledged(engine: Engine, lane: Lane, memory: Memory, payload: number): void {
  const { key } = keyExtension.read(memory, payload)
  const region = engine.regions.get(keySlot(key))
  if (region && region.generation === keyGeneration(key) && region.job === lane.job) region.forget(lane.group)
}

/** Asks every peer that resolved the region to stop; peers without a lane cannot reach it any more. */
export function revokeEverywhere(engine: Engine, region: Region): void {
  const key = packKey(region.number, region.generation)
  for (const group of [...region.resolvers]) {
    const lane = group.up
    if (
      lane?.addLoose(
        loose(messageType.revoke, keyExtension.byteLength, (memory, offset) =>
          keyExtension.write(memory, offset, { key }),
        ),
      )
    ) {
      engine.markBusy(lane)
    } else {
      region.resolvers.delete(group)
    }
  }
}

/** The last lane of a group is gone: what was cached or lent is void on both sides. */
export function dropGroup(engine: Engine, group: LaneGroup): void {
  group.remoteRegions.clear()
  for (const region of engine.regions) region.forget(group)
  engine.wakeKeyWaiters(group)
}
