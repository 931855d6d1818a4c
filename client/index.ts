/** The client SDK: everything an application imports. */
export type { ObjectHandle, QueuePairAddress, ServiceAddress } from '../protocol/address.js'
export type { ErrorCode } from '../protocol/error-codes.js'
export { SharedVerbsError } from '../protocol/errors.js'
export { type OpcodeName, opcode, type SendOpcodeName } from '../protocol/opcodes.js'
export { type StatusName, status } from '../protocol/statuses.js'
export { type AttachOptions, attach } from './attach.js'
export { type Completion, CompletionBatch } from './completion.js'
export type { CompletionQueue, WaitOptions } from './completion-queue.js'
export type {
  BrokerBackEvent,
  BrokerLostEvent,
  QueuePairDisconnectedEvent,
  QueuePairErrorEvent,
  QueuePairRoomEvent,
  SessionEvent,
} from './events.js'
export type { Listener, ListenOptions } from './listener.js'
export type { MemoryRegion, MemoryRights } from './memory-region.js'
export type { Refusal } from './posting.js'
export type { ConnectOptions, QueuePair, QueuePairHandle, QueuePairState } from './queue-pair.js'
export type {
  CallOptions,
  CompletionQueueOptions,
  OpenQueuePairOptions,
  QueuePairOptions,
  Session,
} from './session.js'
export type {
  CompareAndSwapRequest,
  FetchAndAddRequest,
  ReadRequest,
  ReceiveWorkRequest,
  RemoteMemory,
  ScatterGatherEntry,
  SendRequest,
  SendWithImmediateRequest,
  SendWorkRequest,
  WriteRequest,
  WriteWithImmediateRequest,
} from './work-request.js'
