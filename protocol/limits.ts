/** Fixed bounds of the protocol; a broker may be configured lower, never higher. */
export const limits = {
  /** Members (sessions) of a job on a node; index 0 is the broker. 11 bits in lock and slot words. */
  members: 2047,
  queuePairs: 16384,
  completionQueues: 16384,
  regions: 16384,
  jobs: 256,
  peers: 256,
  sharedQueuePairs: 1024,
  slotsPerQueue: 4096,
  minimumSlotsPerQueue: 4,
  completionQueueCapacity: 65536,
  scatterGatherEntries: 4,
  inlineByteLength: 512,
  regionByteLength: 0xfffff000,
  messageByteLength: 0xfffff000,
  controlMessageByteLength: 65536,
  nameByteLength: 64,
  serviceByteLength: 64,
  atomicWindow: 16,
  datagramFlows: 256,
  lanes: 64,
} as const

export const defaults = {
  maxSend: 128,
  maxReceive: 128,
  maxInline: 64,
  completionQueueCapacity: 1024,
  rnrRetry: 7,
  rnrTimerMs: 10,
  lanes: 1,
  bounceByteLength: 8192,
  bounceCount: 64,
  connectTimeoutMs: 5000,
} as const
