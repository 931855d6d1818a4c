/** Queue pairs: what clients post to, multiplexed by the engine on shared queue pairs. */
import type { CheckedBody } from '../../protocol/control.js'
import { limits } from '../../protocol/limits.js'
import type { queuePairRow } from '../../protocol/node-file.js'
import {
  type QueuePairGeometry,
  queuePairGeometry,
  queuePairHeader,
  queuePairMagic,
  queuePairState,
  queuePairType,
} from '../../protocol/queue-pair-segment.js'
import { abiVersion } from '../../protocol/version.js'
import { Mapping } from '../../shm/mapping.js'
import type { AdoptedQueuePair } from '../engine/commands.js'
import type { RowOf } from '../observe/table.js'
import type { PathUse } from '../sharing/path-use.js'
import { accountOf, type CompletionQueue, type CompletionQueues } from './completion-queue.js'
import { type LeftRow, ObjectRegistry } from './object-registry.js'
import { forgiveMissing, mapPresented, type ObjectServices, recordUsage, tableFull } from './object-services.js'
import type { Session } from './session.js'
import { type ObjectIdentity, SharedObject } from './shared-object.js'

type QueuePairRequest = CheckedBody<'createQueuePair'>

interface QueuePairParts {
  readonly type: QueuePairRequest['type']
  readonly geometry: QueuePairGeometry
  readonly trafficClass: number
  readonly sendQueue: CompletionQueue
  readonly receiveQueue: CompletionQueue
}

export class QueuePair extends SharedObject {
  readonly type: QueuePairRequest['type']
  readonly geometry: QueuePairGeometry
  readonly trafficClass: number
  readonly sendQueue: CompletionQueue
  readonly receiveQueue: CompletionQueue
  /** A connect is under way: a second one would be for another peer. */
  connecting = false
  /** Where it is connected to, as far as the control plane knows. */
  connection: PathUse | null = null

  constructor(identity: ObjectIdentity & { creator: Session; mapping: Mapping }, parts: QueuePairParts) {
    super(identity)
    this.type = parts.type
    this.geometry = parts.geometry
    this.trafficClass = parts.trafficClass
    this.sendQueue = parts.sendQueue
    this.receiveQueue = parts.receiveQueue
  }
}

/** States of a row: protocol/queue-pair-segment.ts + 1, because 0 is a free row. */
const rowInUse = 1

export class QueuePairs extends ObjectRegistry<QueuePair> {
  protected readonly noun = 'queue pair'
  readonly #services: ObjectServices
  readonly #completionQueues: CompletionQueues

  constructor(services: ObjectServices, completionQueues: CompletionQueues) {
    super()
    this.#services = services
    this.#completionQueues = completionQueues
  }

  async create(session: Session, asked: QueuePairRequest): Promise<QueuePair> {
    const sendQueue = this.#completionQueues.held(session, asked.sendCompletionQueue)
    const receiveQueue = this.#completionQueues.held(session, asked.receiveCompletionQueue)
    const geometry = geometryOf(asked)
    this.#services.accounts.charge(accountOf(session), { queuePairs: 1, bytes: geometry.byteLength })
    const number = this.#services.nodeFile.queuePairs.reserve()
    let queuePair: QueuePair | undefined
    try {
      if (number === undefined) throw tableFull('queue pairs', this.#services.nodeFile.queuePairs.rows)
      const generation = this.#bumpGeneration(number)
      const mapping = Mapping.create(`queue-pair-${number}`, geometry.byteLength)
      const parts = { type: asked.type, geometry, trafficClass: asked.trafficClass, sendQueue, receiveQueue }
      queuePair = new QueuePair({ number, generation, creator: session, mapping }, parts)
      describe(queuePair, this.#services.nodeFile.epoch)
      this.#writeRow(queuePair, asked)
      sendQueue.queuePairs.add(queuePair)
      receiveQueue.queuePairs.add(queuePair)
      await this.#tellEngine(queuePair, asked, null)
    } catch (error) {
      if (queuePair) await this.#releaseQueues(queuePair)
      this.#undo(session, number, queuePair, geometry.byteLength)
      throw error
    }
    recordUsage(this.#services, session, { queuePairs: 1 })
    await this.keep(queuePair)
    return queuePair
  }

  protected leftRow(number: number): LeftRow | undefined {
    const { queuePairs } = this.#services.nodeFile
    return number < queuePairs.rows ? queuePairs.read(number) : undefined
  }

  /** Its completion queues were presented before. */
  protected async revive(creator: Session, number: number, descriptor: number): Promise<QueuePair> {
    const { nodeFile, accounts } = this.#services
    const row = nodeFile.queuePairs.read(number)
    const mapping = mapPresented(descriptor, row.segmentByteLength)
    const charge = { queuePairs: 1, bytes: queuePairGeometry(row).byteLength }
    let queuePair: QueuePair | undefined
    let charged = false
    try {
      const sendQueue = this.#completionQueues.ofNumber(row.sendCompletionQueue, creator.job)
      const receiveQueue = this.#completionQueues.ofNumber(row.receiveCompletionQueue, creator.job)
      const type = row.type === queuePairType.datagram ? 'datagram' : 'connected'
      const { generation, trafficClass } = row
      const parts = { type, geometry: queuePairGeometry(row), trafficClass, sendQueue, receiveQueue } as const
      queuePair = new QueuePair({ number, generation, creator, mapping }, parts)
      accounts.charge(accountOf(creator), charge)
      charged = true
      sendQueue.queuePairs.add(queuePair)
      receiveQueue.queuePairs.add(queuePair)
      await this.#tellEngine(queuePair, { type, rnrRetry: row.rnrRetry, rnrTimerMs: row.rnrTimerMs }, adoptionOf(row))
    } catch (error) {
      if (queuePair) await this.#releaseQueues(queuePair)
      if (charged) accounts.refund(accountOf(creator), charge)
      mapping.close()
      throw error
    }
    recordUsage(this.#services, creator, { queuePairs: 1 })
    return queuePair
  }

  /** What the row says of its connection; the engine writes it. */
  connectionOf({ number }: ObjectIdentity): { peer: number; lane: number; number: number; generation: number } | null {
    const row = this.#services.nodeFile.queuePairs.read(number)
    return row.condition === queuePairState.connected ? adoptionOf(row).connection : null
  }

  /** Of a job, also those that are just being removed: their locks may still be held. */
  ofJob(job: number): QueuePair[] {
    return this.all.filter((queuePair) => queuePair.job.number === job)
  }

  /** The row's part about the peer is written by the engine, which also knows of connections that were accepted. */
  setConnection(queuePair: QueuePair, use: PathUse): void {
    // It may have been closed while it was being connected.
    if (queuePair.removal) use.release()
    else queuePair.connection = use
  }

  /** The queue pair no longer needs its way, for whatever reason. May be repeated. */
  clearConnection(queuePair: QueuePair): void {
    const { connection } = queuePair
    if (!connection) return
    queuePair.connection = null
    connection.release()
    this.#services.nodeFile.queuePairs.write(queuePair.number, { lane: 0, peerNode: '', connected: 0 })
  }

  protected async remove(queuePair: QueuePair, discard: boolean): Promise<void> {
    const { number, generation } = queuePair
    const readers = [...queuePair.sendQueue.holders, ...queuePair.receiveQueue.holders]
    const nobodyReads = discard && !readers.some((session) => session.served)
    const reason = discard ? 'its last holder has left' : 'closed'
    const { engine } = this.#services
    await forgiveMissing(engine.call('remove-queue-pair', { number, generation, discard: nobodyReads, reason }))
    this.clearConnection(queuePair)
    this.forget(queuePair)
    await this.#releaseQueues(queuePair)
    recordUsage(this.#services, queuePair.creator, { queuePairs: -1 })
    this.#undo(queuePair.creator, number, queuePair, queuePair.geometry.byteLength)
  }

  async #tellEngine(
    queuePair: QueuePair,
    asked: Pick<QueuePairRequest, 'type' | 'rnrRetry' | 'rnrTimerMs'>,
    adopt: AdoptedQueuePair | null,
  ): Promise<void> {
    const { number, generation, geometry, mapping } = queuePair
    await this.#services.engine.call('add-queue-pair', {
      number,
      generation,
      job: queuePair.job.number,
      type: asked.type,
      span: { address: mapping.address, byteLength: mapping.byteLength },
      sendSlots: geometry.sendSlots,
      receiveSlots: geometry.receiveSlots,
      inlineByteLength: geometry.inlineByteLength,
      sendCompletionQueue: queuePair.sendQueue.number,
      receiveCompletionQueue: queuePair.receiveQueue.number,
      rnrRetry: asked.rnrRetry,
      rnrTimerMs: asked.rnrTimerMs,
      trafficClass: queuePair.trafficClass,
      adopt,
    })
  }

  async #releaseQueues(queuePair: QueuePair): Promise<void> {
    for (const queue of new Set([queuePair.sendQueue, queuePair.receiveQueue])) {
      await this.#completionQueues.release(queue, queuePair)
    }
  }

  #bumpGeneration(number: number): number {
    const { nodeFile } = this.#services
    const generation = nodeFile.generationAfter(nodeFile.queuePairs.read(number).generation)
    nodeFile.queuePairs.write(number, { generation })
    return generation
  }

  #writeRow(queuePair: QueuePair, asked: QueuePairRequest): void {
    this.#services.nodeFile.queuePairs.fill(queuePair.number, {
      state: rowInUse,
      job: queuePair.job.number,
      member: queuePair.creator.member,
      generation: queuePair.generation,
      type: queuePairType[queuePair.type],
      sendCompletionQueue: queuePair.sendQueue.number,
      receiveCompletionQueue: queuePair.receiveQueue.number,
      lane: 0,
      peerNumber: 0,
      peerGeneration: 0,
      sendSlots: queuePair.geometry.sendSlots,
      receiveSlots: queuePair.geometry.receiveSlots,
      messagesSent: 0,
      messagesReceived: 0,
      bytesSent: 0,
      bytesReceived: 0,
      segmentInode: queuePair.mapping.identity.inode,
      segmentByteLength: queuePair.mapping.byteLength,
      peerNode: '',
      condition: queuePairState.idle,
      errorStatus: 0,
      peer: 0,
      laneIndex: 0,
      connected: 0,
      inlineByteLength: queuePair.geometry.inlineByteLength,
      trafficClass: queuePair.trafficClass,
      rnrRetry: asked.rnrRetry,
      rnrTimerMs: asked.rnrTimerMs,
    })
  }

  #undo(session: Session, number: number | undefined, queuePair: QueuePair | undefined, byteLength: number): void {
    queuePair?.mapping.close()
    if (number !== undefined) this.#services.nodeFile.queuePairs.free(number)
    this.#services.accounts.refund(accountOf(session), { queuePairs: 1, bytes: byteLength })
  }
}

const adoptionOf = (row: RowOf<typeof queuePairRow>): AdoptedQueuePair => ({
  state: row.condition,
  errorStatus: row.errorStatus,
  connection:
    row.connected === 1
      ? { peer: row.peer, lane: row.laneIndex, number: row.peerNumber, generation: row.peerGeneration }
      : null,
})

function geometryOf(asked: QueuePairRequest): QueuePairGeometry {
  const slots = (count: number): number => Math.max(limits.minimumSlotsPerQueue, count)
  return queuePairGeometry({
    type: queuePairType[asked.type],
    sendSlots: slots(asked.maxSend),
    receiveSlots: slots(asked.maxReceive),
    inlineByteLength: asked.maxInline,
  })
}

/** The identity that every client checks before it looks at anything else. Slots are zero: free, generation 0. */
function describe(queuePair: QueuePair, epoch: number): void {
  const { geometry } = queuePair
  queuePairHeader.write(queuePair.mapping.memory, 0, {
    magic: queuePairMagic,
    version: abiVersion,
    number: queuePair.number,
    generation: queuePair.generation,
    type: queuePairType[queuePair.type],
    sendSlots: geometry.sendSlots,
    receiveSlots: geometry.receiveSlots,
    inlineByteLength: geometry.inlineByteLength,
    trafficClass: queuePair.trafficClass,
    sendCompletionQueue: queuePair.sendQueue.number,
    receiveCompletionQueue: queuePair.receiveQueue.number,
    epoch,
  })
}
