/** Scatter/gather entries as clients wrote them: read once, checked against the tables, kept as regions. */
import { limits } from '../../protocol/limits.js'
import { operationSgeCount } from '../../protocol/opcodes.js'
import { entryWord, receiveSlot, scatterGatherEntry } from '../../protocol/queue-pair-segment.js'
import { type Status, status } from '../../protocol/statuses.js'
import { regionRight } from '../../protocol/wire.js'
import type { Engine } from './engine.js'
import type { EngineQueuePair } from './queue-pair.js'
import { within } from './region.js'
import type { ReceiveRequest, ScatterGather } from './request.js'

/**
 * Checks each entry against the tables; entries of length 0 are left out, as devices may stumble over them. `first` and `further`: where the
 * slot has them, in 32-bit words. `written`: the request writes into the entries.
 */
export function copyEntries(
  engine: Engine,
  queuePair: EngineQueuePair,
  list: ScatterGather,
  first: number,
  further: number,
  entries: number,
  written: boolean,
): Status {
  const { u32, f64 } = queuePair.memory
  for (let index = 0; index < entries; index++) {
    const at = entryWord(first, further, index)
    const byteLength = u32[at + scatterGatherEntry.word.byteLength]!
    if (byteLength === 0) continue
    const offset = u32[at + scatterGatherEntry.word.offset]!
    const region = engine.regions.find(f64[(at + scatterGatherEntry.word.key) >>> 1]!, queuePair.job)
    if (!region || !within(region, offset, byteLength)) return status.localProtectionError
    if (written && (region.rights & regionRight.localWrite) === 0) return status.localProtectionError
    list.add(region, offset, byteLength)
  }
  return 0
}

/** The oldest posted receive, copied and checked; null when none is posted. A region closed since it was posted is refused like any other. */
export function takeReceive(engine: Engine, queuePair: EngineQueuePair): ReceiveRequest | null {
  const slot = queuePair.receives.shift()
  if (slot < 0) return null
  const receive = queuePair.receiveRequest(slot)
  const { word } = receive
  const { operation, firstEntry, furtherEntries } = receiveSlot.word
  const entries = operationSgeCount(queuePair.memory.i32[word + operation]!)
  receive.entries = entries
  receive.refused =
    entries > limits.scatterGatherEntries
      ? status.localQueuePairError
      : copyEntries(engine, queuePair, receive.local, word + firstEntry, word + furtherEntries, entries, true)
  return receive
}
