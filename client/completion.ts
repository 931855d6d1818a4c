/** Completions as applications see them: one object each, or columns of a batch that is filled again and again. */
import type { QueuePairAddress } from '../protocol/address.js'
import { type Opcode, type OpcodeName, opcode, opcodeNames } from '../protocol/opcodes.js'
import { type StatusName, status, statusName } from '../protocol/statuses.js'

/** The outcome of one work request. */
export interface Completion {
  /** The `id` of the work request. */
  readonly id: number
  /** What was posted; posted receives say `receive` or `receive-with-immediate`. */
  readonly opcode: OpcodeName
  /** `success`, or why not. `flushed` means certainly not executed, `unknown` that it may or may not have happened. */
  readonly status: StatusName
  /** Bytes transferred. */
  readonly byteLength: number
  /** Unsigned 32 bits; only with `receive-with-immediate`. */
  readonly immediate: number | undefined
  /** Number of the queue pair it was posted to (`qp.number`). */
  readonly queuePair: number
  /** Sender of a received message. */
  readonly source: QueuePairAddress | undefined
}

/** Gives the name of a node by its index in the broker page. */
export type NodeNames = (nodeIndex: number) => string

/**
 * Completions by column, for `cq.pollInto(batch)`, which allocates nothing. Rows 0 to `count - 1` are valid until the
 * next poll.
 *
 *   const batch = new CompletionBatch(64)
 *   const count = cq.pollInto(batch)
 *   for (let row = 0; row < count; row++) if (batch.status[row] === status.success) done(batch.id[row])
 */
export class CompletionBatch {
  readonly capacity: number
  /** Rows filled by the last poll. */
  count = 0
  readonly id: Float64Array
  /** Numbers of `opcode`. */
  readonly opcode: Uint8Array
  /** Numbers of `status`. */
  readonly status: Uint8Array
  readonly byteLength: Float64Array
  /** Meaningful for `receive-with-immediate`. */
  readonly immediate: Uint32Array
  readonly queuePair: Uint32Array
  /** Index for `session.nodeName(index)`; this and the next two are meaningful for receives that were not flushed. */
  readonly sourceNode: Uint32Array
  readonly sourceNumber: Uint32Array
  readonly sourceGeneration: Uint32Array

  /** `capacity`: the most completions one poll can return. */
  constructor(capacity = 64) {
    this.capacity = capacity
    this.id = new Float64Array(capacity)
    this.opcode = new Uint8Array(capacity)
    this.status = new Uint8Array(capacity)
    this.byteLength = new Float64Array(capacity)
    this.immediate = new Uint32Array(capacity)
    this.queuePair = new Uint32Array(capacity)
    this.sourceNode = new Uint32Array(capacity)
    this.sourceNumber = new Uint32Array(capacity)
    this.sourceGeneration = new Uint32Array(capacity)
  }

  opcodeName(row: number): OpcodeName {
    return opcodeNames[this.opcode[row] as Opcode] ?? 'send'
  }

  statusName(row: number): StatusName {
    return statusName(this.status[row]!)
  }

  /** Row as an object of its own. `nodeNames` gives the name for an index of a source. */
  completion(row: number, nodeNames: NodeNames): Completion {
    const operation = this.opcode[row]!
    const isReceive = operation === opcode.receive || operation === opcode.receiveWithImmediate
    return {
      id: this.id[row]!,
      opcode: this.opcodeName(row),
      status: this.statusName(row),
      byteLength: this.byteLength[row]!,
      immediate: operation === opcode.receiveWithImmediate ? this.immediate[row] : undefined,
      queuePair: this.queuePair[row]!,
      source: isReceive && this.status[row] !== status.flushed ? this.#source(row, nodeNames) : undefined,
    }
  }

  /** Copies a row of another batch. */
  copyRow(row: number, from: CompletionBatch, fromRow: number): void {
    this.id[row] = from.id[fromRow]!
    this.opcode[row] = from.opcode[fromRow]!
    this.status[row] = from.status[fromRow]!
    this.byteLength[row] = from.byteLength[fromRow]!
    this.immediate[row] = from.immediate[fromRow]!
    this.queuePair[row] = from.queuePair[fromRow]!
    this.sourceNode[row] = from.sourceNode[fromRow]!
    this.sourceNumber[row] = from.sourceNumber[fromRow]!
    this.sourceGeneration[row] = from.sourceGeneration[fromRow]!
  }

  #source(row: number, nodeNames: NodeNames): QueuePairAddress {
    return {
      node: nodeNames(this.sourceNode[row]!),
      number: this.sourceNumber[row]!,
      generation: this.sourceGeneration[row]!,
    }
  }
}
