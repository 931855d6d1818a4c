/**
 * Small sends straight from a client's ring to a receive of this node: taken, checked, copied and told to both ends in one step. The head
 * of the ring moves before each of them is executed, because its slot may be free, and claimed anew, as soon as it is done. Whatever is not
 * plainly possible stays in the ring for `drain.ts`.
 */
import { side } from '../../protocol/completion-queue-segment.js'
import { workRequestFlag } from '../../protocol/opcodes.js'
import { sendSlot } from '../../protocol/queue-pair-segment.js'
import { status } from '../../protocol/statuses.js'
import { claimedToPosted, postedToDone, postedToFree } from '../../shm/slot-state.js'
import type { Engine } from './engine.js'
import { tallyReceived, tallySent } from './finish.js'
import type { Flow } from './flow.js'
import { isEmpty, LONGEST, tallyLocal } from './local-run.js'
import { OnlyEntry } from './only-entry.js'
import { PlainReceive } from './plain-receive.js'
import type { EngineQueuePair } from './queue-pair.js'
import { mayRun } from './run.js'
import { PLAIN_MASK, PLAIN_SEND } from './straight.js'

const WORD = sendSlot.word
const RESULT_LENGTH = WORD.byteLength >>> 1
/** One of each for the thread: they are read and used without anything in between. */
const entry = new OnlyEntry()
const posted = new PlainReceive()

/** Takes up to `most` of the ring's committed entries, and moves its head over them; how many. */
export function copyStraight(engine: Engine, flow: Flow, most: number): number {
  const { queuePair, twin } = flow
  if (twin === null || !isOpen(engine, flow, twin)) return 0
  const { sendRing: ring, words, memory, sendsTaken } = queuePair
  const { i32 } = memory
  let count = 0
  let messages = 0
  let bytes = 0
  posted.begin(twin)
  for (; count < most && bytes < LONGEST; count++) {
    const slot = ring.slotAt(0)
    if (slot < 0 || sendsTaken[slot] !== 0) break
    const word = queuePair.sendSlotWord(slot)
    const operation = i32[word + WORD.operation]!
    if ((operation & PLAIN_MASK) !== PLAIN_SEND || !entry.read(engine, queuePair, word + WORD.firstEntry)) break
    const { byteLength } = entry
    if (byteLength > LONGEST || !posted.find(engine, twin.queuePair, byteLength)) break
    const generation = i32[word + WORD.generation]! & 0xfffffff
    const position = ring.position
    // Before the state says posted: only a successor broker reads them.
    i32[word + WORD.position] = position
    i32[word + WORD.incarnation] = 0
    i32[word + WORD.laneSequence] = 0
    const isTaken = claimedToPosted(words, word, generation)
    ring.advance()
    // Not claimed any more: taken by a predecessor already, or a duplicate.
    if (!isTaken) continue
    const flags = operation >>> 8
    const sequence = (position + 1) | 0
    flow.beginOutbound(sequence)
    twin.beginInbound(sequence)
    posted.fill(
      engine,
      twin.queuePair,
      entry.region.memory,
      entry.offset,
      byteLength,
      sequence,
      (flags & workRequestFlag.solicited) !== 0,
    )
    posted.end(twin, sequence)
    flow.highestSent = sequence
    flow.delivered = sequence
    commit(engine, queuePair, slot, word, generation, (flags & workRequestFlag.signaled) !== 0, byteLength)
    bytes += byteLength
    messages++
  }
  if (messages > 0) tell(engine, flow, twin, messages, bytes)
  return count
}

/** Nothing waits or is under way that must be told before. */
function isOpen(engine: Engine, flow: Flow, twin: Flow): boolean {
  if (!flow.connected || flow.dead || flow.waiting.size > 0 || flow.moving !== null || flow.queuePair.ending)
    return false
  return !twin.queuePair.ending && isEmpty(flow, twin) && mayRun(engine, flow)
}

/** The sender's verdict, after the receiver's. */
function commit(
  engine: Engine,
  queuePair: EngineQueuePair,
  slot: number,
  word: number,
  generation: number,
  signaled: boolean,
  byteLength: number,
): void {
  const { words, memory, sendQueue } = queuePair
  if (!signaled) {
    if (!postedToFree(words, word, generation)) engine.corrupt(queuePair, 'a send slot changed before its completion')
    sendQueue.ended++
    return
  }
  memory.i32[word + WORD.status] = status.success
  memory.f64[(word >>> 1) + RESULT_LENGTH] = byteLength
  if (!postedToDone(words, word, generation)) {
    engine.corrupt(queuePair, 'a send slot changed before its completion')
    return
  }
  sendQueue.push(queuePair, side.send, slot, generation, false)
  engine.touchQueue(sendQueue)
}

function tell(engine: Engine, flow: Flow, twin: Flow, messages: number, bytes: number): void {
  tallyLocal(engine, messages, bytes)
  tallySent(engine, flow.queuePair, messages, bytes)
  tallyReceived(engine, twin.queuePair, messages, bytes)
  engine.touchQueue(twin.queuePair.receiveQueue)
}
