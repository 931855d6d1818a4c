/**
 * Somebody's use of the way to a node: while one exists the lanes are not reaped, and are rebuilt when they fail.
 * On this node there are no lanes, and nothing to hold.
 */
export interface PathUse {
  /** Row of the peer; 0 is this node. */
  readonly peer: number
  readonly node: string
  /** Row of the lane now; null on this node, and for uses that only the engine can place. */
  readonly lane: number | null
  /** May be repeated. */
  release(): void
}

export function localUse(node: string): PathUse {
  return { peer: 0, node, lane: null, release: () => {} }
}
