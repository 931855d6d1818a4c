/**
 * A soft queue pair: its states, and who of its parts has a turn when.
 *
 *   init ──► ready-to-receive ──► ready-to-send          receives may be posted from init on, sends in ready-to-send
 *     └───────────┴────────────────────┴──► error        everything outstanding completes once; posting goes on and flushes
 *
 *                 ┌ Requester ──┐              ┌──────── Requester (answers)
 *   post ► queues ┤             ├► Output ► socket ► Input ┤
 *                 └ Responder ──┘  (plan)      └──────── Responder ► Placement ► registered memory
 *
 * A broken stream is no error state: verbs have no connection that one could see break. Requests then wait for their
 * timeout, as they would for a peer that lost power. In the error state nothing of the peer is executed any more; what
 * was promised to it before (read data, a refusal) is still sent.
 */

import { type Status, status } from '../../protocol/statuses.js'
import { copyBytes } from '../../shm/copy.js'
import { EAGAIN, EINTR, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, memoryCopy } from '../../shm/libc.js'
import { ringCapacity } from '../../shm/reference-ring.js'
import {
  type ProviderQueuePair,
  type QueuePairAddress,
  type QueuePairAttributes,
  type QueuePairLimits,
  type QueuePairState,
  sendFlag,
  sendOpcode,
  type WorkRequestBatch,
} from './provider.js'
import { Arena } from './soft-arena.js'
import type { SoftCompletionQueue } from './soft-completion-queue.js'
import type { Listed, SoftContext } from './soft-context.js'
import type { QueuePairFaults } from './soft-faults.js'
import { compareAddresses, type Greeting, isSameToken } from './soft-hello.js'
import { Input } from './soft-input.js'
import { requestByteLength } from './soft-ledger.js'
import { type LinkOwner, SoftLink } from './soft-link.js'
import type { SoftRegion } from './soft-memory.js'
import { OUTPUT_PLAN_BYTES, Output } from './soft-output.js'
import { Placement } from './soft-placement.js'
import { ReceiveQueue } from './soft-receive-queue.js'
import { Requester } from './soft-requester.js'
import { Responder } from './soft-responder.js'
import { SendQueue } from './soft-send-queue.js'
import { Trouble } from './soft-trouble.js'

/** Bytes that one queue pair may receive or send in one turn before the next one has its own. */
const TURN_BYTES = 1 << 20
/** So much in the plan is sent while requests are still being posted. */
const POST_FLUSH_BYTES = 96 * 1024
/** Answers that are told at once; fewer wait for a frame to ride on. */
const ANSWERS_TOLD_AT_ONCE = 32
/**
 * So long wait answers to sends: the peer's broker needs them to use its frames again, nobody's completion hangs on them, and the answer to
 * a message most likely comes within that time. Writes are told after one turn. Before sleeping everything is told.
 */
const PATIENT_TURNS = 32
/** A queue pair that received lately is asked without epoll so many times more. */
const HOT_TURNS = 64

export interface QueuePairParts {
  readonly context: SoftContext<SoftQueuePair>
  readonly address: QueuePairAddress
  readonly domain: number
  readonly sendCompletions: SoftCompletionQueue
  readonly receiveCompletions: SoftCompletionQueue
  readonly limits: QueuePairLimits
}

export class SoftQueuePair implements ProviderQueuePair, LinkOwner, Listed {
  readonly number: number
  readonly limits: QueuePairLimits
  readonly address: QueuePairAddress
  readonly domain: number
  readonly sendCompletions: SoftCompletionQueue
  readonly receiveCompletions: SoftCompletionQueue
  readonly listed = new Uint8Array(2)
  state: QueuePairState = 'init'
  readonly link: SoftLink
  readonly #context: SoftContext<SoftQueuePair>
  readonly #arena: Arena
  readonly #sends: SendQueue
  readonly #receives: ReceiveQueue
  readonly #output: Output
  readonly #placement: Placement
  readonly #requester: Requester
  readonly #responder: Responder
  readonly #input: Input
  readonly #trouble = new Trouble()
  readonly #faults: QueuePairFaults | null
  readonly #maxMessageByteLength: number
  readonly #toldAtOnce: number
  /** The socket is full; an edge of epoll ends it. */
  #isBlocked = false
  #idleTurns = 0
  /** Turns that answers have waited for a frame. */
  #answersWaited = 0
  /** Counted in the device's `owing`. */
  #owes = false
  /** A fault hook keeps what arrived from being looked at, until then. */
  #isHeldBack = false
  #heldUntilMs = 0

  constructor(parts: QueuePairParts) {
    const { context, address, limits } = parts
    this.number = address.number
    this.limits = limits
    this.address = address
    this.domain = parts.domain
    this.sendCompletions = parts.sendCompletions
    this.receiveCompletions = parts.receiveCompletions
    this.#context = context
    this.#faults = context.faults?.of(address.number) ?? null
    this.#maxMessageByteLength = context.limits.maxMessageByteLength
    this.#toldAtOnce = Math.max(1, Math.min(ANSWERS_TOLD_AT_ONCE, limits.receiveDepth >> 2))
    const stride = (limits.inlineByteLength + 7) & -8
    this.#arena = new Arena(OUTPUT_PLAN_BYTES + stride * ringCapacity(limits.sendDepth))
    this.#output = new Output(this.#arena.memory)
    const { sendDepth, scatterGather } = limits
    this.#sends = new SendQueue(sendDepth, scatterGather, this.#arena.memory, OUTPUT_PLAN_BYTES, stride)
    this.#receives = new ReceiveQueue(limits.receiveDepth, limits.scatterGather)
    this.#placement = new Placement(context.table, parts.domain)
    this.#requester = this.#makeRequester()
    this.#responder = this.#makeResponder()
    this.#input = this.#makeInput()
    this.link = new SoftLink(context, this, address)
  }

  // ------------------------------------------------------------------------------------------------------- states

  /** The remote side is known: requests of the peer are executed from here on. */
  receiveFrom(remote: QueuePairAddress, attributes: QueuePairAttributes): void {
    this.state = 'ready-to-receive'
    this.#responder.start(remote.packetSequence, attributes.readsAccepted, attributes.rnrTimerMs)
    if (compareAddresses(this.address, remote) < 0) this.link.dial(remote)
    else this.link.waitFor(remote)
  }

  sendWith(attributes: QueuePairAttributes): void {
    this.state = 'ready-to-send'
    this.#requester.start(attributes)
  }

  toError(): void {
    if (this.state !== 'error') this.#enterError(status.flushed, status.flushed, false)
  }

  /** Whether a hello may be let in later: it is meant for this queue pair, which is not ready yet. */
  mayExpect(hello: Greeting): boolean {
    if (this.state !== 'init' || hello.targetPacketSequence !== this.address.packetSequence) return false
    return isSameToken(hello.token, String(this.address.path.token))
  }

  destroy(): void {
    // A refusal or read data that the socket takes at once still reaches the peer.
    if (this.link.phase === 'up' && this.#output.pending > 0) this.#flush()
    this.#block(false)
    this.link.break()
    this.#output.clear()
    this.#responder.dropAnswers()
    this.state = 'reset'
    this.#owe(false)
    this.sendCompletions.purge(this.#sends)
    this.receiveCompletions.purge(this.#receives)
    this.#arena.close()
  }

  // ------------------------------------------------------------------------------------------------------ posting

  postSend(batch: WorkRequestBatch): number {
    if (this.state !== 'ready-to-send' && this.state !== 'error') return refuse(batch, 'invalid')
    const sends = this.#sends
    let accepted = 0
    let bytes = 0
    batch.refusal = 'none'
    for (; accepted < batch.count; accepted++) {
      const byteLength = this.#sendByteLength(batch, accepted)
      if (byteLength < 0) batch.refusal = 'invalid'
      else if (sends.isFull) batch.refusal = 'full'
      if (batch.refusal !== 'none') break
      const slot = sends.posted & sends.mask
      sends.writeSend(slot, batch, accepted, byteLength)
      if ((batch.flags[accepted]! & sendFlag.inline) !== 0) this.#keepInline(slot, batch, accepted)
      sends.posted = (sends.posted + 1) | 0
      bytes += byteLength
    }
    this.#context.counters.bytesSent += bytes
    this.#context.counters.messagesSent += accepted
    if (accepted > 0) this.#afterPost()
    return accepted
  }

  postReceive(batch: WorkRequestBatch): number {
    if (this.state === 'reset') return refuse(batch, 'invalid')
    const receives = this.#receives
    let accepted = 0
    batch.refusal = 'none'
    for (; accepted < batch.count; accepted++) {
      const byteLength = requestByteLength(batch, accepted, receives.width, this.#maxMessageByteLength)
      if (byteLength < 0) batch.refusal = 'invalid'
      else if (receives.isFull) batch.refusal = 'full'
      if (batch.refusal !== 'none') break
      receives.write(receives.posted & receives.mask, batch, accepted, byteLength)
      receives.posted = (receives.posted + 1) | 0
    }
    if (this.state === 'error') receives.flush(status.flushed, this.receiveCompletions, this.number)
    return accepted
  }

  /** Byte length of a send request, or -1 when it can never be executed. */
  #sendByteLength(batch: WorkRequestBatch, index: number): number {
    const byteLength = requestByteLength(batch, index, this.#sends.width, this.#maxMessageByteLength)
    const opcode = batch.opcode[index]!
    if (opcode > sendOpcode.read) return -1
    if ((batch.flags[index]! & sendFlag.inline) === 0) return byteLength
    return opcode !== sendOpcode.read && byteLength <= this.limits.inlineByteLength ? byteLength : -1
  }

  /** Inline payload is read now. Its key is not looked at, as in verbs, unless it makes the copy cheaper. */
  #keepInline(slot: number, batch: WorkRequestBatch, index: number): void {
    const { inline } = this.#sends
    const first = batch.sgeFirst[index]!
    let to = this.#sends.inlineAt(slot)
    for (let entry = first; entry < first + batch.sgeCount[index]!; entry++) {
      const byteLength = batch.sgeLength[entry]!
      const region = this.#context.table.byLocalKey(batch.sgeKey[entry]!)
      const offset = region === null ? -1 : batch.sgeAddress[entry]! - region.address
      if (region !== null && offset >= 0 && offset + byteLength <= region.byteLength) {
        copyBytes(inline, to, region.memory, offset, byteLength)
      } else {
        memoryCopy(inline.address + to, batch.sgeAddress[entry]!, byteLength)
      }
      to += byteLength
    }
  }

  #afterPost(): void {
    if (this.state === 'error') {
      this.#requester.flush(status.flushed)
      return
    }
    if (this.link.phase !== 'up') return
    if (!this.#isBlocked) {
      this.#encodeRequests()
      if (this.#output.pending >= POST_FLUSH_BYTES) this.#flush()
      if (!this.#trouble.isNone) this.#settle()
    }
    this.#context.transmitting.add(this)
  }

  // -------------------------------------------------------------------------------------------------------- turns

  onLinkUp(): void {
    // The first frames may have come with the greeting.
    this.#input.isDrained = false
    this.#context.receiving.add(this)
    this.#context.transmitting.add(this)
  }

  onLinkReady(events: number): void {
    if ((events & EPOLLOUT) !== 0 && this.#isBlocked) {
      this.#block(false)
      this.#context.transmitting.add(this)
    }
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) === 0) return
    this.#input.isDrained = false
    this.#context.receiving.add(this)
  }

  #block(isBlocked: boolean): void {
    if (isBlocked === this.#isBlocked) return
    this.#isBlocked = isBlocked
    this.#context.blocked += isBlocked ? 1 : -1
  }

  #owe(owes: boolean): void {
    if (owes === this.#owes) return
    this.#owes = owes
    this.#context.owing += owes ? 1 : -1
  }

  /** Whether long messages are under way, in either direction, over a link that moves them. */
  get #isMoving(): boolean {
    if (this.link.phase !== 'up' || this.state === 'error') return false
    return this.#isBlocked || this.#input.isMidway || this.#responder.isMidway || this.#requester.isMovingLong
  }

  /** Receives and executes within the budget of a turn; returns how much was done. Who may not stay hot waits for an edge. */
  receiveTurn(mayStayHot: boolean): number {
    if (this.link.phase !== 'up' || this.state === 'error') return 0
    if (!mayStayHot && this.#input.isDrained) return 0
    if (this.#faults !== null && this.#holdsBack(this.#faults)) return 0
    let budget = TURN_BYTES
    let work = 0
    do {
      const received = this.#input.receive(this.link.fd, this.#context.nowMs)
      if (received > 0) work++
      budget -= received
    } while (!this.#input.isDrained && this.#trouble.isNone && budget > 0)
    if (!this.#trouble.isNone) this.#settle()
    this.#scheduleReceive(work, mayStayHot)
    this.#owe(this.#isMoving)
    if (work > 0) this.#context.transmitting.add(this)
    return work
  }

  #scheduleReceive(work: number, mayStayHot: boolean): void {
    if (this.link.phase !== 'up') return
    this.#idleTurns = work > 0 ? 0 : this.#idleTurns + 1
    if (!this.#input.isDrained || (mayStayHot && this.#idleTurns < HOT_TURNS)) this.#context.receiving.add(this)
  }

  /** Makes frames and sends them; returns how much was done. `isLast`: nobody will come to take answers along. */
  transmitTurn(isLast: boolean): number {
    if (this.link.phase !== 'up' || this.#isBlocked) {
      this.#owe(this.#isMoving)
      return 0
    }
    let budget = TURN_BYTES
    let work = 0
    while (budget > 0 && this.#fillPlan(isLast)) {
      const sent = this.#flush()
      if (sent <= 0) break
      work++
      budget -= sent
      if (this.#isBlocked) break
    }
    if (this.#wantsTransmit()) this.#context.transmitting.add(this)
    this.#owe(this.#isMoving)
    return work
  }

  /** Whether there is anything to send. */
  #fillPlan(isLast: boolean): boolean {
    this.#responder.answer()
    this.#encodeRequests()
    if (!this.#trouble.isNone) this.#settle()
    if (this.link.phase !== 'up') return false
    return this.#output.pending > 0 || this.#encodeAnswers(isLast)
  }

  #wantsTransmit(): boolean {
    if (this.link.phase !== 'up' || this.#isBlocked) return false
    if (this.#output.pending > 0 || this.#responder.hasAnswers || this.#responder.untold > 0) return true
    return this.state === 'ready-to-send' && this.#requester.canEncode
  }

  #encodeRequests(): void {
    if (this.state !== 'ready-to-send' || !this.#requester.canEncode) return
    if (this.#requester.encode(this.#responder.answered) > 0) this.#responder.told()
  }

  /** A frame for answers alone, if they are many or have waited for long enough. */
  #encodeAnswers(isLast: boolean): boolean {
    const untold = this.#responder.untold
    const patience = this.#responder.isAwaited ? 1 : PATIENT_TURNS
    const mayWait = untold < this.#toldAtOnce && this.#answersWaited < patience
    if (untold > 0 && !isLast && mayWait) {
      this.#answersWaited++
      return false
    }
    this.#answersWaited = 0
    return untold > 0 && this.#responder.encodeAcknowledgement()
  }

  /** Hands the plan to the socket: bytes taken, 0 or negative when none. */
  #flush(): number {
    const callsBefore = this.#output.systemCalls
    if (this.#output.lends) this.link.lend()
    const sent = this.#output.flush(this.link.fd)
    this.#context.counters.systemCalls += this.#output.systemCalls - callsBefore
    if (sent < 0 && sent !== -EAGAIN && sent !== -EINTR) {
      this.#breakStream()
      return sent
    }
    if (sent > 0 && this.#requester.isOldestUnderWay) this.#requester.touch()
    if (sent > 0) this.#responder.planTaken(sent)
    if (this.#output.pending > 0) this.#block(sent !== -EINTR)
    return sent
  }

  // ------------------------------------------------------------------------------------------------------- trouble

  #settle(): void {
    const { kind, status: why, receiveStatus, event, violation } = this.#trouble
    this.#trouble.clear()
    if (kind === 'requester') {
      this.#enterError(why, status.flushed, false)
    } else if (kind === 'responder') {
      this.#enterError(status.flushed, receiveStatus === status.success ? status.flushed : receiveStatus, true)
      if (event !== null) this.#context.emit(event, this.number)
    } else if (kind === 'stream') {
      if (violation) this.#context.counters.protocolErrors++
      this.#breakStream()
    }
  }

  #enterError(sendCause: Status, receiveCause: Status, owesRefusal: boolean): void {
    this.state = 'error'
    // From the completions on, the memory of every request is its owner's again.
    this.#output.detach()
    if (!owesRefusal) this.#responder.dropAnswers()
    this.#requester.flush(sendCause)
    this.#receives.flush(receiveCause, this.receiveCompletions, this.number)
    this.#context.transmitting.add(this)
  }

  #breakStream(): void {
    this.link.break()
    this.#context.emit('connection-broken', this.number)
    this.#output.clear()
    this.#responder.dropAnswers()
    this.#block(false)
    this.#owe(false)
  }

  // -------------------------------------------------------------------------------------------------------- timers

  lookAtClock(nowMs: number): void {
    this.link.lookAtClock(nowMs)
    if (this.#isHeldBack && nowMs >= this.#heldUntilMs) this.#context.receiving.add(this)
    // What waits in the socket may be the answer: it is read before time is judged.
    if (this.state !== 'ready-to-send' || (this.link.phase === 'up' && !this.#input.isDrained)) return
    this.#requester.lookAtClock(nowMs)
    if (!this.#trouble.isNone) this.#settle()
    if (this.#wantsTransmit()) this.#context.transmitting.add(this)
  }

  nextTimerMs(nowMs: number): number {
    const held = this.#isHeldBack ? Math.max(1, this.#heldUntilMs - nowMs) : Number.POSITIVE_INFINITY
    const requester = this.state === 'ready-to-send' ? this.#requester.nextTimerMs(nowMs) : Number.POSITIVE_INFINITY
    return Math.min(this.link.nextTimerMs(nowMs), held, requester)
  }

  /** Memory is about to be given back: what the plan still names of it is copied aside. */
  releaseRegion(region: SoftRegion): void {
    if (this.#output.names(region.address, region.byteLength)) this.#output.detach()
  }

  /** Whether a fault hook wants what arrived to wait. */
  #holdsBack(faults: QueuePairFaults): boolean {
    const nowMs = this.#context.nowMs
    if (!this.#isHeldBack) this.#heldUntilMs = nowMs + faults.delayMs
    this.#isHeldBack = faults.stopExecuting || nowMs < this.#heldUntilMs
    return this.#isHeldBack
  }

  // --------------------------------------------------------------------------------------------------------- parts

  #makeRequester(): Requester {
    return new Requester(
      this.#sends,
      this.#context.table,
      this.domain,
      this.number,
      this.#output,
      this.sendCompletions,
      this.#trouble,
      this.address.packetSequence,
    )
  }

  #makeResponder(): Responder {
    return new Responder({
      number: this.number,
      domain: this.domain,
      table: this.#context.table,
      receives: this.#receives,
      completions: this.receiveCompletions,
      output: this.#output,
      trouble: this.#trouble,
      counters: this.#context.counters,
      faults: this.#faults,
    })
  }

  #makeInput(): Input {
    return new Input(
      this.#context.scratch,
      this.#requester,
      this.#responder,
      this.#placement,
      this.#trouble,
      this.#context.counters,
      this.#faults,
    )
  }
}

function refuse(batch: WorkRequestBatch, why: 'invalid' | 'dead'): number {
  batch.refusal = why
  return 0
}
