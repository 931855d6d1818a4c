/** Everything that explorations run, as one entry: `load.ts` makes copies of it, as it is or with one thing wrong. */

export { sweepQueuePair } from '../../broker/engine/command-handlers.js'
export { thisNode } from '../../broker/engine/commands.js'
export { EngineCompletionQueue } from '../../broker/engine/completion-queue.js'
export { bindReceive, repeated } from '../../broker/engine/deliver.js'
export { takeFrame } from '../../broker/engine/dispatch.js'
export { drainReceives, drainSends, recordSend } from '../../broker/engine/drain.js'
export { Engine } from '../../broker/engine/engine.js'
export { completeUnsent, finishReceive, markPosted } from '../../broker/engine/finish.js'
export { Flow } from '../../broker/engine/flow.js'
export { Idle } from '../../broker/engine/idle.js'
export { creditTier, Lane } from '../../broker/engine/lane.js'
export { LaneGroup } from '../../broker/engine/lane-group.js'
export { laneSizes } from '../../broker/engine/lane-sizes.js'
export { EngineQueuePair } from '../../broker/engine/queue-pair.js'
export {
  finishVisits,
  leftInReceiveSlots,
  leftInSendSlots,
  recoverLast,
  republish,
  retakeReceives,
  retakeSends,
} from '../../broker/engine/recovery.js'
export { Region } from '../../broker/engine/region.js'
export { decide, noEvidence, verdictWithoutReplay } from '../../broker/engine/verdicts.js'
export { Attachment } from '../../client/attachment.js'
export { CompletionBatch } from '../../client/completion.js'
export { CompletionQueue } from '../../client/completion-queue.js'
export { Poller } from '../../client/polling.js'
export { QueuePair } from '../../client/queue-pair.js'
export { QueuePairSegment } from '../../client/queue-pair-segment.js'
export { clearAll } from '../../shm/activity.js'
export { Doorbell } from '../../shm/doorbell.js'
export { ownerMember, ownerWord, RobustLock, sweepLock } from '../../shm/robust-lock.js'
export {
  claimerOf,
  doneToFree,
  generationOf,
  packClaimed,
  packState,
  postedToDone,
  postedToQueued,
  SLOT_CLAIMED,
  SLOT_DONE,
  SLOT_FREE,
  SLOT_POSTED,
  stateOf,
} from '../../shm/slot-state.js'
export { explored, explorerClock } from '../support/explorer-libc.js'
