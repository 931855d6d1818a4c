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

function bells(): Bells {
  if (!explored.bells) throw new Error('explored code runs outside of an exploration')
  return explored.bells
}

let watched = -1

export const libc = {
  eventfdSignal: (bell: number): void => bells().ring(bell),
  eventfdDrain: (bell: number): boolean => bells().drain(bell),
  /** The index of the one that is ready: only bells ring here, and they come first. */
  pollDescriptors: ([bell]: readonly number[]): number => (bells().hear(bell!) ? 0 : -1),
  epollCreate: (): number => 0,
  /** One bell a sleeper: the engine waits for nothing else here. */
  epollAdd: (_: number, bell: number): void => {
    watched = bell
  },
  epollWait: (): number => (bells().hear(watched) ? 1 : 0),
  mapAnonymous: (): number => 0,
  munmap: (): void => {},
  closeDescriptor: (): void => {},
  schedulerYield: (): void => {},
  currentCore: (): number => 0,
  EPOLL_EVENT_BYTES: 12,
  EPOLLIN: 1,
  clock: { nowMs: (): number => bells().clockMs },
}

/** In place of the client's way from a descriptor to a mapping. */
export const segments = { mapSegment: (): unknown => explored.mapping }

/** What explored code sees as `performance`. */
export const explorerClock = { now: (): number => bells().clockMs }
