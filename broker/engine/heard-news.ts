/** What the peer tells of the reverse direction, with its messages or in rows of their own. */
import { acknowledgementRow } from '../../protocol/wire.js'
import type { Engine } from './engine.js'
import { settleFlow } from './finish.js'
import type { Flow } from './flow.js'
import type { Lane } from './lane.js'
import { flowKey } from './queue-pair.js'

/** Delivery and credit of the reverse direction; absolute numbers, so old ones do nothing. */
export function takeNews(engine: Engine, flow: Flow, delivered: number, receiveLimit: number): void {
  if (flow.connected && ((receiveLimit - flow.receiveLimit) | 0) > 0) {
    flow.receiveLimit = receiveLimit
    if (flow.blocked === 'credit') engine.wakeFlow(flow)
  }
  // A peer that received nothing yet tells 0, which near a wrap would look like a delivery.
  if (delivered === 0 && !flow.deliveryTold) return
  if (flow.learnDelivered(delivered)) settleFlow(engine, flow)
}

export function takeAcknowledgements(engine: Engine, lane: Lane, payload: number, payloadByteLength: number): boolean {
  const { u32 } = lane.memory
  for (
    let at = payload;
    at + acknowledgementRow.byteLength <= payload + payloadByteLength;
    at += acknowledgementRow.byteLength
  ) {
    const word = at >>> 2
    const queuePair = engine.queuePairs[u32[word + acknowledgementRow.word.destinationNumber]!]
    if (queuePair === undefined || queuePair.generation !== u32[word + acknowledgementRow.word.destinationGeneration]!)
      continue
    if (queuePair.job !== lane.job) continue
    const number = u32[word + acknowledgementRow.word.sourceNumber]!
    const generation = u32[word + acknowledgementRow.word.sourceGeneration]!
    const flow = queuePair.connected ? queuePair.flow : (queuePair.flows.get(flowKey(lane.peer, number)) ?? null)
    if (
      !flow ||
      flow.lane === null ||
      flow.peer !== lane.peer ||
      flow.remoteNumber !== number ||
      flow.remoteGeneration !== generation
    )
      continue
    takeNews(
      engine,
      flow,
      u32[word + acknowledgementRow.word.delivered]! | 0,
      u32[word + acknowledgementRow.word.receiveLimit]! | 0,
    )
  }
  return true
}
