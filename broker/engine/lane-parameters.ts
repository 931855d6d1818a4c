import type { LaneParameters } from '../../protocol/link.js'
import { limits } from '../../protocol/limits.js'
import type { Device } from '../provider/provider.js'
import type { EngineOptions } from './commands.js'

/** What this node offers for its lanes; the peer's offer may lower it. */
export function defaultLaneParameters(device: Device, options: EngineOptions): LaneParameters {
  const { capabilities } = device
  return {
    providerKind: device.kind,
    readsInitiated: capabilities.maxReadsInitiated,
    readsAccepted: capabilities.maxReadsAccepted,
    bounceByteLength: options.bounceByteLength,
    bounceCount: options.bounceCount,
    chunkByteLength: Math.min(capabilities.preferredChunkByteLength, capabilities.maxMessageByteLength),
    mtu: device.port().mtu,
    trafficClass: 0,
    atomicWindow: limits.atomicWindow,
    maxMessageByteLength: limits.messageByteLength,
  }
}
