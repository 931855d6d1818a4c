/** Completion queues: rings that a client polls. */

import {
  completionQueueGeometry,
  completionQueueHeader,
  completionQueueMagic,
} from '../../protocol/completion-queue-segment.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import { abiVersion } from '../../protocol/version.js'
import { Mapping } from '../../shm/mapping.js'
import type { Job } from './job.js'
import { type LeftRow, ObjectRegistry } from './object-registry.js'
import { forgiveMissing, mapPresented, type ObjectServices, tableFull } from './object-services.js'
import type { QueuePair } from './queue-pair.js'
import type { Session } from './session.js'
import { type ObjectIdentity, SharedObject } from './shared-object.js'

export class CompletionQueue extends SharedObject {
  readonly capacity: number
  /** Those that complete into it; it lives at least as long as they do. */
  readonly queuePairs = new Set<QueuePair>()

  constructor(identity: ObjectIdentity & { creator: Session; mapping: Mapping; capacity: number }) {
    super(identity)
    this.capacity = identity.capacity
  }
}

export class CompletionQueues extends ObjectRegistry<CompletionQueue> {
  protected readonly noun = 'completion queue'
  readonly #services: ObjectServices

  constructor(services: ObjectServices) {
    super()
    this.#services = services
  }

  async create(session: Session, asked: { readonly capacity: number }): Promise<CompletionQueue> {
    const { nodeFile, accounts, engine } = this.#services
    const geometry = completionQueueGeometry(asked.capacity)
    accounts.charge(accountOf(session), { bytes: geometry.byteLength })
    const number = nodeFile.completionQueues.reserve()
    let queue: CompletionQueue | undefined
    try {
      if (number === undefined) throw tableFull('completion queues', nodeFile.completionQueues.rows)
      const generation = this.#bumpGeneration(number)
      const mapping = Mapping.create(`completion-queue-${number}`, geometry.byteLength)
      queue = new CompletionQueue({ number, generation, creator: session, mapping, capacity: geometry.capacity })
      describe(queue)
      this.#writeRow(queue)
      const span = { address: mapping.address, byteLength: mapping.byteLength }
      await engine.call('add-completion-queue', {
        number,
        generation,
        job: session.job.number,
        span,
        capacity: geometry.capacity,
      })
    } catch (error) {
      this.#undo(session, number, queue, geometry.byteLength)
      throw error
    }
    await this.keep(queue)
    return queue
  }

  protected leftRow(number: number): LeftRow | undefined {
    const { completionQueues } = this.#services.nodeFile
    return number < completionQueues.rows ? completionQueues.read(number) : undefined
  }

  protected async revive(creator: Session, number: number, descriptor: number): Promise<CompletionQueue> {
    const { nodeFile, accounts, engine } = this.#services
    const { generation, capacity, segmentByteLength } = nodeFile.completionQueues.read(number)
    const mapping = mapPresented(descriptor, segmentByteLength)
    const charge = { bytes: completionQueueGeometry(capacity).byteLength }
    try {
      accounts.charge(accountOf(creator), charge)
    } catch (error) {
      mapping.close()
      throw error
    }
    try {
      const span = { address: mapping.address, byteLength: mapping.byteLength }
      const job = creator.job.number
      await engine.call('add-completion-queue', { number, generation, job, span, capacity })
      return new CompletionQueue({ number, generation, creator, mapping, capacity })
    } catch (error) {
      mapping.close()
      accounts.refund(accountOf(creator), charge)
      throw error
    }
  }

  /** That of a queue pair which an earlier broker left. */
  ofNumber(number: number, job: Job): CompletionQueue {
    const found = this.all.find((queue) => queue.number === number && queue.job === job)
    if (found) return found
    throw new SharedVerbsError('no-such-object', `completion queue ${number} was not presented before`, { number })
  }

  /** A queue pair that used it is gone. */
  async release(queue: CompletionQueue, queuePair: QueuePair): Promise<void> {
    queue.queuePairs.delete(queuePair)
    if (queue.holders.length === 0 && this.isRemovable(queue)) await this.removeOnce(queue, true)
  }

  protected override isRemovable(queue: CompletionQueue): boolean {
    return queue.queuePairs.size === 0
  }

  protected override checkClose(queue: CompletionQueue): void {
    if (queue.queuePairs.size === 0) return
    const numbers = [...queue.queuePairs].map((queuePair) => queuePair.number)
    throw new SharedVerbsError(
      'busy',
      `completion queue ${queue.number} is used by ${numbers.length} queue pairs (${numbers.slice(0, 8).join(', ')}); ` +
        'close them first',
      { number: queue.number, queuePairs: numbers.length },
    )
  }

  protected async remove(queue: CompletionQueue): Promise<void> {
    const { engine } = this.#services
    const { number, generation } = queue
    await forgiveMissing(engine.call('remove-completion-queue', { number, generation }))
    this.forget(queue)
    this.#undo(queue.creator, number, queue, completionQueueGeometry(queue.capacity).byteLength)
  }

  #bumpGeneration(number: number): number {
    const { nodeFile } = this.#services
    const generation = nodeFile.generationAfter(nodeFile.completionQueues.read(number).generation)
    nodeFile.completionQueues.write(number, { generation })
    return generation
  }

  #writeRow(queue: CompletionQueue): void {
    this.#services.nodeFile.completionQueues.fill(queue.number, {
      state: 1,
      job: queue.job.number,
      member: queue.creator.member,
      generation: queue.generation,
      capacity: queue.capacity,
      completions: 0,
      segmentInode: queue.mapping.identity.inode,
      segmentByteLength: queue.mapping.byteLength,
    })
  }

  #undo(session: Session, number: number | undefined, queue: CompletionQueue | undefined, byteLength: number): void {
    queue?.mapping.close()
    if (number !== undefined) this.#services.nodeFile.completionQueues.free(number)
    this.#services.accounts.refund(accountOf(session), { bytes: byteLength })
  }
}

/** The identity that every client checks before it looks at anything else. */
function describe(queue: CompletionQueue): void {
  const { number, generation, capacity } = queue
  const values = { magic: completionQueueMagic, version: abiVersion, number, generation, capacity }
  completionQueueHeader.write(queue.mapping.memory, 0, values)
}

export function accountOf(session: Session): { job: number; userId: number } {
  return { job: session.job.number, userId: session.job.userId }
}
