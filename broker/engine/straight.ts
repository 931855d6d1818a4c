/**
 * Small sends straight from a client's ring into the open frame of their lane: what most traffic is, taken, checked, posted and packed in
 * one step, without waiting in between. A slot goes from claimed to posted at once; the frame leaves after the visit has stored the ring's
 * head, so no request is executed before. Whatever is not plainly possible stays in the ring for `drain.ts`, which knows why and what then.
 */
import { opcode, operationFlags, packOperation, workRequestFlag } from '../../protocol/opcodes.js'
import { sendSlot } from '../../protocol/queue-pair-segment.js'
import { messageFlag } from '../../protocol/wire.js'
import { copyBytes } from '../../shm/copy.js'
import { claimedToPosted } from '../../shm/slot-state.js'
import type { Engine } from './engine.js'
import type { Flow } from './flow.js'
import type { Lane } from './lane.js'
import { OnlyEntry } from './only-entry.js'
import { ENTRY_BYTES, RowWriter } from './row-writer.js'
import { mayRun, tallySends } from './run.js'
import type { StraightSends } from './straight-sends.js'

/** A send with one entry, whatever it asks of its completion: the operation word without those bits. */
export const PLAIN_SEND = packOperation(opcode.send, 0, 1)
export const PLAIN_MASK = ~packOperation(0, workRequestFlag.signaled | workRequestFlag.solicited, 0)
/** One for the thread: it is read and used without anything in between. */
const entry = new OnlyEntry()
const row = new RowWriter()

/** Takes up to `most` of the ring's committed entries, and moves its head over them; how many. */
export function sendStraight(engine: Engine, flow: Flow, lane: Lane, most: number): number {
  if (!isOpen(engine, flow, lane)) return 0
  const { queuePair } = flow
  const { sendRing: ring, words, sendsTaken } = queuePair
  const { i32 } = queuePair.memory
  const { shared } = lane
  // Names of lanes are unsigned; as an integer it is stored without a conversion each time.
  const sharedWord = shared | 0
  const longest = lane.payloadCapacity - ENTRY_BYTES
  const budget = Math.min(most, (flow.receiveLimit - flow.messagesSent) | 0)
  const straight = straightOn(flow, lane)
  const first = ring.position
  let count = 0
  let sent = 0
  let bytes = 0
  for (; count < budget; count++) {
    const slot = ring.slotAt(count)
    if (slot < 0 || sendsTaken[slot] !== 0) break
    const word = queuePair.sendSlotWord(slot)
    const operation = i32[word + sendSlot.word.operation]!
    if ((operation & PLAIN_MASK) !== PLAIN_SEND || !entry.read(engine, queuePair, word + sendSlot.word.entries)) break
    const { region, offset, byteLength } = entry
    if (byteLength > longest || !row.makeRoom(lane, flow, byteLength)) break
    const generation = i32[word + sendSlot.word.generation]! & 0xfffffff
    const position = (first + count) | 0
    // Before the state says posted: only a successor broker reads them.
    i32[word + sendSlot.word.position] = position
    i32[word + sendSlot.word.incarnation] = sharedWord
    i32[word + sendSlot.word.laneSequence] = lane.lastSequence
    // Not claimed any more: taken by a predecessor already, or a duplicate.
    if (!claimedToPosted(words, word, generation)) continue
    const sequence = (position + 1) | 0
    const flags = operationFlags(operation)
    sendsTaken[slot] = 1
    region.uses++
    const place = straight.add()
    straight.slot[place] = slot
    straight.generation[place] = generation
    straight.flags[place] = flags
    straight.sequence[place] = sequence
    straight.byteLength[place] = byteLength
    straight.offset[place] = offset
    straight.frame[place] = lane.lastSequence
    straight.region[place] = region
    const solicited = (flags & workRequestFlag.solicited) !== 0 ? messageFlag.solicited : 0
    const at = row.add(lane, solicited, byteLength, sequence)
    copyBytes(lane.memory, at, region.memory, offset, byteLength)
    bytes += byteLength
    sent++
  }
  if (count > 0) ring.advance(count)
  if (sent > 0) tell(engine, flow, lane, sent, bytes)
  return count
}

/** Those that left on another lane have their records before. */
function straightOn(flow: Flow, lane: Lane): StraightSends {
  const { straight } = flow
  if (straight.size > 0 && straight.shared !== lane.shared) flow.record()
  straight.shared = lane.shared
  return straight
}

function tell(engine: Engine, flow: Flow, lane: Lane, messages: number, bytes: number): void {
  row.end(lane, flow)
  const { straight } = flow
  // Nothing of a flow that begins is under way before.
  flow.beginOutbound(straight.sequence[straight.head]!)
  flow.highestSent = straight.lastSequence
  tallySends(engine, flow, messages, bytes)
  engine.markBusy(lane)
}

/** Nothing of the flow waits, nothing keeps it back, and nobody else waits for the lane's frames. */
function isOpen(engine: Engine, flow: Flow, lane: Lane): boolean {
  if (flow.waiting.size > 0 || flow.suspended || flow.dead || flow.resending || flow.queuePair.ending) return false
  if (lane.state !== 'up' || !lane.mayPost || lane.failing || lane.hasControl || lane.hasScheduled) return false
  return mayRun(engine, flow)
}
