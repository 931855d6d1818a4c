/**
 * What it means for a flow that its other end will not come back, or that it cannot wait. Our end is fenced before this runs, so nothing of
 * it can arrive or leave any more, and each request's verdict can be told:
 *
 *   waiting, announced, told "no receive", large send without its notice     flushed: the peer cannot have received it
 *   read                                                                     flushed: it changes nothing at the peer
 *   the rest of what left                                                    unknown
 *
 * A connected queue pair goes down with its only flow. A datagram queue pair goes on: receives that messages of the lost flow had begun to
 * fill are posted again, in their old places.
 */
import { counterIndex } from '../../protocol/node-file.js'
import { opcode } from '../../protocol/opcodes.js'
import { type Status, status } from '../../protocol/statuses.js'
import type { Engine } from './engine.js'
import { completeReceive, settleFlow } from './finish.js'
import type { Flow } from './flow.js'
import { flowKey } from './queue-pair.js'
import { releaseRemoteRegion } from './remote-keys.js'
import { type ReceiveRequest, receiveStage, requestStage, type SendRequest } from './request.js'
import { stopAsking } from './suspend.js'
import { mayHaveEffect } from './verdicts.js'

export function loseFlow(engine: Engine, flow: Flow, node: string, reason: string): void {
  const { queuePair, lane } = flow
  if (flow.dead) return
  flow.dead = true
  engine.suspensions.delete(flow)
  flow.suspended = false
  if (lane) {
    lane.flows.delete(flow)
    stopAsking(engine, lane)
  }
  giveVerdicts(engine, flow)
  if (queuePair.connected) {
    engine.failQueuePair(queuePair, status.retryExceeded, `the path to ${node} was lost: ${reason}`, false)
  } else {
    engine.flushWaiting(flow)
    returnReceives(engine, flow)
    queuePair.flows.delete(flowKey(flow.peer, flow.remoteNumber))
    queuePair.parkedFlows.delete(flow)
  }
  engine.touchEnding(queuePair)
}

function giveVerdicts(engine: Engine, flow: Flow): void {
  // The last segment of a message that is still in the waiting line did not leave.
  const leaving = flow.waiting.head
  if (leaving && leaving.moved > 0) {
    flow.waiting.shift()
    flow.inFlight.push(leaving)
  }
  for (let request = flow.inFlight.head; request; request = request.next) {
    if (request.remote) releaseRemoteRegion(engine, request)
    // Chunks of a fenced queue pair touch nothing any more, whatever becomes of their completions.
    request.chunksOutstanding = 0
    if (request.finished) continue
    request.status = verdictOf(request)
    if (request.status === status.unknown) engine.counters[counterIndex['verdicts-unknown']]!++
    request.stage = requestStage.finished
  }
  flow.moving = null
  settleFlow(engine, flow)
}

function verdictOf(request: SendRequest): Status {
  const { stage } = request
  const { waiting, announced, moving, again } = requestStage
  if (request.opcode === opcode.read || !request.exposed) return status.flushed
  if (stage === waiting || stage === announced || stage === again) {
    return mayHaveEffect(request) ? status.unknown : status.flushed
  }
  return stage === moving && request.opcode <= opcode.sendWithImmediate ? status.flushed : status.unknown
}

/** Messages that arrived whole are told; receives that got a part of one wait for the next message, ahead of later receives. */
function returnReceives(engine: Engine, flow: Flow): void {
  const partial: ReceiveRequest[] = []
  for (let receive = flow.inbound.shift(); receive; receive = flow.inbound.shift()) {
    if (receive.stage === receiveStage.finished) completeReceive(engine, receive, flow)
    else partial.push(receive)
  }
  flow.assembling = null
  flow.grantsDue.length = 0
  flow.queuePair.returnReceives(partial, false)
}
