/** Refusals of control calls before the library is asked, and translations of what it is asked for. */
import { memlockLimit } from '../../shm/libc.js'
import type { DeviceCapabilities, Done, MemoryRights, ProviderFailure, QueuePairLimits } from './provider.js'
import { ibvConstants as ibv } from './verbs-abi.js'

export function refuse<Result>(done: Done<Result>, code: ProviderFailure['code'], message: string): void {
  done({ code, message: `${code}: ${message}` }, null)
}

export function refuseUnknown<Result>(done: Done<Result>, what: string, handle: number): void {
  refuse(done, 'invalid', `there is no ${what} ${handle}`)
}

export function accessOf(rights: MemoryRights): number {
  return (
    (rights.localWrite ? ibv.IBV_ACCESS_LOCAL_WRITE : 0) |
    (rights.remoteRead ? ibv.IBV_ACCESS_REMOTE_READ : 0) |
    (rights.remoteWrite ? ibv.IBV_ACCESS_REMOTE_WRITE : 0)
  )
}

export function memlockHint(byteLength: number): string {
  const limit = memlockLimit()
  return Number.isFinite(limit) ? `this process may lock ${limit} bytes (ulimit -l) and ${byteLength} are needed` : ''
}

export function isCount(value: number, most: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= most
}

/** Which wish goes beyond the device, or null. */
export function excessOf(limits: QueuePairLimits, most: DeviceCapabilities): string | null {
  if (!isCount(limits.sendDepth, most.maxSendDepth)) return `send depth ${limits.sendDepth}`
  if (!isCount(limits.receiveDepth, most.maxReceiveDepth)) return `receive depth ${limits.receiveDepth}`
  if (!isCount(limits.scatterGather, most.maxScatterGather)) return `${limits.scatterGather} scatter/gather entries`
  if (limits.inlineByteLength === 0 || isCount(limits.inlineByteLength, most.maxInlineByteLength)) return null
  return `${limits.inlineByteLength} inline bytes`
}
