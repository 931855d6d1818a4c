/**
 * Going on over a new lane. Both ends destroyed their end of the old one before the new one was made, so what each has delivered is final
 * for the old one; each tells the other, on the new lane and before anything else of the flow:
 *
 *   one end                                    other end
 *   resume(ask, delivered, last frame) ─────►  gives its verdicts, sends again what must go again, then what waited
 *   ◄────────── resume(answer, delivered, …)   told before any data
 *
 * Both ask when the lane comes up; whichever word arrives first ends the wait, later ones only repeat it. A word travels on the lane that
 * it speaks of, so it cannot be taken for an answer about another.
 */
import { limits } from '../../protocol/limits.js'
import { counterIndex } from '../../protocol/node-file.js'
import { queuePairState, sendSlot } from '../../protocol/queue-pair-segment.js'
import { type Status, status } from '../../protocol/statuses.js'
import { resumeExtension } from '../../protocol/wire.js'
import { acceptByResume } from './connection.js'
import type { RouteNumbers } from './dispatch.js'
import type { Engine } from './engine.js'
import { settleFlow } from './finish.js'
import type { Flow } from './flow.js'
import { takeNews } from './heard-news.js'
import type { Lane } from './lane.js'
import { datagramFlow } from './paths.js'
import { type EngineQueuePair, flowKey } from './queue-pair.js'
import { requestStage, type SendRequest } from './request.js'
import { bindSuspended, forgetArriving, stopAsking } from './suspend.js'
import { decide, type Evidence, verdictWithoutReplay } from './verdicts.js'
import { endsQueuePair, endWithUnknown } from './waiting.js'

/** Writes what this end knows behind the route header at `offset`. */
export function writeResume(engine: Engine, lane: Lane, offset: number, flow: Flow): void {
  const predecessor = engine.suspensions.predecessorOf(lane.path)
  resumeExtension.write(lane.memory, lane.payloadOffset(offset), {
    ask: flow.telling === 'ask' ? 1 : 0,
    predecessor: predecessor?.shared ?? 0,
    lastReceived: (predecessor?.lastReceived ?? 0) >>> 0,
    anyDelivered: flow.inboundStarted ? 1 : 0,
  })
  flow.telling = 'none'
}

/** Lane of a request that will not leave again; lanes have other names. */
const NOWHERE = -1

export interface ResumeWord {
  readonly ask: boolean
  readonly receiveLimit: number
  readonly evidence: Evidence
}

export function readResume(lane: Lane, payload: number, delivered: number, receiveLimit: number): ResumeWord {
  const { ask, predecessor, lastReceived, anyDelivered } = resumeExtension.read(lane.memory, payload)
  return {
    ask: ask !== 0,
    receiveLimit,
    evidence: { delivered: anyDelivered === 0 ? null : delivered, predecessor, lastReceived: lastReceived | 0 },
  }
}

export function takeResume(engine: Engine, lane: Lane, from: RouteNumbers, word: ResumeWord): void {
  const queuePair = engine.queuePairs[from.destinationNumber]
  const known = queuePair?.generation === from.destinationGeneration && queuePair.job === lane.job
  const flow = known && !queuePair.ending ? endOf(engine, lane, queuePair, from, word) : null
  if (!flow) {
    engine.counters[counterIndex['stale-messages']]!++
    engine.answerStale(lane, from, 0, true)
    return
  }
  if (flow.suspended && flow.lane?.state !== 'up') bindSuspended(engine, lane, [flow])
  if (flow.connected && flow.lane !== lane) return
  if (flow.suspended) goOn(engine, flow, word)
  else hearAgain(engine, flow, word)
  if (!word.ask) return
  flow.telling = 'answer'
  engine.addControl(flow)
}

/** A word that this end did not wait for; what it tells is told nowhere else. */
function hearAgain(engine: Engine, flow: Flow, { ask, evidence, receiveLimit }: ResumeWord): void {
  takeNews(engine, flow, evidence.delivered ?? flow.delivered, receiveLimit)
  // A datagram flow that lost nothing here, and whose sender lost what was on its way.
  if (ask && !flow.connected) forgetArriving(flow)
}

/** This end's flow; null when it is not there (any more). */
function endOf(
  engine: Engine,
  lane: Lane,
  queuePair: EngineQueuePair,
  from: RouteNumbers,
  word: ResumeWord,
): Flow | null {
  const { sourceNumber: number, sourceGeneration: generation } = from
  if (!queuePair.connected) {
    if (number >= limits.queuePairs) return null
    const known = queuePair.flows.get(flowKey(lane.peer, number))
    return known?.remoteGeneration === generation
      ? known
      : datagramFlow(engine, queuePair, lane.peer, number, generation, lane)
  }
  const { flow } = queuePair
  if (flow?.peer !== lane.peer || flow.remoteNumber !== number || flow.remoteGeneration !== generation) return null
  // The peer had accepted our connect, and its word of that was lost with the lane.
  if (queuePair.state === queuePairState.connecting) return acceptByResume(engine, lane, queuePair, word.receiveLimit)
  return flow
}

/** The wait is over: verdicts, then what goes again, then what waited. */
export function goOn(engine: Engine, flow: Flow, { evidence, receiveLimit }: Omit<ResumeWord, 'ask'>): void {
  engine.suspensions.delete(flow)
  flow.suspended = false
  engine.counters[counterIndex['flows-resumed']]!++
  if (flow.lane) stopAsking(engine, flow.lane)
  flow.receiveLimit = receiveLimit
  if (evidence.delivered !== null) flow.learnDelivered(evidence.delivered)
  const left = takeLeft(flow)
  const ends = decideAll(engine, flow, left, evidence)
  putBack(flow, left)
  if (ends) endWithUnknown(engine, flow)
  settleFlow(engine, flow)
  engine.addControl(flow)
  if (flow.lane && (flow.acknowledgementDue || flow.limit !== flow.advertisedLimit)) flow.lane.addNews(flow)
  engine.wakeFlow(flow)
}

/** Everything that left, in posting order: in flight, and what was to go again when the lane was lost once more. */
function takeLeft(flow: Flow): SendRequest[] {
  const left: SendRequest[] = []
  for (let request = flow.inFlight.shift(); request; request = flow.inFlight.shift()) left.push(request)
  while (flow.waiting.head && (flow.waiting.head.exposed || flow.waiting.head.finished))
    left.push(flow.waiting.shift()!)
  return left
}

/**
 * Each request that left goes again or gets its verdict. A connected queue pair stops at its first unknown: what is in front of it is sent
 * again, what is behind it is not. True: the queue pair ends now.
 */
function decideAll(engine: Engine, flow: Flow, left: readonly SendRequest[], evidence: Evidence): boolean {
  let stopped = false
  for (const request of left) {
    if (!request.finished) {
      const asks = request.exposed && !isGivenUp(request)
      const decision = asks ? decide(request, evidence, flow.connected) : 'again'
      if (decision === 'success') finish(engine, request, status.success)
      else if (stopped)
        finish(engine, request, request.exposed ? verdictWithoutReplay(request, evidence) : status.flushed)
      else if (decision === 'unknown') finish(engine, request, status.unknown)
      else sendAgain(engine, request)
    }
    stopped ||= flow.connected && endsQueuePair(request)
  }
  // In front of it everything is settled: the queue pair ends now. Else when its turn comes (waiting.ts).
  const first = left.find((request) => !request.finished || endsQueuePair(request))
  return flow.connected && first?.finished === true
}

function sendAgain(engine: Engine, request: SendRequest): void {
  request.startAnew()
  if (request.exposed && request.refused !== 0) giveUp(request)
  engine.counters[counterIndex['requests-resent']]!++
}

/**
 * Its memory went with a process that died while there was no broker: when its turn comes it is refused. What is behind it may be delivered
 * before that is told, and a successor must not take that for a proof: the slot says that it was posted nowhere.
 */
function giveUp(request: SendRequest): void {
  const { queuePair, slot } = request
  request.incarnation = NOWHERE
  queuePair.memory.i32[queuePair.sendSlotWord(slot) + sendSlot.word.incarnation] = NOWHERE
}

const isGivenUp = ({ refused, incarnation }: SendRequest): boolean => refused !== 0 && incarnation === NOWHERE

function finish(engine: Engine, request: SendRequest, verdict: Status): void {
  if (verdict === status.unknown) engine.counters[counterIndex['verdicts-unknown']]!++
  request.stage = requestStage.finished
  request.status = verdict
}

/** Behind the first that goes again everything keeps its place, so that verdicts are told in posting order. */
function putBack(flow: Flow, left: readonly SendRequest[]): void {
  const first = left.findIndex((request) => !request.finished)
  const done = first < 0 ? left.length : first
  for (const request of left.slice(0, done)) flow.inFlight.push(request)
  for (const request of left.slice(done).reverse()) flow.waiting.unshift(request)
}
