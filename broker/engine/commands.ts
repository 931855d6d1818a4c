/**
 * What the control plane asks of the engine, and what the engine tells it. Commands travel by MessagePort to the engine's worker thread,
 * answers and events come back the same way; the engine looks at the port between turns and never waits for the control plane.
 *
 * Memory is mapped by the control plane and named here by address; it unmaps only after the command that removes the object was
 * answered. Numbers (queue pairs, completion queues, regions, members, jobs, peers) are row numbers of the node file.
 */
import type { LaneParameters } from '../../protocol/link.js'
import type { PathChoice, QueuePairAddress as ProviderAddress, ProviderFailure } from '../provider/provider.js'

export interface MappedSpan {
  readonly address: number
  readonly byteLength: number
}

export interface EngineOptions {
  readonly provider: 'soft' | 'verbs' | 'auto'
  readonly device: string | null
  readonly path: PathChoice
  /** Address on which the soft provider listens. */
  readonly host: string
  readonly port: number
  readonly node: string
  readonly epoch: number
  readonly nodeFile: MappedSpan
  readonly brokerPage: MappedSpan
  /** Descriptor of the eventfd that clients ring when the engine sleeps. */
  readonly doorbell: number
  readonly idle: 'adaptive' | 'spin' | 'block'
  readonly bounceByteLength: number
  readonly bounceCount: number
  /** Bulk bytes posted and not completed, for each lane. */
  readonly bulkWindowByteLength: number
  /** Names of fault hooks for tests; empty in production. */
  readonly faults: string
}

export interface EngineReady {
  readonly provider: 'soft' | 'verbs'
  readonly device: string
  readonly address: string
  readonly laneParameters: LaneParameters
}

/** From the row of the queue pair in the node file, which only brokers write. */
export interface AdoptedQueuePair {
  /** `queuePairState`, and the status that put it into error. */
  readonly state: number
  readonly errorStatus: number
  /** `peer` is `thisNode` or a row of the peers table; `lane` the index among the lanes of the path. */
  readonly connection: {
    readonly peer: number
    readonly lane: number
    readonly number: number
    readonly generation: number
  } | null
}

interface Numbered {
  readonly number: number
  readonly generation: number
}

/** Every command with its arguments and its answer. */
export interface EngineCommands {
  'add-job': { arguments: { job: number; activity: MappedSpan }; answer: null }
  /** Answered when no object of the job is left; lanes of the job must be destroyed first. */
  'remove-job': { arguments: { job: number }; answer: null }
  'add-member': { arguments: { job: number; member: number; doorbell: number }; answer: null }
  'remove-member': { arguments: { job: number; member: number }; answer: null }
  'add-completion-queue': { arguments: Numbered & { job: number; span: MappedSpan; capacity: number }; answer: null }
  /** Refused with `busy` while a queue pair uses it. */
  'remove-completion-queue': { arguments: Numbered; answer: null }
  'add-queue-pair': {
    arguments: Numbered & {
      job: number
      type: 'connected' | 'datagram'
      span: MappedSpan
      sendSlots: number
      receiveSlots: number
      inlineByteLength: number
      sendCompletionQueue: number
      receiveCompletionQueue: number
      rnrRetry: number
      rnrTimerMs: number
      trafficClass: number
      /** What an earlier broker left of it; null for a new one. Nothing of an adopted one is touched before `resume-job`. */
      adopt: AdoptedQueuePair | null
    }
    answer: null
  }
  /**
   * After a restart, when every process of the job that lives has presented what it has (or its time is over): puts the adopted queue
   * pairs in order, drains every ring once, resumes same-node connections. Connections to other nodes resume when their lanes are up.
   * Members that died meanwhile are swept afterwards, by `sweep-member`.
   */
  'resume-job': { arguments: { job: number }; answer: { queuePairs: number } }
  /**
   * The way to a peer will not come back in time: what is suspended on it gets its verdicts, connected queue pairs fail with
   * `retry-exceeded`. `peer: thisNode` gives up same-node connections whose other end was not presented again.
   */
  'abandon-path': {
    arguments: { job: number; peer: number; trafficClass: number | null; reason: string }
    answer: { queuePairs: number }
  }
  /**
   * Flushes: every posted request and receive gets its verdict and its completion is published as far as the ring has room; the peer is
   * told. Answered when nothing in flight (here or at the peer) names the queue pair any more. `discard` drops completions instead of
   * publishing them (nobody is left to read).
   */
  'remove-queue-pair': { arguments: Numbered & { discard: boolean; reason: string }; answer: null }
  /**
   * Connects by number or by service, over a lane that is up, or on this node (`lane` null). Answered with the peer's numbers when the
   * peer accepted; fails with `connection-rejected`, `timeout`, `path-lost`.
   */
  'connect-queue-pair': {
    arguments: Numbered & {
      lane: number | null
      /** Row of the peer in the node file; `thisNode` for this node. */
      peer: number
      remote: { number: number; generation: number } | { service: string }
      timeoutMs: number
    }
    answer: Numbered
  }
  'disconnect-queue-pair': { arguments: Numbered & { timeoutMs: number }; answer: null }
  /** Answers of the control plane to a `connection-request` event. */
  'accept-connection': { arguments: Numbered & { connection: number }; answer: Numbered & { peer: number } }
  'reject-connection': { arguments: { connection: number; reason: number }; answer: null }
  /** Datagram queue pairs of the job may send to this peer over this lane (null: this node). */
  'add-datagram-path': {
    arguments: { job: number; peer: number; lane: number | null; trafficClass: number }
    answer: null
  }
  /** Maps and registers memory once; `span` is the whole arena of the region, mapped from the beginning of the file `descriptor`. */
  'add-region': {
    arguments: Numbered & { job: number; span: MappedSpan; descriptor: number; byteLength: number; rights: number }
    answer: { deviceKey: number }
  }
  /** Refuses new uses, waits for local and remote requests that name it (revoke handshake), deregisters. */
  'remove-region': { arguments: Numbered; answer: null }
  /**
   * Makes the provider's queue pair of a lane. `lane` is the row of the shared-queue-pairs table; `incarnation` is unique for ever on
   * this node. The answer's address goes to the peer. `peer` and `job` are rows; peerEpoch fences.
   */
  'create-lane': {
    arguments: {
      lane: number
      job: number
      peer: number
      peerNode: string
      incarnation: number
      /** The opener's incarnation: the lane's name at both ends. */
      shared: number
      trafficClass: number
      /** Which of the lanes of its job, peer and traffic class: a successor of the same index takes over its flows. */
      index: number
      parameters: LaneParameters
    }
    answer: ProviderAddress
  }
  /**
   * Brings the lane up with the peer's address and the negotiated parameters. Answered when a probe of more than two path MTUs came back
   * (initiator) or the peer's probe was answered and the peer's confirmation arrived (responder).
   */
  'connect-lane': {
    arguments: {
      lane: number
      incarnation: number
      remote: ProviderAddress
      parameters: LaneParameters
      initiator: boolean
      timeoutMs: number
    }
    answer: null
  }
  /** Fences, suspends the flows that were on it, destroys. With `orderly`, refused with `busy` unless nothing is in flight and no queue pair is on it. */
  'destroy-lane': { arguments: { lane: number; incarnation: number; orderly: boolean; reason: string }; answer: null }
  /**
   * A member died: its rings are drained to the end, then the slots it only claimed are freed, in every queue pair of the job; locks are
   * swept by the control plane. Queue pairs and regions of the member are removed by commands of their own.
   */
  'sweep-member': { arguments: { job: number; member: number; generation: number }; answer: { slotsSwept: number } }
  /**
   * No new work requests are taken from rings; answered when everything posted has its verdict, or at the deadline. For a `handover`
   * nothing more leaves, and only reads, writes and atomics are waited for: messages are exactly once also under a successor. If some are
   * left at the deadline, service goes on.
   */
  drain: { arguments: { timeoutMs: number; handover: boolean }; answer: { outstanding: number } }
  /** Releases the device and ends the thread. */
  stop: { arguments: Record<string, never>; answer: null }
}

export type EngineCommandName = keyof EngineCommands
export type EngineArguments<Name extends EngineCommandName> = EngineCommands[Name]['arguments']
export type EngineAnswer<Name extends EngineCommandName> = EngineCommands[Name]['answer']

export interface CommandMessage {
  readonly id: number
  readonly name: EngineCommandName
  readonly arguments: unknown
}

export interface EngineFailure {
  readonly code: string
  readonly message: string
}

/** What the engine tells unasked. */
export interface EngineEvents {
  ready: EngineReady
  /** The engine ended by itself: its last words. */
  failed: EngineFailure
  'connection-request': {
    connection: number
    job: number
    peer: number
    peerNode: string
    service: string
    remote: Numbered
  }
  'queue-pair-error': Numbered & { job: number; status: number; reason: string }
  'queue-pair-disconnected': Numbered & { job: number; reason: string }
  'completion-queue-error': Numbered & { job: number; reason: string }
  /** A poster that was refused for a lock that somebody held may try again. */
  'queue-pair-room': Numbered & { job: number }
  /** A lane went down by itself. Its flows wait for a successor; the control plane destroys it and makes one, or abandons the path. */
  'lane-failed': { lane: number; incarnation: number; reason: string }
  /** Port, path or device changes, already acknowledged to the device. */
  'device-event': { kind: string; detail: string }
}
export type EngineEventName = keyof EngineEvents

export type EngineMessage =
  | { readonly kind: 'answer'; readonly id: number; readonly answer: unknown }
  | { readonly kind: 'failure'; readonly id: number; readonly failure: EngineFailure }
  | {
      [Name in EngineEventName]: { readonly kind: 'event'; readonly name: Name; readonly body: EngineEvents[Name] }
    }[EngineEventName]

/** Row 0 of the peers table is this node itself. */
export const thisNode = 0

/** How a provider's failure maps to the project's codes. */
export const failureCodeOf: Readonly<Record<ProviderFailure['code'], string>> = {
  'not-supported': 'unsupported',
  'no-memory': 'no-memory',
  invalid: 'invalid-argument',
  limit: 'limit-exceeded',
  'device-gone': 'provider-unavailable',
  permission: 'access-denied',
  unreachable: 'peer-unreachable',
}
