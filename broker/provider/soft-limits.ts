/** What a soft device offers, and whether what somebody asks of it is within that. */
import type { DeviceCapabilities, QueuePairAddress, QueuePairAttributes, QueuePairLimits } from './provider.js'
import { isToken } from './soft-hello.js'
import { COPY_BYTES_MAX } from './soft-requester.js'
import { MESSAGE_BYTES_MAX, SEGMENT_BYTES } from './soft-wire.js'

/** The pieces of one message must fit into a plan. */
const SCATTER_GATHER_MAX = 64

const defaultLimits: DeviceCapabilities = {
  maxSendDepth: 4096,
  maxReceiveDepth: 16_384,
  maxScatterGather: 4,
  maxInlineByteLength: 64,
  maxCompletionQueueDepth: 65_536,
  maxMessageByteLength: MESSAGE_BYTES_MAX,
  maxReadsInitiated: 16,
  maxReadsAccepted: 16,
  preferredChunkByteLength: SEGMENT_BYTES,
}

/** Wishes that this implementation can keep. */
export function boundedLimits(wishes: Partial<DeviceCapabilities>): DeviceCapabilities {
  const wished = { ...defaultLimits, ...wishes }
  return {
    ...wished,
    maxInlineByteLength: Math.min(wished.maxInlineByteLength, COPY_BYTES_MAX),
    maxMessageByteLength: Math.min(wished.maxMessageByteLength, MESSAGE_BYTES_MAX),
    maxScatterGather: Math.min(wished.maxScatterGather, SCATTER_GATHER_MAX),
  }
}

export function isCount(value: number, most: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= most
}

function isIndex(value: number, most: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= most
}

/** Which wish goes beyond the device, or null. */
export function excessOf(limits: QueuePairLimits, most: DeviceCapabilities): string | null {
  if (!isCount(limits.sendDepth, most.maxSendDepth)) return `send depth ${limits.sendDepth}`
  if (!isCount(limits.receiveDepth, most.maxReceiveDepth)) return `receive depth ${limits.receiveDepth}`
  if (!isCount(limits.scatterGather, most.maxScatterGather)) return `${limits.scatterGather} scatter/gather entries`
  if (isIndex(limits.inlineByteLength, most.maxInlineByteLength)) return null
  return `${limits.inlineByteLength} inline bytes`
}

export function attributesProblem(attributes: QueuePairAttributes, most: DeviceCapabilities): string | null {
  const { readsInitiated, readsAccepted, timeoutExponent, retryCount, rnrRetryCount, rnrTimerMs } = attributes
  if (!isIndex(readsInitiated, most.maxReadsInitiated)) return `${readsInitiated} reads initiated`
  if (!isIndex(readsAccepted, most.maxReadsAccepted)) return `${readsAccepted} reads accepted`
  if (!isIndex(timeoutExponent, 31)) return `timeout exponent ${timeoutExponent}`
  if (!isIndex(retryCount, 6)) return `retry count ${retryCount}`
  if (!isIndex(rnrRetryCount, 7)) return `RNR retry count ${rnrRetryCount}`
  return rnrTimerMs >= 0 && rnrTimerMs <= 1000 ? null : `RNR timer of ${rnrTimerMs} ms`
}

export function addressProblem(remote: QueuePairAddress, local: QueuePairAddress): string | null {
  const { host, port, token } = remote.path
  if (!isIndex(remote.number, 0xffffff) || !isIndex(remote.packetSequence, 0xffffff)) return 'number out of range'
  if (typeof host !== 'string' || !/^\d{1,3}(\.\d{1,3}){3}$/.test(host)) return `host '${host}' is no IPv4 address`
  if (host.split('.').some((part) => Number(part) > 255)) return `host '${host}' is no IPv4 address`
  if (typeof port !== 'number' || !isCount(port, 65_535)) return `port ${port}`
  if (!isToken(token)) return 'its token is not 32 hexadecimal digits'
  return token === local.path.token ? 'it cannot be connected to itself' : null
}
