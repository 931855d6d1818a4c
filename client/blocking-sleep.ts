/**
 * How a thread sleeps that blocks in a wait: one system call, on the session's bell and on the death of its broker.
 *
 * The bell is watched for its edges: each ring ends one sleep, whatever its counter says, so nothing is read to forget the ring. Whoever
 * else looks at the counter, such as a wait in the event loop, finds old rings there and looks once too often.
 *
 * Waker: whoever rings. Deadline: the caller's. Dead waker: a broker that dies hangs up the control connection.
 */
import {
  closeDescriptor,
  EPOLL_EVENT_BYTES,
  EPOLL_TAG_OFFSET,
  EPOLLET,
  EPOLLIN,
  epollAdd,
  epollCreate,
  epollWait,
  mapAnonymous,
  view,
} from '../shm/libc.js'

const BELL = 1
const CONNECTION = 2
const SOURCES = 2
const LONGEST_SLEEP_MS = 3_600_000

/** One for the thread: a sleeper is done with them before the next one sleeps. */
const eventsAddress = mapAnonymous(SOURCES * EPOLL_EVENT_BYTES)
const events = new Int32Array(view(eventsAddress, SOURCES * EPOLL_EVENT_BYTES))
const tagAt = (index: number): number => (index * EPOLL_EVENT_BYTES + EPOLL_TAG_OFFSET) / 4

export class BlockingSleep {
  readonly #bell: number
  #epoll = -1
  #connection = -1

  /** Costs nothing before the first sleep. The descriptors stay the caller's. */
  constructor(bell: number, connection: number) {
    this.#bell = bell
    this.#connection = connection
  }

  /** The connection to the next broker. The one before is closed, which ends that it is watched. */
  connect(connection: number): void {
    this.#connection = connection
    if (this.#epoll >= 0) epollAdd(this.#epoll, connection, 0, CONNECTION)
  }

  /** Until a ring, a hang-up, a signal or the deadline; the caller looks at everything again. True: the connection was hung up. */
  sleep(timeoutMs: number): boolean {
    if (this.#epoll < 0) this.#open()
    const count = epollWait(this.#epoll, eventsAddress, SOURCES, Math.min(Math.ceil(timeoutMs), LONGEST_SLEEP_MS))
    for (let index = 0; index < count; index++) if (events[tagAt(index)] === CONNECTION) return true
    return false
  }

  /** May be called again. */
  close(): void {
    if (this.#epoll >= 0) closeDescriptor(this.#epoll)
    this.#epoll = -1
  }

  #open(): void {
    this.#epoll = epollCreate()
    epollAdd(this.#epoll, this.#bell, EPOLLIN | EPOLLET, BELL)
    epollAdd(this.#epoll, this.#connection, 0, CONNECTION)
  }
}
