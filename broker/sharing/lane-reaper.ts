/**
 * Ends lanes that nobody used for a while, so that idle jobs cost no provider queue pairs. The opening side asks (lane-reap); the
 * other agrees only when it does not use them either, and each engine has the last word about its own end.
 */
import type { Clock } from '../control/clock.js'
import { within } from '../control/within.js'
import { createAnswer, type Lane } from './lane.js'
import type { LaneKeeper } from './lane-keeper.js'
import type { LaneMaker } from './lane-maker.js'
import type { LaneSet } from './lane-set.js'

export interface LaneReaperOptions {
  readonly clock: Clock
  readonly maker: LaneMaker
  readonly keeper: LaneKeeper
  readonly idleMs: number
}

const ANSWER_TIMEOUT_MS = 5000

export class LaneReaper {
  readonly #options: LaneReaperOptions

  constructor(options: LaneReaperOptions) {
    this.#options = options
  }

  /** Starts or stops the clock of idleness; call when anything about the set changed. */
  watch(set: LaneSet): void {
    const mayReap = set.peer.link?.handshake.decides === true && set.up.length > 0 && !set.reaping && !set.opening
    if (set.needed || !mayReap) {
      set.idle?.cancel()
      set.idle = null
      return
    }
    set.idle ??= this.#options.clock.after(this.#options.idleMs, () => {
      set.idle = null
      void this.#reap(set)
    })
  }

  /** The peer asks whether a lane may go. */
  async answer(lane: Lane): Promise<void> {
    const { set } = lane
    const agreed = !set.needed && lane.state === 'up' && (await this.#end(lane))
    set.peer.send('lane-reaped', { ...lane.name, agreed })
    this.#options.keeper.pursue(set)
  }

  async #reap(set: LaneSet): Promise<void> {
    if (set.needed || set.reaping) return
    set.reaping = true
    await Promise.all(set.up.map((lane) => this.#reapLane(lane)))
    set.reaping = false
    set.peer.condition.notify()
    this.#options.keeper.pursue(set)
  }

  async #reapLane(lane: Lane): Promise<void> {
    const { clock, keeper } = this.#options
    const reaped = createAnswer<boolean>()
    lane.state = 'closing'
    lane.reaped = reaped
    lane.set.peer.send('lane-reap', lane.name)
    try {
      const agreed = await within(reaped.promise, ANSWER_TIMEOUT_MS, clock, `reaping lane ${lane.index}`)
      if (!agreed) lane.state = 'up'
      else if (!(await this.#end(lane))) await keeper.laneLost(lane, 'the peer has reaped its end', true)
    } catch {
      // Whether the peer's end is gone is not known, so this one cannot stay.
      await keeper.laneLost(lane, 'the peer did not say whether it reaped its end', true)
    }
  }

  /** False: the engine still has something on it. */
  async #end(lane: Lane): Promise<boolean> {
    lane.state = 'closing'
    try {
      if (await this.#options.maker.reap(lane)) return true
      lane.state = 'up'
    } catch {
      await this.#options.keeper.laneLost(lane, 'it could not be reaped', true)
    }
    return false
  }
}
