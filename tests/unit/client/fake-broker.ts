/**
 * A broker reduced to what the client sees of one: the control socket, segments, and the broker's part on the shared
 * words, which tests play by hand (`take`, `complete`, `publish`). No engine, no network. Control requests are answered
 * by `respond`, which tests may replace.
 */
import { brokerPage, brokerPageGeometry, brokerPageMagic, nodeNameRow } from '../../../protocol/broker-page.js'
import { decodeClientMessage, encodeEvent, encodeFailure, encodeReply } from '../../../protocol/codec.js'
import {
  completionEntry,
  completionQueueGeometry,
  completionQueueHeader,
  completionQueueMagic,
  packReference,
  side,
} from '../../../protocol/completion-queue-segment.js'
import type { CheckedBody, EventBody, EventName, RequestName } from '../../../protocol/control.js'
import { SharedVerbsError } from '../../../protocol/errors.js'
import { packKey } from '../../../protocol/keys.js'
import { opcode, packOutcome } from '../../../protocol/opcodes.js'
import { controlSocketPath } from '../../../protocol/paths.js'
import {
  type QueuePairGeometry,
  queuePairGeometry,
  queuePairHeader,
  queuePairMagic,
  queuePairState,
  queuePairType,
  receiveSlot,
  sendSlot,
} from '../../../protocol/queue-pair-segment.js'
import { type Status, status } from '../../../protocol/statuses.js'
import { abiVersion, clientFingerprint } from '../../../protocol/version.js'
import { activityLayout, collectActive } from '../../../shm/activity.js'
import { closeDescriptor, eventfdCreate, eventfdDrain, eventfdSignal } from '../../../shm/libc.js'
import { createLivenessFile } from '../../../shm/liveness.js'
import { Mapping } from '../../../shm/mapping.js'
import { ReferenceRingConsumer } from '../../../shm/reference-ring.js'
import { type SeqpacketConnection, SeqpacketListener } from '../../../shm/seqpacket.js'
import { claimedToQueued, packState, queuedToPosted, SLOT_DONE } from '../../../shm/slot-state.js'
import { type Scope, temporaryDirectory } from '../../support/temporary-directory.js'

type Side = 'send' | 'receive'

/** One request that was taken from a ring. */
export interface Taken {
  readonly queuePair: FakeQueuePair
  readonly side: Side
  readonly slot: number
  readonly generation: number
  readonly id: number
}

export interface Outcome {
  readonly status?: Status
  readonly byteLength?: number
  readonly operation?: number
  readonly immediate?: number
  readonly source?: { readonly node: number; readonly number: number; readonly generation: number }
}

export interface Answer {
  readonly result: unknown
  readonly fds?: readonly number[]
}

/** `presented`: descriptors that came beside the request; closed when it was answered. */
export type Respond = (
  name: RequestName,
  body: unknown,
  session: FakeSession,
  presented: readonly number[],
) => Answer | Promise<Answer>

export class FakeSession {
  readonly connection: SeqpacketConnection
  readonly member: number
  readonly doorbell: number
  #open = true

  constructor(connection: SeqpacketConnection, member: number) {
    this.connection = connection
    this.member = member
    this.doorbell = eventfdCreate()
  }

  close(): void {
    if (!this.#open) return
    this.#open = false
    this.connection.close()
    closeDescriptor(this.doorbell)
  }

  event<Name extends EventName>(name: Name, body: EventBody<Name>): void {
    this.connection.send(encodeEvent(name, body))
  }
}

export class FakeCompletionQueue {
  readonly number: number
  readonly mapping: Mapping
  readonly capacity: number
  readonly #entries: number
  readonly #ring: (member: number) => void
  #tail = 0
  readonly #waiting: { readonly reference: number; readonly generation: number; readonly urgent: boolean }[] = []

  constructor(number: number, asked: number, ring: (member: number) => void) {
    const geometry = completionQueueGeometry(asked)
    this.number = number
    this.capacity = geometry.capacity
    this.#entries = geometry.entriesOffset / 4
    this.#ring = ring
    this.mapping = Mapping.create(`completion-queue-${number}`, geometry.byteLength)
    completionQueueHeader.write(this.mapping.memory, 0, {
      magic: completionQueueMagic,
      version: abiVersion,
      number,
      generation: 1,
      capacity: this.capacity,
    })
  }

  get backlog(): number {
    return this.#waiting.length
  }

  publish(reference: number, generation: number, urgent = true): void {
    this.#waiting.push({ reference, generation, urgent })
    this.refill()
  }

  /** Moves what waits for room into the ring, then wakes whoever is armed. */
  refill(): void {
    const { words } = this.mapping
    let urgent = false
    while (this.#waiting.length > 0) {
      if (((this.#tail - words.load(completionQueueHeader.word.head)) | 0) >= this.capacity) break
      const next = this.#waiting.shift()!
      const entry = this.#entries + (this.#tail & (this.capacity - 1)) * (completionEntry.byteLength / 4)
      words.store(entry, next.reference)
      words.store(entry + 1, next.generation)
      this.#tail = (this.#tail + 1) | 0
      urgent ||= next.urgent
    }
    words.store(completionQueueHeader.word.tail, this.#tail)
    this.#wake(completionQueueHeader.word.armedRoot, completionQueueHeader.word.armedLeaf)
    if (urgent) this.#wake(completionQueueHeader.word.solicitedRoot, completionQueueHeader.word.solicitedLeaf)
  }

  #wake(root: number, leaf: number): void {
    const { words } = this.mapping
    for (let high = 0; high < 2; high++) {
      if (words.load(root + high) === 0) continue
      const leaves = words.exchange(root + high, 0)
      for (let low = 0; low < 32; low++) {
        if ((leaves & (1 << low)) === 0) continue
        const members = words.exchange(leaf + high * 32 + low, 0)
        for (let bit = 0; bit < 32; bit++) if ((members & (1 << bit)) !== 0) this.#ring((high * 32 + low) * 32 + bit)
      }
    }
  }
}

export class FakeQueuePair {
  readonly number: number
  readonly generation: number
  readonly geometry: QueuePairGeometry
  readonly mapping: Mapping
  readonly body: CheckedBody<'createQueuePair'>
  readonly sendCq: FakeCompletionQueue
  readonly receiveCq: FakeCompletionQueue
  readonly outstanding = new Set<Taken>()
  holds = 1
  readonly #sends: ReferenceRingConsumer
  readonly #receives: ReferenceRingConsumer

  constructor(
    id: { readonly number: number; readonly generation: number },
    body: CheckedBody<'createQueuePair'>,
    queues: readonly FakeCompletionQueue[],
  ) {
    const { number, generation } = id
    this.number = number
    this.generation = generation
    this.body = body
    this.sendCq = queues[0]!
    this.receiveCq = queues[1]!
    this.geometry = queuePairGeometry({
      type: queuePairType[body.type],
      sendSlots: Math.max(4, body.maxSend),
      receiveSlots: Math.max(4, body.maxReceive),
      inlineByteLength: body.maxInline,
    })
    const { sendSlots, receiveSlots, inlineByteLength, byteLength } = this.geometry
    this.mapping = Mapping.create(`queue-pair-${number}`, byteLength)
    queuePairHeader.write(this.mapping.memory, 0, {
      magic: queuePairMagic,
      version: abiVersion,
      number,
      generation,
      type: queuePairType[body.type],
      sendSlots,
      receiveSlots,
      inlineByteLength,
    })
    const { words } = this.mapping
    const { sendRingOffset, sendRingCapacity, receiveRingOffset, receiveRingCapacity } = this.geometry
    this.#sends = new ReferenceRingConsumer(words, sendRingOffset / 4, sendRingCapacity, sendSlots)
    this.#receives = new ReferenceRingConsumer(words, receiveRingOffset / 4, receiveRingCapacity, receiveSlots)
  }

  get grant(): Answer {
    const { sendSlots, receiveSlots, inlineByteLength } = this.geometry
    return {
      result: {
        number: this.number,
        generation: this.generation,
        type: this.body.type,
        sendSlots,
        receiveSlots,
        inlineByteLength,
        byteLength: this.mapping.byteLength,
        sendCompletionQueue: this.sendCq.number,
        receiveCompletionQueue: this.receiveCq.number,
      },
      fds: [this.mapping.fd],
    }
  }

  set state(value: number) {
    this.mapping.words.store(queuePairHeader.word.state, value)
  }

  /** Takes what is committed: claimed → queued → posted. */
  take(from: Side, most = Number.POSITIVE_INFINITY): Taken[] {
    const ring = from === 'send' ? this.#sends : this.#receives
    const pending = ring.pending()
    if (pending < 0) throw new Error(`${from} ring is corrupt`)
    const taken: Taken[] = []
    for (let index = 0; index < Math.min(pending, most); index++) {
      const slot = ring.slotAt(index)
      const base = this.slotOffset(from, slot)
      const layout = from === 'send' ? sendSlot : receiveSlot
      const generation = this.mapping.memory.view.getUint32(base + layout.offset.generation, true)
      this.mapping.memory.view.setUint32(base + layout.offset.position, ring.position + index, true)
      if (!claimedToQueued(this.mapping.words, base / 4, generation)) throw new Error(`slot ${slot} is not claimed`)
      queuedToPosted(this.mapping.words, base / 4, generation)
      const id = this.mapping.memory.view.getFloat64(base + layout.offset.id, true)
      taken.push({ queuePair: this, side: from, slot, generation, id })
    }
    ring.advance(taken.length)
    for (const one of taken) this.outstanding.add(one)
    return taken
  }

  slotOffset(of: Side, slot: number): number {
    const { sendSlotsOffset, sendSlotByteLength, receiveSlotsOffset, receiveSlotByteLength } = this.geometry
    return of === 'send'
      ? sendSlotsOffset + slot * sendSlotByteLength
      : receiveSlotsOffset + slot * receiveSlotByteLength
  }

  readSend(slot: number) {
    return sendSlot.read(this.mapping.memory, this.slotOffset('send', slot))
  }

  readReceive(slot: number) {
    return receiveSlot.read(this.mapping.memory, this.slotOffset('receive', slot))
  }

  /** Result, then done|generation: the commit of the completion, not yet referred to. */
  finish(taken: Taken, outcome: Outcome = {}): void {
    const base = this.slotOffset(taken.side, taken.slot)
    const { memory, words } = this.mapping
    const verdict = outcome.status ?? status.success
    const byteLength = outcome.byteLength ?? 0
    if (taken.side === 'send') sendSlot.write(memory, base, { status: verdict, byteLength })
    else {
      receiveSlot.write(memory, base, {
        byteLength,
        operation: packOutcome(outcome.operation ?? opcode.receive, 0, verdict) >>> 0,
        immediate: outcome.immediate ?? 0,
        sourceNode: outcome.source?.node ?? 0,
        sourceNumber: outcome.source?.number ?? 0,
        sourceGeneration: outcome.source?.generation ?? 0,
      })
    }
    this.outstanding.delete(taken)
    words.store(base / 4, packState(SLOT_DONE, taken.generation))
  }

  /** Finishes and refers to it in the completion ring. */
  complete(taken: Taken, outcome: Outcome = {}, urgent = true): void {
    this.finish(taken, outcome)
    this.refer(taken, urgent)
  }

  refer(taken: Taken, urgent = true): void {
    const onSide = taken.side === 'send' ? side.send : side.receive
    const queue = taken.side === 'send' ? this.sendCq : this.receiveCq
    queue.publish(packReference(this.number, onSide, taken.slot), taken.generation, urgent)
  }

  /** Everything outstanding gets `flushed`. */
  flush(): void {
    this.take('send')
    this.take('receive')
    for (const taken of [...this.outstanding]) this.complete(taken, { status: status.flushed })
  }
}

interface FakeRegion {
  readonly key: number
  readonly mapping: Mapping
  readonly byteLength: number
}

export class FakeBroker {
  readonly directory: string
  readonly page = Mapping.createReadOnlyShared('broker-page', brokerPageGeometry.byteLength)
  readonly activity = Mapping.create('activity', activityLayout.byteLength)
  readonly engineDoorbell = eventfdCreate()
  readonly liveness = createLivenessFile()
  readonly sessions: FakeSession[] = []
  readonly queuePairs = new Map<number, FakeQueuePair>()
  readonly completionQueues = new Map<number, FakeCompletionQueue>()
  readonly regions = new Map<number, FakeRegion>()
  /** Names of requests as they came. */
  readonly requests: RequestName[] = []
  /** Replace it to refuse or delay; call `answer` for the rest. */
  respond: Respond = (name, body, session) => this.answer(name, body, session)
  readonly #listener: SeqpacketListener
  #next = 1
  #generation = 0

  readonly epoch: number

  private constructor(directory: string, epoch = 1) {
    this.directory = directory
    this.epoch = epoch
    brokerPage.write(this.page.memory, 0, {
      magic: brokerPageMagic,
      version: abiVersion,
      fingerprint: clientFingerprint,
      epoch,
      node: 'here',
    })
    this.nameNode(0, 'here')
    this.#listener = SeqpacketListener.listen({
      path: controlSocketPath(directory),
      mode: 0o600,
      onConnection: (connection) => this.#connected(connection),
    })
  }

  static start(scope: Scope): FakeBroker {
    const broker = new FakeBroker(temporaryDirectory(scope))
    scope.teardown(() => broker.stop())
    return broker
  }

  /** The next broker of the directory of one that died. */
  static follow(scope: Scope, dead: FakeBroker): FakeBroker {
    const broker = new FakeBroker(dead.directory, dead.epoch + 1)
    scope.teardown(() => broker.stop())
    return broker
  }

  nameNode(index: number, name: string): void {
    const offset = brokerPageGeometry.nodeNamesOffset + index * nodeNameRow.byteLength
    nodeNameRow.write(this.page.memory, offset, { name })
  }

  set sleeping(value: boolean) {
    this.page.words.store(brokerPage.word.sleeping, value ? 1 : 0)
  }

  /** True if a client rang since the last look. */
  rung(): boolean {
    return eventfdDrain(this.engineDoorbell)
  }

  /** Rings marked active since the last look. */
  active(): { readonly number: number; readonly side: Side }[] {
    const rings: { number: number; side: Side }[] = []
    collectActive(this.activity.words, 0, (bit) =>
      rings.push({ number: bit >>> 1, side: (bit & 1) === side.send ? 'send' : 'receive' }),
    )
    return rings
  }

  queuePair(number: number): FakeQueuePair {
    return this.queuePairs.get(number)!
  }

  /** Ends every connection, as a killed broker does. */
  die(): void {
    this.#listener.close()
    for (const { connection } of this.sessions) connection.close()
  }

  stop(): void {
    this.die()
    this.releaseObjects()
    this.page.close()
    this.activity.close()
    closeDescriptor(this.engineDoorbell)
    closeDescriptor(this.liveness)
  }

  /** Closes what sessions had made, and their sockets. */
  releaseObjects(): void {
    for (const session of this.sessions.splice(0)) session.close()
    for (const objects of [this.queuePairs, this.completionQueues, this.regions]) {
      for (const { mapping } of objects.values()) mapping.close()
      objects.clear()
    }
  }

  /** The next object gets this number. */
  reuse(number: number): void {
    this.#next = number
  }

  #connected(connection: SeqpacketConnection): void {
    const session = new FakeSession(connection, this.sessions.length + 1)
    this.sessions.push(session)
    connection.start({
      onMessage: (bytes, descriptors) => void this.#request(session, bytes, descriptors.takeAll()),
      onClose: () => undefined,
    })
  }

  async #request(session: FakeSession, bytes: Uint8Array, presented: readonly number[]): Promise<void> {
    const message = decodeClientMessage(bytes)
    this.requests.push(message.name)
    try {
      const { result, fds = [] } = await this.respond(message.name, message.body, session, presented)
      session.connection.send(encodeReply(message.id, result), fds)
    } catch (error) {
      if (!(error instanceof SharedVerbsError)) throw error
      session.connection.send(encodeFailure(message.id, error))
    } finally {
      for (const fd of presented) closeDescriptor(fd)
    }
  }

  answer(name: RequestName, body: unknown, session: FakeSession): Answer | Promise<Answer> {
    switch (name) {
      case 'attach':
        return this.#attach(session)
      case 'reattach':
        return this.#reattach()
      case 'createCompletionQueue':
        return this.#createCompletionQueue(body as CheckedBody<'createCompletionQueue'>)
      case 'openCompletionQueue':
        return completionQueueGrant(this.#found(this.completionQueues, body))
      case 'createQueuePair':
        return this.#createQueuePair(body as CheckedBody<'createQueuePair'>)
      case 'openQueuePair':
        return this.#openQueuePair(body)
      case 'closeQueuePair':
        return this.#closeQueuePair(body)
      case 'connectQueuePair':
        return { result: { remote: { node: 'there', number: 7, generation: 3 } } }
      case 'acceptConnection':
        return { result: { remote: { node: 'there', number: 8, generation: 4 } } }
      case 'resolveNode':
        return { result: { nodeIndex: 5 } }
      case 'registerMemory':
        return this.#registerMemory(body as CheckedBody<'registerMemory'>)
      case 'openMemory':
        return regionGrant(this.regions.get((body as CheckedBody<'openMemory'>).key)!)
      default:
        return { result: {} }
    }
  }

  #attach({ member, doorbell }: FakeSession): Answer {
    return {
      result: {
        member,
        memberGeneration: 1,
        node: 'here',
        epoch: this.epoch,
        brokerProcessId: process.pid,
        brokerPageByteLength: this.page.byteLength,
        activityByteLength: this.activity.byteLength,
        provider: 'soft',
      },
      fds: [this.page.fd, this.activity.fd, this.liveness, doorbell, this.engineDoorbell],
    }
  }

  #reattach(): Answer {
    const identity = { epoch: this.epoch, brokerProcessId: process.pid, provider: 'soft' }
    return {
      result: { ...identity, brokerPageByteLength: this.page.byteLength },
      fds: [this.page.fd, this.engineDoorbell],
    }
  }

  #createCompletionQueue({ capacity }: CheckedBody<'createCompletionQueue'>): Answer {
    const queue = new FakeCompletionQueue(this.#next++, capacity, (member) => {
      const session = this.sessions.find((one) => one.member === member)
      if (session) eventfdSignal(session.doorbell)
    })
    this.completionQueues.set(queue.number, queue)
    return completionQueueGrant(queue)
  }

  #createQueuePair(body: CheckedBody<'createQueuePair'>): Answer {
    const queues = [body.sendCompletionQueue, body.receiveCompletionQueue]
    const queuePair = new FakeQueuePair(
      { number: this.#next++, generation: ++this.#generation },
      body,
      queues.map((queue) => this.#found(this.completionQueues, queue)),
    )
    this.queuePairs.set(queuePair.number, queuePair)
    return queuePair.grant
  }

  #openQueuePair(body: unknown): Answer {
    const queuePair = this.#found(this.queuePairs, body)
    queuePair.holds++
    return queuePair.grant
  }

  /** The last holder's close flushes, waits until everything is published, and says closed. */
  async #closeQueuePair(body: unknown): Promise<Answer> {
    const queuePair = this.#found(this.queuePairs, body)
    if (--queuePair.holds > 0) return { result: {} }
    queuePair.flush()
    const queues = [queuePair.sendCq, queuePair.receiveCq]
    while (queues.some((queue) => queue.backlog > 0)) {
      await new Promise((resolve) => setTimeout(resolve, 1))
      for (const queue of queues) queue.refill()
    }
    queuePair.state = queuePairState.closed
    this.queuePairs.delete(queuePair.number)
    queuePair.mapping.close()
    return { result: {} }
  }

  #registerMemory({ byteLength }: CheckedBody<'registerMemory'>): Answer {
    const key = packKey(this.#next++, 1)
    const region = { key, byteLength, mapping: Mapping.create('region', byteLength) }
    this.regions.set(key, region)
    return regionGrant(region)
  }

  #found<Kept>(all: ReadonlyMap<number, Kept>, wanted: unknown): Kept {
    const { number } = wanted as { number: number }
    const found = all.get(number)
    if (!found) throw new SharedVerbsError('no-such-object', `number ${number} does not exist`)
    return found
  }
}

const completionQueueGrant = ({ number, capacity, mapping }: FakeCompletionQueue): Answer => ({
  result: { number, generation: 1, capacity, byteLength: mapping.byteLength },
  fds: [mapping.fd],
})

const regionGrant = ({ key, byteLength, mapping }: FakeRegion): Answer => ({
  result: { key, byteLength, mappedByteLength: mapping.byteLength, rights: 0 },
  fds: [mapping.fd],
})
