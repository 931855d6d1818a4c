/**
 * What a lost lane means for the flows that were on it: they wait. Our end is fenced before this runs, so nothing of them can arrive or
 * leave any more. What arrived in part is forgotten, its receives are posted again in their places; what left keeps its place, unanswered,
 * until the other end has said what was delivered (resume.ts) or is known not to come back (lane-loss.ts).
 *
 * Flows that cannot go on do not wait: those that were connecting or going down.
 */
import { counterIndex } from '../../protocol/node-file.js'
import { abandonConnect } from './connection.js'
import type { Engine } from './engine.js'
import type { Flow } from './flow.js'
import type { Lane } from './lane.js'
import { loseFlow } from './lane-loss.js'
import { datagramPath } from './lane-path.js'
import { releaseRemoteRegion } from './remote-keys.js'
import type { ReceiveRequest } from './request.js'

export function suspendFlow(engine: Engine, lane: Lane, flow: Flow, reason: string): void {
  const { queuePair } = flow
  if (engine.connects.has(queuePair)) {
    abandonConnect(engine, queuePair, 'path-lost', `the path to ${lane.peerNode} was lost: ${reason}`)
    return
  }
  if (queuePair.ending) {
    loseFlow(engine, flow, lane.peerNode, reason)
    return
  }
  stopSending(engine, flow)
  flow.retellFailures()
  forgetArriving(flow)
  flow.leaveLane()
  beginSuspension(engine, flow)
}

/** The flow waits for a lane of its path; a connected one must know its path. */
export function beginSuspension(engine: Engine, flow: Flow): void {
  if (!flow.suspended) engine.counters[counterIndex['flows-suspended']]!++
  flow.suspended = true
  engine.suspensions.add(flow, flow.path ?? datagramPath(flow.queuePair.job, flow.peer))
}

/** Chunks of a fenced queue pair touch nothing any more, whatever becomes of their completions. */
function stopSending(engine: Engine, flow: Flow): void {
  for (let request = flow.inFlight.head; request; request = request.next) {
    if (request.remote) releaseRemoteRegion(engine, request)
    request.chunksOutstanding = 0
  }
  // The first segments of a message that found no frame for the rest.
  const leaving = flow.waiting.head
  if (leaving && leaving.moved > 0) leaving.rewind()
  flow.forgetOutbound()
}

/** What was matched and not told will come again: its receives wait for it as before. */
export function forgetArriving(flow: Flow): void {
  const matched: ReceiveRequest[] = []
  for (let receive = flow.inbound.shift(); receive; receive = flow.inbound.shift()) matched.push(receive)
  flow.queuePair.returnReceives(matched, true)
  flow.forgetInbound()
}

/** A lane of their path is up: the other end is asked what it knows; each flow goes on when it has answered. */
export function bindSuspended(engine: Engine, lane: Lane, flows: readonly Flow[]): void {
  for (const flow of flows) {
    // Bound already; lists of a living lane hold it.
    if (flow.lane?.state === 'up') continue
    flow.leaveLane()
    flow.lane = lane
    lane.flows.add(flow)
    flow.beginCredit()
    flow.telling = 'ask'
    engine.addControl(flow)
  }
  if (flows.length > 0) askAgainLater(engine, lane)
}

/** As long as no answer comes: the other end may know the queue pair only later, when its process has come back. */
const ASK_AGAIN_MS = 500

function askAgainLater(engine: Engine, lane: Lane): void {
  lane.asking ??= engine.timers.after(engine.nowMs, ASK_AGAIN_MS, () => {
    lane.asking = null
    if (lane.state !== 'up') return
    const unanswered = suspendedOn(lane)
    for (const flow of unanswered) {
      flow.telling = 'ask'
      engine.addControl(flow)
    }
    if (unanswered.length > 0) askAgainLater(engine, lane)
  })
}

export function stopAsking(engine: Engine, lane: Lane): void {
  if (!lane.asking || suspendedOn(lane).length > 0) return
  engine.timers.cancel(lane.asking)
  lane.asking = null
}

const suspendedOn = (lane: Lane): Flow[] => [...lane.flows].filter((flow) => flow.suspended)
