/** What a lane has to send, in the order that keeps promises: control, messages, bulk, then news that nothing of these carried. */
import { postBulk } from './bulk.js'
import { sendAcknowledgements, sendControl, sendMarker } from './control.js'
import type { Engine } from './engine.js'
import type { Lane } from './lane.js'
import { sendFlows } from './transmit.js'

/** News that waited this many messages are told without waiting for an idle turn. */
const NEWS_LIMIT = 128
/** News that waited this many turns for a message to ride on are told although others keep the engine busy. */
const NEWS_TURNS = 8
/** After so many writes without a frame behind them one is sent, so that few stay unproven when the lane is lost. */
const MARKER_WRITES = 64
const MARKER_BYTES = 1 << 20

/** Posts what goes now; how much was done. `idle`: nothing else has been going on for some turns. */
export function pumpLane(engine: Engine, lane: Lane, idle: boolean): number {
  let work = sendControl(engine, lane)
  if (lane.state === 'up') {
    // A notice that found no frame last time goes before flows take them all again.
    if (lane.noticeStarved) work += postBulk(engine, lane)
    work += sendFlows(engine, lane)
    lane.crowded = lane.hasScheduled
    work += postBulk(engine, lane)
  }
  if (lane.hasNews && (idle || lane.newsMessages >= NEWS_LIMIT || ++lane.newsAge >= NEWS_TURNS)) {
    work += sendAcknowledgements(engine, lane)
  }
  if (lane.unprovenWrites >= MARKER_WRITES || lane.unprovenByteLength >= MARKER_BYTES) work += sendMarker(lane)
  if (lane.unreported >= lane.bounceCount >> 1 || (idle && lane.consumedNews > 0)) work += lane.reportConsumed()
  lane.closeFrame()
  engine.flushLane(lane)
  return work
}
