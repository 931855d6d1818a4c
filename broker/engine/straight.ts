/**
 * Small sends straight from a client's ring into the open frame of their lane: what most traffic is, taken, checked, posted and packed in
 * one step, without waiting in between. A slot goes from claimed to posted at once; the frame leaves after the visit has stored the ring's
 * head, so no request is executed before. Whatever is not plainly possible stays in the ring for `drain.ts`, which knows why and what then.
 */
import { opcode, operationFlags, packOperation, workRequestFlag } from '../../protocol/opcodes.js'
import { sendSlot } from '../../protocol/queue-pair-segment.js'
import { messageFlag, packKind, routeHeader, rowEntry } from '../../protocol/wire.js'
import { copyBytes } from '../../shm/copy.js'
import { claimedToPosted } from '../../shm/slot-state.js'
import type { Engine } from './engine.js'
import type { Flow } from './flow.js'
import { creditTier, type Lane } from './lane.js'
import { OnlyEntry } from './only-entry.js'
import type { Region } from './region.js'
import { writeRowRoute } from './route.js'
import { mayRun, tallySends } from './run.js'
import { type StraightSends, straightSend } from './straight-sends.js'

/** A send with one entry, whatever it asks of its completion: the operation word without those bits. */
export const PLAIN_SEND = packOperation(opcode.send, 0, 1)
export const PLAIN_MASK = ~packOperation(0, workRequestFlag.signaled | workRequestFlag.solicited, 0)
const SLOT = sendSlot.word
const SEND = straightSend
const ROUTE_BYTES = routeHeader.byteLength
const ENTRY_BYTES = rowEntry.byteLength
const ENTRY = rowEntry.word

/** One of each for the thread: they are read and used without anything in between. */
const entry = new OnlyEntry()
const visit = {
  /** Of the ring's entries, and how many of those left. */
  count: 0,
  messages: 0,
  bytes: 0,
  /** Bytes of the message that found no room in the frame; 0: there is another reason to stop. */
  needed: 0,
}

/** Takes up to `most` of the ring's committed entries, and moves its head over them; how many. */
export function sendStraight(engine: Engine, flow: Flow, lane: Lane, most: number): number {
  if (!isOpen(engine, flow, lane)) return 0
  const straight = straightOn(flow, lane)
  const budget = Math.min(most, (flow.receiveLimit - flow.messagesSent) | 0)
  visit.count = 0
  visit.messages = 0
  visit.bytes = 0
  visit.needed = ENTRY_BYTES
  while (visit.needed > 0 && visit.count < budget && lane.makeRoom(visit.needed, creditTier.data))
    fillRow(engine, flow, lane, straight, budget)
  const { count } = visit
  if (count > 0) flow.queuePair.sendRing.advance(count)
  if (visit.messages > 0) tell(engine, flow, lane, straight)
  return count
}

/** Puts messages behind one header, as long as the open frame has room. */
function fillRow(engine: Engine, flow: Flow, lane: Lane, straight: StraightSends, budget: number): void {
  const { queuePair } = flow
  const { sendRing: ring, words, sendsTaken, memory, sendSlotWords } = queuePair
  const { i32 } = memory
  const { lastSequence: frame, memory: target } = lane
  // Names of lanes are unsigned; as an integer it is stored without a conversion each time.
  const shared = lane.shared | 0
  const firstWord = queuePair.sendSlotWord(0)
  const first = ring.position
  const start = lane.openStart
  const end = lane.openEnd
  let at = start + ROUTE_BYTES
  let { count } = visit
  visit.needed = 0
  for (; count < budget; count++) {
    const slot = ring.slotAt(count)
    if (slot < 0 || sendsTaken[slot] !== 0) break
    const word = firstWord + slot * sendSlotWords
    const operation = i32[word + SLOT.operation]!
    if ((operation & PLAIN_MASK) !== PLAIN_SEND || !entry.read(engine, queuePair, word + SLOT.firstEntry)) break
    const { region, offset, byteLength } = entry
    const next = at + ((ENTRY_BYTES + byteLength + 7) & ~7)
    if (next > end) {
      if (ENTRY_BYTES + byteLength <= lane.payloadCapacity) visit.needed = ENTRY_BYTES + byteLength
      break
    }
    const generation = i32[word + SLOT.generation]! & 0xfffffff
    const position = (first + count) | 0
    // Before the state says posted: only a successor broker reads them.
    i32[word + SLOT.position] = position
    i32[word + SLOT.incarnation] = shared
    i32[word + SLOT.laneSequence] = frame
    // Not claimed any more: taken by a predecessor already, or a duplicate.
    if (!claimedToPosted(words, word, generation)) continue
    const sequence = (position + 1) | 0
    const flags = operationFlags(operation)
    sendsTaken[slot] = 1
    region.uses++
    remember(straight, region, slot, generation, flags, sequence, byteLength, offset, frame)
    const solicited = (flags & workRequestFlag.solicited) !== 0 ? messageFlag.solicited : 0
    target.i32[(at >>> 2) + ENTRY.kind] = packKind(0, solicited, byteLength)
    target.i32[(at >>> 2) + ENTRY.sequence] = sequence
    copyBytes(target, at + ENTRY_BYTES, region.memory, offset, byteLength)
    visit.bytes += byteLength
    visit.messages++
    at = next
  }
  visit.count = count
  const rowByteLength = at - start - ROUTE_BYTES
  if (rowByteLength === 0) return
  lane.takeRoom(rowByteLength)
  writeRowRoute(lane, start, rowByteLength, flow)
}

function remember(
  straight: StraightSends,
  region: Region,
  slot: number,
  generation: number,
  flags: number,
  sequence: number,
  byteLength: number,
  offset: number,
  frame: number,
): void {
  const at = straight.add(region)
  const { words } = straight
  words[at + SEND.slot] = slot
  words[at + SEND.generation] = generation
  words[at + SEND.flags] = flags
  words[at + SEND.sequence] = sequence
  words[at + SEND.byteLength] = byteLength
  words[at + SEND.offset] = offset
  words[at + SEND.frame] = frame
}

/** Those that left on another lane have their records before. */
function straightOn(flow: Flow, lane: Lane): StraightSends {
  const { straight } = flow
  if (straight.size > 0 && straight.shared !== lane.shared) flow.record()
  straight.shared = lane.shared
  return straight
}

function tell(engine: Engine, flow: Flow, lane: Lane, straight: StraightSends): void {
  // Nothing of a flow that begins is under way before.
  flow.beginOutbound(straight.words[straight.first + SEND.sequence]!)
  flow.highestSent = straight.lastSequence
  tallySends(engine, flow, visit.messages, visit.bytes)
  engine.markBusy(lane)
}

/** Nothing of the flow waits, nothing keeps it back, and nobody else was left waiting for the lane's frames. */
function isOpen(engine: Engine, flow: Flow, lane: Lane): boolean {
  if (flow.waiting.size > 0 || flow.suspended || flow.dead || flow.resending || flow.queuePair.ending) return false
  if (lane.state !== 'up' || !lane.mayPost || lane.failing || lane.hasControl || lane.crowded) return false
  return mayRun(engine, flow)
}
