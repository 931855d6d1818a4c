/**
 * Stands in for the C library in explored code: bells are words of the explored memory, named by their index as a descriptor would
 * be; sleeping is a step that can be blocked; time passes only by deadlines. Calls that are not here do not exist in an exploration.
 */
export interface Bells {
  readonly clockMs: number
  ring(bell: number): void
  /** False: the deadline came first. */
  hear(bell: number): boolean
  drain(bell: number): boolean
}

/** Set by each exploration; `mapping` is what the next segment to be mapped turns out to be. */
export const explored: { bells: Bells | undefined; mapping: object | undefined } = {
  bells: undefined,
  mapping: undefined,
}

const EPOLLET = 0x80000000

function bells(): Bells {
  if (!explored.bells) throw new Error('explored code runs outside of an exploration')
  return explored.bells
}

/** What a descriptor of epoll watches: one bell, by its level (the engine, which drains it itself) or by its edges. */
const watched: { bell: number; isEdge: boolean }[] = []

function waitFor({ bell, isEdge }: { bell: number; isEdge: boolean }): number {
  if (!bells().hear(bell)) return 0
  // An edge is gone once it was told. Two steps: a ring in between is told with it, and the sleeper looks afterwards.
  if (isEdge) bells().drain(bell)
  return 1
}

export const libc = {
  eventfdSignal: (bell: number): void => bells().ring(bell),
  eventfdDrain: (bell: number): boolean => bells().drain(bell),
  /** The index of the one that is ready: only bells ring here, and they come first. */
  pollDescriptors: ([bell]: readonly number[]): number => (bells().hear(bell!) ? 0 : -1),
  epollCreate: (): number => watched.push({ bell: -1, isEdge: false }) - 1,
  /** One bell a sleeper, and it comes first: nobody waits for anything else here. */
  epollAdd: (epoll: number, bell: number, events: number): void => {
    const entry = watched[epoll]!
    if (entry.bell >= 0) return
    entry.bell = bell
    entry.isEdge = (events & EPOLLET) !== 0
  },
  epollWait: (epoll: number): number => waitFor(watched[epoll]!),
  mapAnonymous: (): number => 0,
  munmap: (): void => {},
  closeDescriptor: (): void => {},
  schedulerYield: (): void => {},
  currentCore: (): number => 0,
  view: (_: number, byteLength: number): ArrayBuffer => new ArrayBuffer(byteLength),
  EPOLL_EVENT_BYTES: 12,
  EPOLL_TAG_OFFSET: 4,
  EPOLLET,
  EPOLLIN: 1,
  clock: { nowMs: (): number => bells().clockMs },
}

/** In place of the client's way from a descriptor to a mapping. */
export const segments = { mapSegment: (): unknown => explored.mapping }

/** What explored code sees as `performance`. */
export const explorerClock = { now: (): number => bells().clockMs }
