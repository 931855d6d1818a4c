/** Latency: a message there and one back, one at a time; at least one of them, however busy the machine is. */
import { type BenchTimes, type BenchWindow, benchEnd, type PingPongOpcode } from '../protocol/bench.js'
import { opcode } from '../protocol/opcodes.js'
import { clock } from '../shm/libc.js'
import type { BenchLink } from './bench-link.js'
import { Times } from './bench-times.js'
import type { SendWorkRequest } from './work-request.js'

/** One would do; the others let the peer's answer in while the next is being posted. */
const RECEIVES = 16

class PingPong {
  readonly #link: BenchLink
  readonly #message: SendWorkRequest
  readonly #last: SendWorkRequest
  readonly #receive
  /** Set by the message that says so. */
  ended = false
  #lastSent = false

  /** Writes are written with immediate data, because that tells the reader by a completion that they are there. */
  constructor(link: BenchLink, kind: PingPongOpcode) {
    this.#link = link
    const payload = link.payload(0)
    const remote = { key: link.remoteKey, offset: 0 }
    const unsignaled = { id: 0, signaled: false }
    this.#message =
      kind === 'send'
        ? { ...unsignaled, opcode: 'send', ...payload }
        : { ...unsignaled, opcode: 'write-with-immediate', immediate: 0, remote, ...payload }
    this.#last =
      kind === 'send'
        ? { id: 1, opcode: 'send-with-immediate', immediate: benchEnd, ...payload }
        : { id: 1, opcode: 'write-with-immediate', immediate: benchEnd, remote, ...payload }
    const receives = link.receives(RECEIVES)
    link.postReceives(receives)
    this.#receive = receives[0]!
  }

  send(): void {
    while (this.#link.queuePair.postSend(this.#message) === 0) this.#link.waiter.poll()
  }

  /** Looks at what was taken; true if a message of the peer is among it. */
  arrived(count: number): boolean {
    const { batch } = this.#link.waiter
    let received = false
    for (let row = 0; row < count; row++) {
      const operation = batch.opcode[row]!
      if (operation !== opcode.receive && operation !== opcode.receiveWithImmediate) {
        this.#lastSent = true
        continue
      }
      received = true
      if (operation === opcode.receiveWithImmediate && batch.immediate[row] === benchEnd) this.ended = true
      this.#link.queuePair.postReceive(this.#receive)
    }
    return received
  }

  receive(): void {
    while (!this.arrived(this.#link.waiter.take()));
  }

  async receiveLater(): Promise<void> {
    while (!this.arrived(await this.#link.waiter.takeLater()));
  }

  /** The last message, and the word that it arrived. */
  end(): void {
    while (this.#link.queuePair.postSend(this.#last) === 0) this.#link.waiter.poll()
    while (!this.#lastSent) this.arrived(this.#link.waiter.take())
  }
}

export async function ping(link: BenchLink, kind: PingPongOpcode, window: BenchWindow): Promise<BenchTimes> {
  const game = new PingPong(link, kind)
  const times = new Times()
  const isPatient = link.waiter.wait === 'event-loop'
  for (let nowMs = clock.nowMs(); nowMs < window.untilMs; ) {
    const startMs = clock.nowMs()
    game.send()
    if (isPatient) await game.receiveLater()
    else game.receive()
    nowMs = clock.nowMs()
    if (nowMs >= window.fromMs) times.recordMs((nowMs - startMs) / 2)
  }
  game.end()
  return times.result('us')
}

export async function pong(link: BenchLink, kind: PingPongOpcode): Promise<void> {
  const game = new PingPong(link, kind)
  const isPatient = link.waiter.wait === 'event-loop'
  for (;;) {
    if (isPatient) await game.receiveLater()
    else game.receive()
    if (game.ended) return
    game.send()
  }
}
