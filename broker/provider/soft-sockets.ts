/** The sockets of a device in one epoll set: its descriptor is what a sleeping engine waits for. */
import {
  closeDescriptor,
  EPOLL_EVENT_BYTES,
  EPOLL_TAG_OFFSET,
  epollAdd,
  epollCreate,
  epollModify,
  epollWait,
} from '../../shm/libc.js'
import { Arena } from './soft-arena.js'

/** Whoever owns a socket. Being called without cause is harmless: descriptors do not block. */
export interface Endpoint {
  onReady(events: number): void
}

const EVENTS_MAX = 64

export class SocketSet {
  readonly descriptor: number
  readonly #arena = new Arena(EVENTS_MAX * EPOLL_EVENT_BYTES)
  readonly #endpoints: (Endpoint | null)[] = []
  readonly #free: number[] = []

  constructor() {
    this.descriptor = epollCreate()
  }

  /** Returns the tag under which the socket is known here. */
  add(fd: number, events: number, endpoint: Endpoint): number {
    const tag = this.#free.pop() ?? this.#endpoints.length
    this.#endpoints[tag] = endpoint
    epollAdd(this.descriptor, fd, events, tag)
    return tag
  }

  /** Another owner, or other events. Edges that happened before are told again. */
  change(fd: number, tag: number, events: number, endpoint: Endpoint): void {
    this.#endpoints[tag] = endpoint
    epollModify(this.descriptor, fd, events, tag)
  }

  /** Closes the socket; the kernel takes it out of the set. */
  close(fd: number, tag: number): void {
    closeDescriptor(fd)
    this.#endpoints[tag] = null
    this.#free.push(tag)
  }

  /** Tells the owners what happened, without waiting; how many events there were. */
  dispatch(): number {
    const count = epollWait(this.descriptor, this.#arena.memory.address, EVENTS_MAX, 0)
    for (let index = 0; index < count; index++) {
      const at = index * EPOLL_EVENT_BYTES
      const events = this.#arena.memory.view.getUint32(at, true)
      const tag = this.#arena.memory.view.getUint32(at + EPOLL_TAG_OFFSET, true)
      this.#endpoints[tag]?.onReady(events)
    }
    return Math.max(count, 0)
  }

  /** After all its sockets were closed. */
  destroy(): void {
    closeDescriptor(this.descriptor)
    this.#arena.close()
  }
}
