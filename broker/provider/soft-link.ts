/**
 * The connection under one queue pair: who dials, the greeting, and the end.
 *
 *   idle ──► dialling ──► greeting ──► up ──► broken        the side with the lower address dials, again and again
 *     └────► awaiting ───────────────► up ──► broken        the other waits for its hello
 *
 * Dialling may be repeated because nothing is executed before the welcome. Once it was up, a link that breaks stays broken:
 * a second connection could not tell what the first one had still delivered.
 */
import {
  EAGAIN,
  EPOLLERR,
  EPOLLET,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  EPOLLRDHUP,
  receive,
  send,
  setAbruptClose,
  setCongestionControl,
  setNoDelay,
  socketError,
  tcpConnectStart,
  unacknowledgedBytes,
} from '../../shm/libc.js'
import type { QueuePairAddress } from './provider.js'
import type { SoftContext } from './soft-context.js'
import {
  decodeGreeting,
  encodeGreeting,
  GREETING_BYTES,
  type Greeting,
  greetingKind,
  isSameToken,
} from './soft-hello.js'
import type { Endpoint } from './soft-sockets.js'

/** Edges of both directions at once: an edge for writing comes only after the socket was full, so none wakes in vain. */
const EVENTS = (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) >>> 0
const FIRST_PAUSE_MS = 5
const LONGEST_PAUSE_MS = 500
const ANSWER_MS = 60_000

export type LinkPhase = 'idle' | 'awaiting' | 'dialling' | 'greeting' | 'up' | 'broken'

/** The queue pair, as its link sees it. */
export interface LinkOwner {
  onLinkUp(): void
  onLinkReady(events: number): void
}

export class SoftLink implements Endpoint {
  readonly #context: SoftContext
  readonly #owner: LinkOwner
  readonly #local: QueuePairAddress
  #remote: QueuePairAddress | null = null
  phase: LinkPhase = 'idle'
  fd = -1
  #tag = -1
  /** The kernel was handed pages that it may still have. */
  #lends = false
  #answer = new Uint8Array(GREETING_BYTES)
  #answered = 0
  #pauseMs = FIRST_PAUSE_MS
  /** How long until it is dialled again, counted from the first look at the clock after it was set. */
  #patienceMs = Number.POSITIVE_INFINITY
  #sinceMs = -1

  constructor(context: SoftContext, owner: LinkOwner, local: QueuePairAddress) {
    this.#context = context
    this.#owner = owner
    this.#local = local
  }

  waitFor(remote: QueuePairAddress): void {
    this.#remote = remote
    this.phase = 'awaiting'
  }

  dial(remote: QueuePairAddress): void {
    this.#remote = remote
    this.phase = 'dialling'
    this.#answered = 0
    this.#context.counters.systemCalls++
    const fd = tcpConnectStart(String(remote.path.host), Number(remote.path.port))
    if (fd < 0) {
      this.#pause()
      return
    }
    this.#open(fd, this.#context.sockets.add(fd, EVENTS, this))
    this.#wait(ANSWER_MS)
  }

  /** Whether a hello is the one that this end waits for. */
  expects(hello: Greeting): boolean {
    return this.phase === 'awaiting' && this.#matches(hello)
  }

  /** Takes over the socket on which the awaited hello came, and answers it. */
  adopt(fd: number, tag: number): void {
    this.#open(fd, tag)
    this.#context.sockets.change(fd, tag, EVENTS, this)
    this.phase = 'up'
    if (this.#greet(greetingKind.welcome)) {
      this.#owner.onLinkUp()
    } else {
      // Gone again before it was welcomed, so nothing was executed: the dialler may come once more.
      this.#closeSocket()
      this.phase = 'awaiting'
    }
  }

  onReady(events: number): void {
    if (this.phase === 'up') this.#owner.onLinkReady(events)
    else if (this.phase === 'dialling') this.#onConnected(events)
    else if (this.phase === 'greeting') this.#readWelcome()
  }

  lookAtClock(nowMs: number): void {
    if (this.phase !== 'dialling' && this.phase !== 'greeting') return
    if (this.#sinceMs < 0) this.#sinceMs = nowMs
    if (nowMs - this.#sinceMs < this.#patienceMs) return
    this.#closeSocket()
    this.dial(this.#remote!)
  }

  nextTimerMs(nowMs: number): number {
    if (this.phase !== 'dialling' && this.phase !== 'greeting') return Number.POSITIVE_INFINITY
    return this.#sinceMs < 0 ? this.#patienceMs : Math.max(0, this.#sinceMs + this.#patienceMs - nowMs)
  }

  /** For good: nothing is sent or received any more. */
  break(): void {
    this.#closeSocket()
    this.phase = 'broken'
  }

  /**
   * Pages of files are handed to the kernel from here on. What their owner writes into them after this end has gone must not pass for what
   * he sent: whatever ends this connection tells the peer at once, which then believes nothing long that it had not finished (`Input`).
   */
  lend(): void {
    if (this.#lends) return
    this.#lends = true
    setAbruptClose(this.fd, true)
  }

  #open(fd: number, tag: number): void {
    this.fd = fd
    this.#tag = tag
    setNoDelay(fd)
    // Nothing is congested within a machine, and a control that paces (BBR) sets a timer for each segment there. A refusal does no harm.
    if (this.#remote!.path.host === this.#local.path.host) setCongestionControl(fd, 'reno')
  }

  #closeSocket(): void {
    if (this.fd < 0) return
    // Nothing stands before the end of the stream, so the peer's kernel has that at once as well, and the last words stay readable.
    if (this.#lends && unacknowledgedBytes(this.fd) === 0) setAbruptClose(this.fd, false)
    this.#lends = false
    this.#context.sockets.close(this.fd, this.#tag)
    this.fd = -1
    this.#tag = -1
  }

  /** Nobody answers, or the wrong one: try again a little later. */
  #pause(): void {
    this.#closeSocket()
    this.phase = 'dialling'
    this.#wait(this.#pauseMs)
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS)
  }

  #wait(patienceMs: number): void {
    this.#patienceMs = patienceMs
    this.#sinceMs = -1
  }

  #onConnected(events: number): void {
    if (this.fd < 0 || (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) === 0) return
    if (socketError(this.fd) !== 0 || !this.#greet(greetingKind.hello)) {
      this.#pause()
      return
    }
    this.phase = 'greeting'
    this.#readWelcome()
  }

  #greet(kind: number): boolean {
    const bytes = encodeGreeting({
      kind,
      sourceNumber: this.#local.number,
      targetNumber: this.#remote!.number,
      sourcePacketSequence: this.#local.packetSequence,
      targetPacketSequence: this.#remote!.packetSequence,
      token: String(this.#remote!.path.token),
    })
    this.#context.scratch.u8.set(bytes)
    return send(this.fd, this.#context.scratch.address, GREETING_BYTES, 0) === GREETING_BYTES
  }

  #readWelcome(): void {
    const scratch = this.#context.scratch
    while (this.#answered < GREETING_BYTES) {
      const received = receive(this.fd, scratch.address, GREETING_BYTES - this.#answered, 0)
      if (received === -EAGAIN) return
      if (received <= 0) {
        this.#pause()
        return
      }
      this.#answer.set(scratch.u8.subarray(0, received), this.#answered)
      this.#answered += received
    }
    const welcome = decodeGreeting(this.#answer)
    if (welcome === null || welcome.kind !== greetingKind.welcome || !this.#matches(welcome)) {
      this.#context.counters.connectionsRefused++
      this.#pause()
      return
    }
    this.phase = 'up'
    this.#owner.onLinkUp()
  }

  #matches(greeting: Greeting): boolean {
    const remote = this.#remote!
    return (
      greeting.sourceNumber === remote.number &&
      greeting.sourcePacketSequence === remote.packetSequence &&
      greeting.targetNumber === this.#local.number &&
      greeting.targetPacketSequence === this.#local.packetSequence &&
      isSameToken(greeting.token, String(this.#local.path.token))
    )
  }
}
