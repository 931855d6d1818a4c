/**
 * Unix SEQPACKET sockets in the event loop: messages with descriptors, whole or not at all, in order.
 *
 *   SeqpacketListener ── accepts ──► SeqpacketConnection ── start(handlers) ──► onMessage(bytes, descriptors) …
 *                                            │                                  onClose(reason), exactly once
 *   SeqpacketConnection.connect(path) ───────┘
 *
 * - Nothing blocks. What the socket does not take is queued up to a bound; beyond it the connection closes, because a
 *   peer that does not read must not fill our memory.
 * - A descriptor that arrives is closed when the handler returns unless the handler took it: a peer cannot fill our
 *   table.
 * - Messages sent before the peer closed are delivered before `onClose`.
 * - A close is a detach, never a proof of death (liveness.ts).
 *
 * Waker: the peer's message, room in its queue, or its end (the kernel closes a dead peer's socket). No deadline here:
 * requests have theirs in the layer above.
 */
import { lstatSync, unlinkSync } from 'node:fs'
import { DescriptorPoll } from './descriptor-poll.js'
import { ShmError } from './errors.js'
import {
  closeDescriptor,
  duplicate,
  EAGAIN,
  EMFILE,
  ENFILE,
  errnoName,
  MAX_MESSAGE_BYTES,
  type PeerCredentials,
  peerCredentials,
  peerProcess,
  receiveMessage,
  SystemCallError,
  sendMessage,
  seqpacketAccept,
  seqpacketConnect,
  seqpacketListen,
} from './libc.js'

export { MAX_MESSAGE_BYTES } from './libc.js'

/** Bounds of the queue of one connection. */
export const MAX_QUEUED_MESSAGES = 1024
export const MAX_QUEUED_BYTES = 4 * 1024 * 1024
/** Descriptors accepted with one message; a message with more closes the connection. */
export const MAX_RECEIVED_DESCRIPTORS = 64
/** Messages and connections taken in one turn, so that one peer cannot hold the event loop. */
const TURN_BUDGET = 64
const PAUSE_MS = 100

export type CloseReason =
  | 'peer-closed'
  /** `close()` was called on this side. */
  | 'closed'
  | 'send-queue-full'
  /** Longer than MAX_MESSAGE_BYTES or with too many descriptors. */
  | 'message-refused'
  | 'system-error'

/** Descriptors of one message. Those that are not taken before the handler returns are closed. */
export class ReceivedDescriptors {
  readonly #fds: number[]

  constructor(fds: number[]) {
    this.#fds = fds
  }

  /** How many are not taken. */
  get count(): number {
    return this.#fds.length
  }

  /** The next one, the caller's from here on; undefined when there is none. */
  take(): number | undefined {
    return this.#fds.shift()
  }

  /** All that are left, the caller's from here on. */
  takeAll(): number[] {
    return this.#fds.splice(0)
  }

  close(): void {
    for (const fd of this.takeAll()) closeDescriptor(fd)
  }
}

export interface ConnectionHandlers {
  onMessage(message: Uint8Array, descriptors: ReceivedDescriptors): void
  onClose(reason: CloseReason): void
}

interface QueuedMessage {
  readonly message: Uint8Array
  /** Duplicates: the sender may close its own at once. */
  readonly fds: number[]
}

/** One for the thread: a message is copied out before its handler runs. */
const receiveBuffer = new Uint8Array(MAX_MESSAGE_BYTES)

export class SeqpacketConnection {
  readonly peer: PeerCredentials
  readonly #fd: number
  readonly #poll: DescriptorPoll
  #handlers: ConnectionHandlers | undefined
  #open = true
  readonly #queue: QueuedMessage[] = []
  #queuedBytes = 0

  /** A connected socket, the connection's from here on. */
  constructor(fd: number) {
    this.#fd = fd
    this.peer = peerCredentials(fd)
    this.#poll = new DescriptorPoll(fd, () => this.#turn())
  }

  /** Throws SystemCallError ENOENT or ECONNREFUSED when nobody listens, EAGAIN when the listener's queue is full. */
  static connect(path: string): SeqpacketConnection {
    return new SeqpacketConnection(seqpacketConnect(path))
  }

  get open(): boolean {
    return this.#open
  }

  /** For whoever sleeps on several things at once; reading and closing it stay the connection's. */
  get descriptor(): number {
    return this.#fd
  }

  /** Takes what has come by now: for a thread whose event loop is blocked. */
  readNow(): void {
    this.#turn()
  }

  /** Messages that the socket has not taken yet. */
  get queued(): number {
    return this.#queue.length
  }

  /** A pidfd of the peer for `watchProcessDescriptor`, or -errno on kernels that cannot tell. */
  peerProcess(): number {
    return peerProcess(this.#fd)
  }

  /** Begins to read; until then messages wait in the socket. */
  start(handlers: ConnectionHandlers): void {
    if (this.#handlers !== undefined || !this.#open)
      throw new Error('a connection starts once, and before it is closed')
    this.#handlers = handlers
    this.#watch()
  }

  /**
   * True: sent or queued; false: closed, now or before. The descriptors stay the caller's and may be closed after the
   * call.
   */
  send(message: Uint8Array, fds: readonly number[] = []): boolean {
    if (message.length === 0 || message.length > MAX_MESSAGE_BYTES) {
      throw new ShmError(
        'out-of-bounds',
        `a message of ${message.length} bytes; 1 to ${MAX_MESSAGE_BYTES} are possible`,
      )
    }
    if (!this.#open) return false
    if (this.#queue.length > 0) return this.#enqueue(message, fds)
    const result = sendMessage(this.#fd, message, fds)
    if (result >= 0) return true
    if (result === -EAGAIN) return this.#enqueue(message, fds)
    return this.#failSend(-result)
  }

  /** `onClose` is called once, by whichever end came first. What is queued is dropped. */
  close(reason: CloseReason = 'closed'): void {
    if (!this.#open) return
    this.#open = false
    this.#poll.close()
    for (const { fds } of this.#queue.splice(0)) for (const fd of fds) closeDescriptor(fd)
    this.#queuedBytes = 0
    closeDescriptor(this.#fd)
    this.#handlers?.onClose(reason)
  }

  /** Lets the process end although the connection is open. */
  unref(): void {
    this.#poll.unref()
  }

  ref(): void {
    this.#poll.ref()
  }

  #enqueue(message: Uint8Array, fds: readonly number[]): boolean {
    if (this.#queue.length >= MAX_QUEUED_MESSAGES || this.#queuedBytes + message.length > MAX_QUEUED_BYTES) {
      this.close('send-queue-full')
      return false
    }
    this.#queue.push({ message: message.slice(), fds: fds.map(duplicate) })
    this.#queuedBytes += message.length
    if (this.#queue.length === 1) this.#watch()
    return true
  }

  /** A peer that is gone is reported by the reading side, after what it sent before. */
  #failSend(errno: number): false {
    const name = errnoName(errno)
    if ((name === 'EPIPE' || name === 'ECONNRESET') && this.#handlers !== undefined) return false
    this.close(name === 'EPIPE' || name === 'ECONNRESET' ? 'peer-closed' : 'system-error')
    return false
  }

  /** Waits for what is wanted now: reading once started, writing while something is queued. */
  #watch(): void {
    const readable = this.#handlers !== undefined
    const writable = this.#queue.length > 0
    if (readable || writable) this.#poll.start({ readable, writable })
    else this.#poll.stop()
  }

  #turn(): void {
    if (this.#open && this.#queue.length > 0) this.#flush()
    if (this.#open && this.#handlers !== undefined) this.#read(this.#handlers)
  }

  #flush(): void {
    let next = this.#queue[0]
    while (next !== undefined) {
      const result = sendMessage(this.#fd, next.message, next.fds)
      if (result === -EAGAIN) return
      this.#queue.shift()
      this.#queuedBytes -= next.message.length
      for (const fd of next.fds) closeDescriptor(fd)
      if (result < 0) this.#failSend(-result)
      if (!this.#open) return
      next = this.#queue[0]
    }
    this.#watch()
  }

  #read(handlers: ConnectionHandlers): void {
    for (let taken = 0; taken < TURN_BUDGET && this.#open; taken++) {
      const received = this.#receive()
      if (received === undefined) return
      this.#dispatch(handlers, received.message, received.descriptors)
    }
  }

  #receive(): { message: Uint8Array; descriptors: ReceivedDescriptors } | undefined {
    try {
      const received = receiveMessage(this.#fd, receiveBuffer, MAX_RECEIVED_DESCRIPTORS)
      if (received === null) return undefined
      const descriptors = new ReceivedDescriptors(received.fds)
      if (received.byteLength > 0 && !received.truncated) {
        return { message: receiveBuffer.slice(0, received.byteLength), descriptors }
      }
      descriptors.close()
      this.close(received.truncated ? 'message-refused' : 'peer-closed')
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error
      this.close('system-error')
    }
    return undefined
  }

  #dispatch(handlers: ConnectionHandlers, message: Uint8Array, descriptors: ReceivedDescriptors): void {
    try {
      handlers.onMessage(message, descriptors)
    } finally {
      descriptors.close()
    }
  }
}

export interface ListenOptions {
  path: string
  /** Who may connect: 0o600 or 0o660. Set before anybody can. */
  mode: number
  /** Call `start` on it, or `close`. */
  onConnection(connection: SeqpacketConnection): void
}

export class SeqpacketListener {
  readonly path: string
  readonly #fd: number
  readonly #inode: number
  readonly #onConnection: (connection: SeqpacketConnection) => void
  readonly #poll: DescriptorPoll
  #resume: NodeJS.Timeout | undefined
  #open = true

  private constructor(fd: number, { path, onConnection }: ListenOptions) {
    this.path = path
    this.#fd = fd
    this.#inode = inodeOf(path)
    this.#onConnection = onConnection
    this.#poll = new DescriptorPoll(fd, () => this.#accept())
    this.#poll.start({ readable: true })
  }

  /** Takes the place of a dead server's socket; 'socket-in-use' if a living one listens there. */
  static listen(options: ListenOptions): SeqpacketListener {
    return new SeqpacketListener(listenOrReplace(options.path, options.mode), options)
  }

  /** Stops accepting and removes the path, unless a successor has put its own there. Connections go on. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    clearTimeout(this.#resume)
    this.#poll.close()
    closeDescriptor(this.#fd)
    if (this.#inode !== 0 && inodeOf(this.path) === this.#inode) unlinkSync(this.path)
  }

  #accept(): void {
    for (let taken = 0; taken < TURN_BUDGET && this.#open; taken++) {
      const fd = seqpacketAccept(this.#fd)
      if (fd === -EMFILE || fd === -ENFILE) this.#pause()
      if (fd === -EAGAIN || fd === -EMFILE || fd === -ENFILE) return
      // Any other error belongs to a connection that was given up before we took it.
      if (fd >= 0) this.#onConnection(new SeqpacketConnection(fd))
    }
  }

  /**
   * Out of descriptors: the waiting connection would wake us in every turn. Look again when some may have been closed.
   */
  #pause(): void {
    this.#poll.stop()
    this.#resume = setTimeout(() => this.#poll.start({ readable: true }), PAUSE_MS)
  }
}

function listenOrReplace(path: string, mode: number): number {
  try {
    return seqpacketListen(path, mode)
  } catch (error) {
    if (!(error instanceof SystemCallError) || error.code !== 'EADDRINUSE') throw error
  }
  if (someoneListens(path)) throw new ShmError('socket-in-use', `'${path}'`)
  unlinkSync(path)
  return seqpacketListen(path, mode)
}

function someoneListens(path: string): boolean {
  try {
    closeDescriptor(seqpacketConnect(path))
    return true
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error
    return error.code !== 'ECONNREFUSED'
  }
}

/** 0 when there is nothing, as for an abstract name. */
function inodeOf(path: string): number {
  return lstatSync(path, { throwIfNoEntry: false })?.ino ?? 0
}
