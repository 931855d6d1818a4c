/**
 * The engine: tables of everything it serves and the turn of its duty cycle. Each agent returns how much it did; nothing here waits,
 * logs, or allocates for a message.
 *
 *   drain rings → same-node copies → send on lanes → move the provider → completions and frames → publish completions → wake clients
 *
 * Flows, lanes and closures put themselves on lists when they have something to do, so what is idle costs nothing.
 */

import { counterIndex, counterNames, nodeFileGeometry } from '../../protocol/node-file.js'
import { activityQueuePair, queuePairHeader } from '../../protocol/queue-pair-segment.js'
import { type Status, status } from '../../protocol/statuses.js'
import { connectByService, messageType, rejectReason } from '../../protocol/wire.js'
import { anyActive, collectActive } from '../../shm/activity.js'
import { clock, eventfdSignal } from '../../shm/libc.js'
import type { Mapping } from '../../shm/mapping.js'
import { CompletionBatch, type Device } from '../provider/provider.js'
import { advanceClosure, beginFailure, flushWaiting } from './closure.js'
import type { AdoptedQueuePair, EngineEventName, EngineEvents, EngineOptions } from './commands.js'
import type { Completer, EngineCompletionQueue } from './completion-queue.js'
import { type PendingAccept, type PendingConnect, sendReject } from './connection.js'
import { hasControl } from './control.js'
import { drainReceives, visitSends } from './drain.js'
import { isTwoSided, rememberFailure } from './finish.js'
import type { Flow } from './flow.js'
import type { Lane, LooseMessage } from './lane.js'
import type { LaneGroup } from './lane-group.js'
import { datagramPath, pathKey } from './lane-path.js'
import { breakLane, type CompletionPool, takeCompletions } from './lanes.js'
import { pumpLocal } from './local.js'
import { pumpLane } from './pump-lane.js'
import type { EngineQueuePair } from './queue-pair.js'
import { RegionTable } from './region.js'
import { askAgain } from './remote-keys.js'
import { requestStage, type SendRequest } from './request.js'
import { bindSuspended } from './suspend.js'
import { Suspensions } from './suspensions.js'
import { Timers } from './timers.js'

const DRAIN_BUDGET = 256
const POLL_BATCH = 256
const COMPLETIONS = counterIndex.completions
const WANT_ROOM = queuePairHeader.word.wantRoom
/** Turns without work after which news are told: an answer that could have carried them would have come by then. */
const QUIET_TURNS = 6
/** Turns without work after which the core was given to others once. */
const AGAIN_TURNS = 2
/** Messages of a turn up to which it is no stream: streams go best in long turns. */
const FEW = 32

export interface EngineJob {
  readonly number: number
  readonly activity: Mapping
  readonly domain: { handle: number }
  readonly members: Map<number, number>
}

export interface EnginePorts {
  /** Tells the control plane; cold path only. */
  emit<Name extends EngineEventName>(name: Name, body: EngineEvents[Name]): void
}

export class Engine {
  readonly options: EngineOptions
  readonly device: Device
  readonly ports: EnginePorts
  readonly nodeFile: Mapping
  /** Counters and tables of the node file as 8-byte columns. */
  readonly rows: Float64Array
  readonly counters: Float64Array

  readonly jobs = new Map<number, EngineJob>()
  /** Eventfds of members by row, to wake them. */
  readonly doorbells: number[] = []
  readonly memberJobs: number[] = []
  readonly regions = new RegionTable()
  readonly queuePairs: (EngineQueuePair | undefined)[] = []
  readonly completionQueues: (EngineCompletionQueue | undefined)[] = []
  readonly lanes: (Lane | undefined)[] = []
  readonly groups = new Map<number, LaneGroup>()
  readonly datagramPaths = new Map<number, Lane | null>()
  /** Where datagrams went before their lane was lost: requests wait there instead of failing. */
  readonly lostDatagramPaths = new Set<number>()
  /** Flows that wait for a lane. */
  readonly suspensions = new Suspensions()
  /** Queue pairs of a predecessor that are not in order yet: nothing of them is touched. */
  readonly adopted = new Map<EngineQueuePair, AdoptedQueuePair>()
  readonly pools: CompletionPool[] = []

  readonly connects = new Map<EngineQueuePair, PendingConnect>()
  readonly accepts = new Map<number, PendingAccept>()
  readonly closures = new Set<EngineQueuePair>()
  readonly timers = new Timers()
  /** Lanes with bounce buffers to give back, within one poll; empty otherwise. */
  readonly emptiedLanes: Lane[] = []
  /** Requests of one drain, between taking and admitting; what is left in it means nothing. */
  readonly pending: SendRequest[] = []
  readonly completions = new CompletionBatch(POLL_BATCH)

  /** The turn's clock; commands between turns, also before the first one, count from it. */
  nowMs = clock.nowMs()
  turns = 0
  messagesStarted = 0
  /** Draining: rings are not looked at any more. */
  quiescing = false
  /** Nothing more leaves: a successor goes on. */
  handingOver = false
  /** Commands without an answer yet: their continuations need the event loop now and then. */
  unanswered = 0
  stopping = false
  readonly #backlog: EngineQueuePair[] = []
  readonly #localFlows: Flow[] = []
  readonly #busyLanes: Lane[] = []
  readonly #dirtyQueues: EngineCompletionQueue[] = []
  readonly #fullQueues = new Set<EngineCompletionQueue>()
  /** Rings with news whose armed waiters were not looked at yet. */
  readonly #unrungQueues: EngineCompletionQueue[] = []
  readonly #later: (() => void)[] = []
  #nextCookie = 1
  readonly #visit: (bit: number) => void
  readonly #ring: (member: number) => void
  readonly #published: (completer: Completer) => void
  /** Clients were woken in this turn for few messages, and not by neighbours: they most likely answer at once. */
  expectsAnswers = false
  #woke = false
  #visitJob = 0
  #ringJob = 0

  constructor(options: EngineOptions, device: Device, nodeFile: Mapping, ports: EnginePorts) {
    this.options = options
    this.device = device
    this.ports = ports
    this.nodeFile = nodeFile
    this.rows = nodeFile.memory.f64
    this.counters = nodeFile.memory.f64.subarray(
      nodeFileGeometry.countersOffset / 8,
      nodeFileGeometry.countersOffset / 8 + counterNames.length,
    )
    this.#visit = (bit) => this.#drain(bit)
    this.#published = (completer) => {
      const queuePair = this.queuePairs[completer.number]
      if (queuePair === completer) this.touchEnding(queuePair)
    }
    this.#ring = (member) => {
      const doorbell = this.doorbells[member]
      // Who is armed is written by clients: they can ring members of their own job only.
      if (doorbell === undefined || this.memberJobs[member] !== this.#ringJob) return
      eventfdSignal(doorbell)
      this.counters[counterIndex['wake-ups']]!++
    }
  }

  // ---- the turn -----------------------------------------------------------------------------------------------------------

  /** One turn; returns how much was done, 0 when there is nothing to do now. `idleTurns`: how many turns before did nothing. */
  turn(nowMs: number, idleTurns: number): number {
    this.nowMs = nowMs
    this.turns++
    this.#woke = false
    const before = this.messagesStarted + this.counters[COMPLETIONS]!
    let work = this.timers.run(nowMs)
    work += this.#runLater()
    if (!this.quiescing) work += this.#drainRings()
    const local = this.#pumpLocal()
    work += local + this.#pumpLanes(idleTurns >= QUIET_TURNS)
    work += this.device.progress(nowMs)
    work += takeCompletions(this)
    work += this.#closures()
    work += this.#publish()
    this.#wake(work === 0 && idleTurns >= AGAIN_TURNS)
    const moved = this.messagesStarted + this.counters[COMPLETIONS]! - before
    this.expectsAnswers = this.#woke && local === 0 && moved <= FEW
    return work
  }

  /** Whether a sleep would miss something; everything that arrives later rings. */
  get restless(): boolean {
    if (
      this.#later.length > 0 ||
      this.#localFlows.length > 0 ||
      this.#busyLanes.length > 0 ||
      this.#dirtyQueues.length > 0 ||
      this.#unrungQueues.length > 0 ||
      this.closures.size > 0
    )
      return true
    if (!this.quiescing) {
      if (this.#backlog.length > 0) return true
      for (const job of this.jobs.values()) if (anyActive(job.activity.words, 0)) return true
    }
    return false
  }

  /** Milliseconds until something is due by time alone. Full completion rings are looked at now and then: pollers do not ring. */
  nextDueMs(nowMs: number): number {
    const due = Math.min(this.timers.nextMs(nowMs), this.device.nextTimerMs(nowMs))
    return this.#fullQueues.size > 0 ? Math.min(due, 1) : due
  }

  #runLater(): number {
    const count = this.#later.length
    if (count === 0) return 0
    for (const call of this.#later.splice(0, count)) call()
    return count
  }

  #drainRings(): number {
    let work = 0
    for (const job of this.jobs.values()) {
      this.#visitJob = job.number
      work += collectActive(job.activity.words, 0, this.#visit)
    }
    for (let left = this.#backlog.length; left > 0; left--) {
      const queuePair = this.#backlog.shift()!
      const sends = queuePair.sendBacklog
      const receives = queuePair.receiveBacklog
      queuePair.sendBacklog = false
      queuePair.receiveBacklog = false
      if (this.queuePairs[queuePair.number] !== queuePair) continue
      if (sends) this.#drainSends(queuePair)
      if (receives) this.#drainReceives(queuePair)
      work++
    }
    return work
  }

  /** Two bits a queue pair, one a side; either makes both rings looked at. Bits are hints that any client of the job can set. */
  #drain(bit: number): void {
    const queuePair = this.queuePairs[activityQueuePair(bit)]
    if (queuePair === undefined || queuePair.job !== this.#visitJob || this.adopted.has(queuePair)) return
    // Receives first: what is sent from this queue pair to itself then finds them.
    this.#drainReceives(queuePair)
    this.#drainSends(queuePair)
    this.tellRoom(queuePair)
  }

  /** Who held a posting lock comes here after it let go (or was swept): those who were refused meanwhile hear of it. */
  tellRoom(queuePair: EngineQueuePair): void {
    const { words, number, generation, job } = queuePair
    if (words.load(WANT_ROOM) === 0) return
    words.store(WANT_ROOM, 0)
    this.ports.emit('queue-pair-room', { number, generation, job })
  }

  #drainSends(queuePair: EngineQueuePair): void {
    if (visitSends(this, queuePair, DRAIN_BUDGET)) this.#visitAgain(queuePair, true, false)
  }

  #drainReceives(queuePair: EngineQueuePair): void {
    if (drainReceives(this, queuePair, DRAIN_BUDGET)) this.#visitAgain(queuePair, false, true)
  }

  /** In the next turn, whether its bits are set or not. */
  #visitAgain(queuePair: EngineQueuePair, sends: boolean, receives: boolean): void {
    if (!queuePair.sendBacklog && !queuePair.receiveBacklog) this.#backlog.push(queuePair)
    queuePair.sendBacklog ||= sends
    queuePair.receiveBacklog ||= receives
  }

  /** Its send ring is looked at again when nothing of its flow waits any more. */
  hold(queuePair: EngineQueuePair, flow: Flow): void {
    queuePair.goOn ??= () => this.#visitAgain(queuePair, true, false)
    flow.waiting.onEmpty = queuePair.goOn
  }

  #pumpLocal(): number {
    let work = 0
    for (let left = this.#localFlows.length; left > 0; left--) {
      const flow = this.#localFlows.shift()!
      flow.scheduled = false
      if (flow.dead) continue
      const before = this.messagesStarted
      if (pumpLocal(this, flow)) this.wakeFlow(flow)
      work += 1 + this.messagesStarted - before
    }
    return work
  }

  #pumpLanes(idle: boolean): number {
    let work = 0
    for (let count = this.#busyLanes.length; count > 0; count--) {
      const lane = this.#busyLanes.shift()!
      lane.busy = false
      if (!lane.mayPost || (lane.state !== 'up' && lane.state !== 'opening')) continue
      const done = pumpLane(this, lane, idle)
      work += done
      const left = lane.hasScheduled || lane.hasControl || lane.hasNews || lane.bulk.length > 0 || lane.consumedNews > 0
      // What is left after an idle turn waits for credit, room or a completion; each of those marks the lane again.
      if (left && (done > 0 || !idle)) this.markBusy(lane)
    }
    return work
  }

  /** Posts what was put together; false when nothing more can be posted now. */
  flushLane(lane: Lane): boolean {
    if (lane.batch.count === 0) return false
    lane.sealBatch()
    const { count } = lane.batch
    const accepted = this.device.postSend(lane.queuePair, lane.batch)
    const { refusal } = lane.batch
    lane.batch.clear()
    if (accepted === count) return true
    // The ledger never exceeds the send depth, so only a lane that died, or a bug, comes here.
    this.failLane(lane, `the device accepted ${accepted} of ${count} requests: ${refusal}`)
    return false
  }

  #closures(): number {
    let work = 0
    let left = this.closures.size
    for (const queuePair of this.closures) {
      // What is put here meanwhile, by others or by itself, has its turn next time.
      if (left-- === 0) break
      this.closures.delete(queuePair)
      work += advanceClosure(this, queuePair)
    }
    return work
  }

  #publish(): number {
    for (const queue of this.#fullQueues) {
      if (queue.refill(this.#published)) this.touchQueue(queue)
      if (queue.backlog === 0) this.#fullQueues.delete(queue)
    }
    const count = this.#dirtyQueues.length
    for (let index = 0; index < count; index++) {
      const queue = this.#dirtyQueues[index]!
      queue.queued = false
      queue.publish()
      if (!queue.unrung) {
        this.#unrungQueues.push(queue)
        queue.unrungMs = this.nowMs
      }
      queue.unrung = true
      if (queue.backlog > 0) this.#fullQueues.add(queue)
    }
    if (count > 0) this.#dirtyQueues.length = 0
    return count
  }

  /**
   * Wakes whoever is armed: at once for single completions. A stream waits until there are enough to be worth it, or nothing happens any
   * more, although others had the core meanwhile.
   */
  #wake(nothingElse: boolean): void {
    for (let left = this.#unrungQueues.length; left > 0; left--) {
      const queue = this.#unrungQueues.shift()!
      if (!nothingElse && queue.awaitsMore(this.nowMs)) {
        this.#unrungQueues.push(queue)
        continue
      }
      queue.unrung = false
      this.#ringJob = queue.job
      if (queue.ringPublished(this.#ring) > 0) this.#woke = true
    }
  }

  /** Requests that have left and have no verdict yet; with `oneSidedOnly` those that a successor could not send again. */
  outstanding(oneSidedOnly = false): number {
    let count = 0
    for (const queuePair of this.queuePairs) {
      if (!queuePair) continue
      for (const flow of queuePair.everyFlow()) {
        if (!oneSidedOnly) {
          // Also a message of which the first segments have left.
          count += flow.inFlight.size + (flow.waiting.head?.exposed ? 1 : 0)
          continue
        }
        for (let request = flow.inFlight.head; request; request = request.next) {
          if (!request.finished && !isTwoSided(request.opcode)) count++
        }
      }
    }
    return count
  }

  /** A handover was given up. */
  serveAgain(): void {
    this.quiescing = false
    this.handingOver = false
    for (const queuePair of this.queuePairs) {
      if (!queuePair) continue
      for (const flow of queuePair.everyFlow()) this.wakeFlow(flow)
    }
  }

  // ---- lists --------------------------------------------------------------------------------------------------------------

  touchQueue(queue: EngineCompletionQueue): void {
    if (queue.queued) return
    queue.queued = true
    this.#dirtyQueues.push(queue)
  }

  forgetQueue(queue: EngineCompletionQueue): void {
    this.#fullQueues.delete(queue)
    // Its pages go when this was answered: nothing may be published into them any more.
    const dirty = this.#dirtyQueues.indexOf(queue)
    if (dirty >= 0) this.#dirtyQueues.splice(dirty, 1)
    const unrung = this.#unrungQueues.indexOf(queue)
    if (unrung >= 0) this.#unrungQueues.splice(unrung, 1)
    this.#ringJob = queue.job
    queue.ringAll(this.#ring)
  }

  wakeFlow(flow: Flow): void {
    if (flow.dead || flow.suspended) return
    if (flow.lane) {
      flow.lane.schedule(flow)
      this.markBusy(flow.lane)
    } else if (!flow.scheduled) {
      flow.scheduled = true
      this.#localFlows.push(flow)
    }
  }

  markBusy(lane: Lane): void {
    if (lane.busy) return
    lane.busy = true
    this.#busyLanes.push(lane)
  }

  addControl(flow: Flow): void {
    if (!flow.lane || flow.dead || !hasControl(flow)) return
    flow.lane.addControl(flow)
    this.markBusy(flow.lane)
  }

  /** A queue pair that is going down may have come a step further. */
  touchEnding(queuePair: EngineQueuePair): void {
    if (queuePair.ending) this.closures.add(queuePair)
  }

  /** A small message of no flow. What a peer makes us answer is bounded by what it has under way; more breaks the protocol. */
  addLoose(lane: Lane, message: LooseMessage): void {
    if (!lane.addLoose(message)) this.failLane(lane, 'the peer asks more than can be answered')
    this.markBusy(lane)
  }

  later(call: () => void): void {
    this.#later.push(call)
  }

  wakeKeyWaiters(group: LaneGroup): void {
    const waiters = [...group.keyWaiters]
    group.keyWaiters.clear()
    for (const flow of waiters) this.wakeFlow(flow)
  }

  datagramLane(job: number, peer: number): Lane | null {
    return this.datagramPaths.get(pathKey(job, peer)) ?? null
  }

  /** Requests for that node wait until the control plane names another lane, or gives the path up. */
  loseDatagramPath(job: number, peer: number): void {
    this.datagramPaths.delete(pathKey(job, peer))
    this.lostDatagramPaths.add(pathKey(job, peer))
  }

  setDatagramPath(job: number, peer: number, lane: Lane | null): void {
    this.datagramPaths.set(pathKey(job, peer), lane)
    this.lostDatagramPaths.delete(pathKey(job, peer))
    if (lane?.state === 'up') bindSuspended(this, lane, this.suspensions.on(datagramPath(job, peer)))
  }

  nextCookie(): number {
    this.#nextCookie = (this.#nextCookie + 1) >>> 0
    return this.#nextCookie
  }

  // ---- verdicts that come from elsewhere --------------------------------------------------------------------------------------

  /** A message that arrived could not be received: its sender is told before it counts as delivered. */
  refuseMessage(flow: Flow, sequence: number, verdict: Status): void {
    rememberFailure(flow, sequence, verdict)
    if (flow.lane) {
      flow.failedSequences.push(sequence)
      flow.failedStatuses.push(verdict)
      this.addControl(flow)
      return
    }
    for (let request = flow.twin?.inFlight.head ?? null; request; request = request.next) {
      if (request.sequence !== sequence) continue
      // Told when the receiver's completion is, which comes next.
      request.stage = requestStage.finished
      request.status = verdict
      return
    }
  }

  /** A message for a queue pair that is gone: a datagram gets its verdict, a connected sender learns that nobody is there. */
  answerStale(
    lane: Lane,
    from: { destinationNumber: number; destinationGeneration: number; sourceNumber: number; sourceGeneration: number },
    sequence: number,
    disconnect: boolean,
  ): void {
    const numbers = {
      destinationNumber: from.sourceNumber,
      destinationGeneration: from.sourceGeneration,
      sourceNumber: from.destinationNumber,
      sourceGeneration: from.destinationGeneration,
    }
    if (from.sourceNumber === connectByService) return
    this.addLoose(lane, {
      ...numbers,
      type: disconnect ? messageType.disconnected : messageType.queuePairError,
      sequence,
      immediate: status.remoteInvalidRequest,
      payloadByteLength: 0,
      write: () => {},
    })
  }

  failQueuePair(queuePair: EngineQueuePair, verdict: Status, reason: string, byPeer: boolean): void {
    beginFailure(this, queuePair, verdict, reason, byPeer)
  }

  flushWaiting(flow: Flow): void {
    flushWaiting(this, flow)
  }

  /** Memory that no honest client leaves: the queue pair fails for its holders. */
  corrupt(queuePair: EngineQueuePair, reason: string): void {
    this.counters[counterIndex['corrupt-segments']]!++
    this.later(() => this.failQueuePair(queuePair, status.generalError, `corrupt segment: ${reason}`, false))
  }

  failLane(lane: Lane, reason: string): void {
    if (lane.failing) return
    lane.failing = true
    this.later(() => breakLane(this, lane, reason))
  }

  laneProbed(lane: Lane): void {
    if (lane.state === 'opening') {
      // The initiator confirms to the responder by a reply of its own.
      if (lane.initiator) lane.probeReplyDue = true
      lane.state = 'up'
      lane.onUp?.(null)
      lane.onUp = null
      this.markBusy(lane)
      askAgain(this, lane.group)
      bindSuspended(this, lane, this.suspensions.on(lane.path))
      if (this.datagramPaths.get(pathKey(lane.job, lane.peer)) === lane) {
        bindSuspended(this, lane, this.suspensions.on(datagramPath(lane.job, lane.peer)))
      }
    }
  }

  dropFlow(flow: Flow): void {
    flow.dead = true
    if (flow.suspended) this.suspensions.delete(flow)
    flow.suspended = false
    flow.connectDue = false
    flow.acceptDue = false
    flow.lane?.flows.delete(flow)
    if (flow.twin) {
      flow.twin.twin = null
      flow.twin = null
    }
  }

  /** A connect by service name: the control plane asks the listening application. */
  offer(accept: PendingAccept, service: string): void {
    const connection = this.nextCookie()
    if (this.accepts.size >= 4096) {
      const { number: sourceNumber, generation: sourceGeneration } = accept
      const from = { sourceNumber, sourceGeneration, destinationNumber: connectByService, destinationGeneration: 0 }
      sendReject(this, accept.lane, from, accept.cookie, rejectReason.busy)
      return
    }
    this.accepts.set(connection, accept)
    this.ports.emit('connection-request', {
      connection,
      job: accept.job,
      peer: accept.peer,
      peerNode: accept.lane?.peerNode ?? this.options.node,
      service,
      remote: { number: accept.number, generation: accept.generation },
    })
  }
}
