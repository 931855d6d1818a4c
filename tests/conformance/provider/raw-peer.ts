/** A hand-made peer of a soft device: speaks bytes, right or wrong, over a plain socket. */

import type { QueuePairAddress } from '../../../broker/provider/provider.js'
import { decodeGreeting, encodeGreeting, GREETING_BYTES, greetingKind } from '../../../broker/provider/soft-hello.js'
import { closeDescriptor, EAGAIN, receive, send, setNoDelay, tcpConnectStart } from '../../../shm/libc.js'
import { Mapping } from '../../../shm/mapping.js'
import type { Rig } from './rig.js'

const BUFFER_BYTES = 2 << 20

export class RawPeer {
  readonly #rig: Rig
  readonly #fd: number
  readonly #buffer: Mapping
  isClosed = false

  constructor(rig: Rig, target: QueuePairAddress) {
    this.#rig = rig
    this.#buffer = Mapping.create('raw-peer', BUFFER_BYTES)
    rig.mappings.push(this.#buffer)
    this.#fd = tcpConnectStart(String(target.path.host), Number(target.path.port))
    setNoDelay(this.#fd)
  }

  /** Sends all of it, in pieces of the given lengths (the last one repeats), turning the devices between them. */
  say(bytes: Uint8Array, pieces: readonly number[] = [bytes.length]): void {
    let at = 0
    for (let index = 0; at < bytes.length && !this.isClosed; index++) {
      const length = Math.max(1, Math.min(pieces[Math.min(index, pieces.length - 1)]!, bytes.length - at))
      this.#buffer.memory.u8.set(bytes.subarray(at, at + length))
      this.#sendAll(length)
      at += length
      this.#rig.turn()
    }
  }

  #sendAll(length: number): void {
    let at = 0
    this.#rig.until(() => {
      const sent = send(this.#fd, this.#buffer.address + at, length - at, 0)
      if (sent > 0) at += sent
      else if (sent !== -EAGAIN) this.isClosed = true
      return at === length || this.isClosed
    }, 'room in the socket')
  }

  /** What has come until now; empty when nothing is there. */
  hear(): Uint8Array {
    const received = receive(this.#fd, this.#buffer.address, BUFFER_BYTES, 0)
    if (received <= 0 && received !== -EAGAIN) this.isClosed = true
    return this.#buffer.memory.u8.slice(0, Math.max(received, 0))
  }

  /** Turns until so many bytes came or the device hung up. */
  hearAll(length: number): Uint8Array {
    const heard: Uint8Array[] = []
    let count = 0
    this.#rig.until(() => {
      const bytes = this.hear()
      heard.push(bytes)
      count += bytes.length
      return count >= length || this.isClosed
    }, `${length} bytes from the device`)
    return new Uint8Array(Buffer.concat(heard))
  }

  /** Says hello as `self` would; true when it was welcomed. */
  greet(self: QueuePairAddress, target: QueuePairAddress): boolean {
    this.say(helloOf(self, target))
    const welcome = decodeGreeting(this.hearAll(GREETING_BYTES))
    return welcome !== null && welcome.kind === greetingKind.welcome && welcome.token === self.path.token
  }

  close(): void {
    closeDescriptor(this.#fd)
  }
}

export function helloOf(self: QueuePairAddress, target: QueuePairAddress): Uint8Array {
  return encodeGreeting({
    kind: greetingKind.hello,
    sourceNumber: self.number,
    targetNumber: target.number,
    sourcePacketSequence: self.packetSequence,
    targetPacketSequence: target.packetSequence,
    token: String(target.path.token),
  })
}

/** Address of a queue pair that exists only in a test; it compares below every other, so it is the one that dials. */
export function madeUpAddress(): QueuePairAddress {
  return { number: 2, packetSequence: 0x123456, path: { host: '127.0.0.1', port: 1, token: 'ab'.repeat(16) } }
}
