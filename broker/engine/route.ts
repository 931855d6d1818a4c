/** The header in front of each message of a flow. Delivery and credit news ride on it. */
import { messageType, packKind, routeHeader } from '../../protocol/wire.js'
import type { Flow } from './flow.js'
import type { Lane } from './lane.js'
import { tellDelivered, tellLimit } from './news.js'

const WORD = routeHeader.word

/** Fills the header at `offset` of the lane's memory for a message that goes now. */
export function writeRoute(
  lane: Lane,
  offset: number,
  type: number,
  flags: number,
  payloadByteLength: number,
  flow: Flow,
  sequence: number,
  immediate: number,
  segmentOffset: number,
): void {
  const { i32 } = lane.memory
  const word = offset >>> 2
  flow.frameStamp = lane.frameStamp
  if (type === messageType.eager || type === messageType.row || type === messageType.atomic) lane.pace.smallMessages++
  i32[word + WORD.kind] = packKind(type, flags, routeHeader.byteLength + payloadByteLength)
  i32[word + WORD.immediate] = immediate
  i32[word + WORD.destinationNumber] = flow.remoteNumber
  i32[word + WORD.destinationGeneration] = flow.remoteGeneration
  i32[word + WORD.sourceNumber] = flow.queuePair.number
  i32[word + WORD.sourceGeneration] = flow.queuePair.generation
  i32[word + WORD.sequence] = sequence
  i32[word + WORD.delivered] = tellDelivered(flow)
  i32[word + WORD.receiveLimit] = tellLimit(flow)
  i32[word + WORD.segmentOffset] = segmentOffset
}

/** The same in front of a row of messages that take `byteLength` bytes, each with its own sequence. */
export function writeRowRoute(lane: Lane, offset: number, byteLength: number, flow: Flow): void {
  writeRoute(lane, offset, messageType.row, 0, byteLength, flow, 0, 0, 0)
}
