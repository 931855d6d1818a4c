/** What opening and reaping lanes need of the whole. */
import type { Lane } from './lane.js'
import type { LaneSet } from './lane-set.js'

export interface LaneKeeper {
  /** Frames go both ways. */
  laneUp(lane: Lane): void
  /** The lane is no good any more; settles when its queue pair is gone. `tellPeer`: the other side does not know yet. */
  laneLost(lane: Lane, reason: string, tellPeer: boolean): Promise<void>
  /** Something about the set changed: go on with what is missing. */
  pursue(set: LaneSet): void
  /** Lanes cannot be opened now; waiters hear why, and it is tried again later if somebody still needs it. */
  setFailed(set: LaneSet, error: unknown): void
}
