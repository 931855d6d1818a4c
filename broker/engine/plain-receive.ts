/**
 * A posted receive with one entry that is filled and committed in one step, as nearly all are. Nothing else of its flow may be on its way to
 * a receive.
 *
 * Store order as in `finish.ts`: body → slot done(sequence) → last → completion ring. The ring's tail is stored at the end of the turn, so
 * `last` is stored once for all messages in a row.
 */
import { side } from '../../protocol/completion-queue-segment.js'
import { opcode, operationSgeCount, packOutcome } from '../../protocol/opcodes.js'
import { receiveSlot } from '../../protocol/queue-pair-segment.js'
import { status } from '../../protocol/statuses.js'
import { regionRight } from '../../protocol/wire.js'
import { copyBytes } from '../../shm/copy.js'
import type { Memory } from '../../shm/memory.js'
import { postedToDone } from '../../shm/slot-state.js'
import type { Engine } from './engine.js'
import { storeLast } from './finish.js'
import type { Flow } from './flow.js'
import { OnlyEntry } from './only-entry.js'
import type { EngineQueuePair } from './queue-pair.js'

const WORD = receiveSlot.word
const RESULT_LENGTH = WORD.byteLength >>> 1
const RECEIVED = packOutcome(opcode.receive, 1, status.success)

export class PlainReceive {
  readonly #entry = new OnlyEntry()
  #slot = -1
  #word = 0
  /** Where the messages come from, as the slots say it. */
  #sourceNode = 0
  #sourceNumber = 0
  #sourceGeneration = 0

  /** Messages of this flow follow, up to `end`. */
  begin(flow: Flow): void {
    this.#sourceNode = flow.peer | 0
    this.#sourceNumber = flow.remoteNumber | 0
    this.#sourceGeneration = flow.remoteGeneration | 0
  }

  /** Looks at the oldest posted receive; false: none is posted, or it is not plainly fit for so many bytes. */
  find(engine: Engine, queuePair: EngineQueuePair, byteLength: number): boolean {
    const slot = queuePair.receives.first
    if (slot < 0) return false
    const word = queuePair.receiveSlotWord(slot)
    if (operationSgeCount(queuePair.memory.i32[word + WORD.operation]!) !== 1) return false
    if (!this.#entry.read(engine, queuePair, word + WORD.firstEntry) || byteLength > this.#entry.byteLength)
      return false
    this.#slot = slot
    this.#word = word
    return (this.#entry.region.rights & regionRight.localWrite) !== 0
  }

  /** Fills the receive that was found with message `sequence`, and tells its client. */
  fill(
    engine: Engine,
    queuePair: EngineQueuePair,
    source: Memory,
    sourceOffset: number,
    byteLength: number,
    sequence: number,
    solicited: boolean,
  ): void {
    const { receives, memory } = queuePair
    const slot = this.#slot
    const entry = this.#entry
    const word = this.#word
    const generation = receives.generationOf(slot)
    copyBytes(entry.region.memory, entry.offset, source, sourceOffset, byteLength)
    receives.drop(slot)
    const { i32 } = memory
    memory.f64[(word >>> 1) + RESULT_LENGTH] = byteLength
    i32[word + WORD.operation] = RECEIVED
    i32[word + WORD.sourceNode] = this.#sourceNode
    i32[word + WORD.sourceNumber] = this.#sourceNumber
    i32[word + WORD.sourceGeneration] = this.#sourceGeneration
    i32[word + WORD.sequence] = sequence
    if (postedToDone(queuePair.words, word, generation))
      queuePair.receiveQueue.push(queuePair, side.receive, slot, generation, solicited)
    else engine.corrupt(queuePair, 'a receive slot changed before its completion')
  }

  /** `sequence` was the last one that was filled. */
  end(flow: Flow, sequence: number): void {
    flow.accepted = sequence
    flow.lastDelivered = sequence
    storeLast(flow)
  }
}
