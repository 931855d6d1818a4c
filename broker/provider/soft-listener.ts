/**
 * The port of a device. Whoever connects is a stranger until his hello names a living queue pair and proves with its token
 * that the brokers exchanged addresses. A hello may come before the local side is ready to receive: it then waits, one for
 * each queue pair at most. Strangers are bounded in number and time, and the oldest give way.
 */
import { EAGAIN, EPOLLIN, EPOLLRDHUP, receive, tcpAccept, tcpListen, tcpPort } from '../../shm/libc.js'
import type { SoftContext } from './soft-context.js'
import { decodeGreeting, GREETING_BYTES, type Greeting, greetingKind } from './soft-hello.js'
import type { Endpoint } from './soft-sockets.js'

const BACKLOG = 256
const STRANGERS_MAX = 128
const HELLO_MS = 5_000
const READY_MS = 60_000
const ACCEPTS_EACH_TURN = 32

/** What becomes of a hello: the queue pair took the socket, will perhaps take it later, or nobody here wants it. */
export type HelloVerdict = 'adopted' | 'wait' | 'refused'

export type HelloJudge = (hello: Greeting, fd: number, tag: number) => HelloVerdict

class Stranger implements Endpoint {
  readonly #listener: SoftListener
  readonly fd: number
  tag = -1
  dueMs: number
  hello: Greeting | null = null
  readonly #bytes = new Uint8Array(GREETING_BYTES)
  #length = 0

  constructor(listener: SoftListener, fd: number, dueMs: number) {
    this.#listener = listener
    this.fd = fd
    this.dueMs = dueMs
  }

  onReady(): void {
    this.#listener.hear(this)
  }

  /** Takes bytes of the greeting; true when it is complete. */
  append(bytes: Uint8Array): boolean {
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.length
    return this.#length === GREETING_BYTES
  }

  get missing(): number {
    return GREETING_BYTES - this.#length
  }

  get bytes(): Uint8Array {
    return this.#bytes
  }
}

export class SoftListener implements Endpoint {
  readonly port: number
  readonly #context: SoftContext
  readonly #judge: HelloJudge
  readonly #fd: number
  readonly #tag: number
  /** In the order of arrival. */
  readonly #strangers = new Set<Stranger>()

  constructor(context: SoftContext, host: string, port: number, judge: HelloJudge) {
    this.#context = context
    this.#judge = judge
    this.#fd = tcpListen(host, port, BACKLOG)
    this.port = tcpPort(this.#fd)
    this.#tag = context.sockets.add(this.#fd, EPOLLIN, this)
  }

  onReady(): void {
    for (let count = 0; count < ACCEPTS_EACH_TURN; count++) {
      const fd = tcpAccept(this.#fd)
      if (fd < 0) return
      if (this.#strangers.size >= STRANGERS_MAX) this.#dismissOldest()
      const stranger = new Stranger(this, fd, this.#context.nowMs + HELLO_MS)
      this.#strangers.add(stranger)
      stranger.tag = this.#context.sockets.add(fd, EPOLLIN | EPOLLRDHUP, stranger)
    }
  }

  hear(stranger: Stranger): void {
    if (stranger.hello !== null) {
      // It waits to be let in. Anything it says before, even the end of the connection, sends it away.
      this.#dismiss(stranger)
      return
    }
    const scratch = this.#context.scratch
    const received = receive(stranger.fd, scratch.address, stranger.missing, 0)
    if (received === -EAGAIN) return
    if (received <= 0) this.#dismiss(stranger)
    else if (stranger.append(scratch.u8.subarray(0, received))) this.#introduce(stranger)
  }

  /** A queue pair became ready to receive, or went away: look again at the hellos that wait for it. */
  reconsider(queuePair: number): void {
    for (const stranger of [...this.#strangers]) {
      if (stranger.hello?.targetNumber === queuePair) this.#judged(stranger, stranger.hello)
    }
  }

  lookAtClock(nowMs: number): void {
    for (const stranger of this.#strangers) if (nowMs >= stranger.dueMs) this.#dismiss(stranger)
  }

  nextTimerMs(nowMs: number): number {
    let next = Number.POSITIVE_INFINITY
    for (const stranger of this.#strangers) next = Math.min(next, stranger.dueMs - nowMs)
    return Math.max(0, next)
  }

  close(): void {
    for (const stranger of [...this.#strangers]) this.#drop(stranger)
    this.#context.sockets.close(this.#fd, this.#tag)
  }

  #introduce(stranger: Stranger): void {
    const hello = decodeGreeting(stranger.bytes)
    if (hello === null || hello.kind !== greetingKind.hello) this.#dismiss(stranger)
    else this.#judged(stranger, hello)
  }

  #judged(stranger: Stranger, hello: Greeting): void {
    const isFirst = stranger.hello === null
    this.#strangers.delete(stranger)
    const verdict = this.#isTaken(hello) ? 'refused' : this.#judge(hello, stranger.fd, stranger.tag)
    if (verdict === 'adopted') return
    this.#strangers.add(stranger)
    stranger.hello = hello
    if (verdict === 'refused') this.#dismiss(stranger)
    else if (isFirst) stranger.dueMs = this.#context.nowMs + READY_MS
  }

  /** One waiting hello for a queue pair is enough. */
  #isTaken(hello: Greeting): boolean {
    for (const other of this.#strangers) if (other.hello?.targetNumber === hello.targetNumber) return true
    return false
  }

  /** Those who have not even said hello go first. */
  #dismissOldest(): void {
    for (const stranger of this.#strangers) {
      if (stranger.hello !== null) continue
      this.#dismiss(stranger)
      return
    }
    for (const stranger of this.#strangers) {
      this.#dismiss(stranger)
      return
    }
  }

  #dismiss(stranger: Stranger): void {
    this.#context.counters.connectionsRefused++
    this.#drop(stranger)
  }

  #drop(stranger: Stranger): void {
    this.#strangers.delete(stranger)
    this.#context.sockets.close(stranger.fd, stranger.tag)
  }
}
