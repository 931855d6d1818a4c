/** Puts small messages of one flow behind one route header, as long as the open frame of their lane has room. */
import { packKind, routeHeader, rowEntry } from '../../protocol/wire.js'
import type { Flow } from './flow.js'
import { creditTier, type Lane } from './lane.js'
import { writeRowRoute } from './route.js'

export const ENTRY_BYTES = rowEntry.byteLength
const ROUTE_BYTES = routeHeader.byteLength
const WORD = rowEntry.word

export class RowWriter {
  /** Where the route header will stand; -1: nothing was begun. */
  #start = -1
  #end = 0

  /** Whether one more message can be added; ends the row, and opens another frame, where that is needed. */
  makeRoom(lane: Lane, flow: Flow, byteLength: number): boolean {
    const needed = ENTRY_BYTES + byteLength
    if (this.#start >= 0 && lane.hasRoom(needed)) return true
    this.end(lane, flow)
    return lane.makeRoom(needed, creditTier.data)
  }

  /** Behind `makeRoom` for as many bytes; where the payload goes in the lane's memory. */
  add(lane: Lane, flags: number, byteLength: number, sequence: number): number {
    let at: number
    if (this.#start < 0) {
      this.#start = lane.takeRoom(ENTRY_BYTES + byteLength)
      at = this.#start + ROUTE_BYTES
    } else at = lane.takeMore(ENTRY_BYTES + byteLength)
    const { i32 } = lane.memory
    const word = at >>> 2
    i32[word + WORD.kind] = packKind(0, flags, byteLength)
    i32[word + WORD.sequence] = sequence
    this.#end = at + ENTRY_BYTES + byteLength
    return at + ENTRY_BYTES
  }

  /** Whatever comes next stands behind it. */
  end(lane: Lane, flow: Flow): void {
    if (this.#start < 0) return
    writeRowRoute(lane, this.#start, this.#end - this.#start - ROUTE_BYTES, flow)
    this.#start = -1
  }
}
