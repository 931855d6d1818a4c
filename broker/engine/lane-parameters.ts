import { limits } from '../../protocol/limits.js'
import type { LaneParameters } from '../../protocol/link.js'
import type { Device } from '../provider/provider.js'
import type { EngineOptions } from './commands.js'

/** Frames stand one behind another in memory and tell their length in 16 bits; acknowledgements need a credit of their own. */
export function wrongLaneParameters(parameters: LaneParameters): string | null {
  const { bounceByteLength, bounceCount } = parameters
  if (bounceByteLength < 256 || bounceByteLength > 65_528 || bounceByteLength % 8 !== 0) {
    return `bounce buffers of ${bounceByteLength} bytes: 256 to 65528 and a multiple of 8 are possible`
  }
  return bounceCount < 4 ? `${bounceCount} bounce buffers: at least 4 are needed` : null
}

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
