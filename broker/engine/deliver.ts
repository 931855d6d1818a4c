/**
 * Matching arrived messages to posted receives. Receives are matched in order at arrival, filled at once, and told in order: a small
 * message behind a large one is placed immediately and waits for its turn in its own buffer, never in a bounce buffer.
 */
import { opcode } from '../../protocol/opcodes.js'
import { type Status, status } from '../../protocol/statuses.js'
import type { Memory } from '../../shm/memory.js'
import type { Engine } from './engine.js'
import { takeReceive } from './entries.js'
import { finishReceive } from './finish.js'
import type { Flow } from './flow.js'
import { scatter } from './gather.js'
import { type ReceiveRequest, receiveStage } from './request.js'

/** Binds the oldest posted receive to message `sequence`; null when none is posted. */
export function bindReceive(engine: Engine, flow: Flow, sequence: number): ReceiveRequest | null {
  const receive = takeReceive(engine, flow.queuePair)
  if (!receive) return null
  receive.stage = receiveStage.bound
  receive.sequence = sequence
  receive.operation = opcode.receive
  if (receive.refused === 0) {
    receive.retained = true
    receive.local.retain()
  }
  flow.accepted = sequence
  flow.inbound.push(receive)
  return receive
}

/** True for a message that was accepted before: it is only acknowledged again. */
export const repeated = (flow: Flow, sequence: number): boolean => ((sequence - flow.accepted) | 0) <= 0

/** One eager segment. The caller knows that a receive is bound (first segment) or being assembled. */
export function placeSegment(
  engine: Engine,
  flow: Flow,
  receive: ReceiveRequest,
  source: Memory,
  sourceOffset: number,
  byteLength: number,
  more: boolean,
): void {
  const at = flow.assembledByteLength
  flow.assembledByteLength = at + byteLength
  if (receive.refused === 0 && at + byteLength > receive.local.byteLength) receive.refused = status.localLengthError
  if (receive.refused === 0 && byteLength > 0) scatter(receive.local, at, source, sourceOffset, byteLength)
  if (more) {
    flow.assembling = receive
    return
  }
  flow.assembling = null
  receive.byteLength = flow.assembledByteLength
  flow.assembledByteLength = 0
  settleReceive(engine, flow, receive)
}

/** All of a message arrived (or its refusal is certain): tells both sides. */
export function settleReceive(engine: Engine, flow: Flow, receive: ReceiveRequest): void {
  if (receive.refused !== 0) engine.refuseMessage(flow, receive.sequence, senderStatus(receive.refused))
  finishReceive(engine, flow, receive, receive.refused)
}

/** What the sender is told of a failure at the receiver (InfiniBand specification, responder errors; verbs-semantics §2.4). */
function senderStatus(receiver: Status): Status {
  return receiver === status.localLengthError ? status.remoteInvalidRequest : status.remoteOperationError
}
