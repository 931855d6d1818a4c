/**
 * What a message costs the engines, without processes, wake-ups or other cores: two of them turned by hand in this thread over loopback
 * TCP, with a client on each side that only moves slots along. `lists of n`: what a turn finds.
 *
 *   npm run bench -- engine
 *   node --import=./broker/typescript.js tests/bench/engine.ts [--only send] [--slots 2048] [--lists 16,256] [--local]
 */
import { parseArgs } from 'node:util'
import '../../broker/engine/compiler.js'
import {
  completionEntry,
  completionQueueGeometry,
  completionQueueHeader,
  referenceSide,
  referenceSlot,
  side,
} from '../../protocol/completion-queue-segment.js'
import { opcode, packOperation, workRequestFlag } from '../../protocol/opcodes.js'
import { activityBit, receiveSlot, scatterGatherEntry, sendSlot } from '../../protocol/queue-pair-segment.js'
import { markActive } from '../../shm/activity.js'
import { append } from '../../shm/reference-ring.js'
import { claimFree, doneToFree, NO_CLAIM } from '../../shm/slot-state.js'
import {
  connect,
  EngineNode,
  link,
  type TestCompletionQueue,
  type TestQueuePair,
  type TestRegion,
} from '../support/engine-node.js'
import { printFigure } from './figures.js'

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: 'send,write' },
    slots: { type: 'string', default: '2048' },
    lists: { type: 'string', default: '16,64,256' },
    local: { type: 'boolean', default: false },
  },
})
const where = options.local ? 'one engine' : 'engine'
const SLOTS = Number(options.slots)
const BYTES = 64
const ROUND_MESSAGES = 50_000
const ROUNDS = 40
/** The first rounds are the compiler's. */
const WARM_UP_ROUNDS = 2

/** A client that posts the same request again and again, in slots one after the other. */
class Client {
  readonly #queuePair: TestQueuePair
  readonly #queue: TestCompletionQueue
  readonly #region: TestRegion
  readonly #remoteKey: number
  readonly #posted = new Int32Array(SLOTS)
  #next = 0

  constructor(queuePair: TestQueuePair, queue: TestCompletionQueue, region: TestRegion, remoteKey: number) {
    this.#queuePair = queuePair
    this.#queue = queue
    this.#region = region
    this.#remoteKey = remoteKey
  }

  /** Posts what finds a free slot, the last of a list signaled; how many. */
  send(most: number, operation: number): number {
    const { geometry, mapping } = this.#queuePair
    const { i32, f64 } = mapping.memory
    let count = 0
    for (; count < most; count++) {
      const base = this.#claim(geometry.sendSlotsOffset, geometry.sendSlotByteLength, count)
      if (base < 0) break
      const flags = count === most - 1 ? workRequestFlag.signaled : 0
      i32[base + sendSlot.word.operation] = packOperation(operation, flags, 1)
      f64[(base + sendSlot.word.remoteKey) / 2] = this.#remoteKey
      f64[(base + sendSlot.word.remoteOffset) / 2] = this.#next * BYTES
      this.#describe(base + sendSlot.word.firstEntry)
    }
    this.#commit(geometry.sendRingOffset, geometry.sendRingCapacity, count, side.send)
    return count
  }

  receive(most: number): void {
    const { geometry, mapping } = this.#queuePair
    let count = 0
    for (; count < most; count++) {
      const base = this.#claim(geometry.receiveSlotsOffset, receiveSlot.byteLength, count)
      if (base < 0) break
      mapping.memory.i32[base + receiveSlot.word.operation] = packOperation(0, 0, 1)
      this.#describe(base + receiveSlot.word.firstEntry)
    }
    this.#commit(geometry.receiveRingOffset, geometry.receiveRingCapacity, count, side.receive)
  }

  /** Takes all completions; how many. */
  poll(): number {
    const { words } = this.#queue.mapping
    const entries = completionQueueGeometry(this.#queue.capacity).entriesOffset
    const head = words.load(completionQueueHeader.word.head)
    const count = (words.load(completionQueueHeader.word.tail) - head) | 0
    for (let index = 0; index < count; index++) {
      const at = (entries + ((head + index) & (this.#queue.capacity - 1)) * completionEntry.byteLength) / 4
      this.#free(words.load(at + completionEntry.word.reference), words.load(at + completionEntry.word.generation))
    }
    if (count > 0) words.store(completionQueueHeader.word.head, (head + count) | 0)
    return count
  }

  /** First word of the next slot, or -1 when it is not free. Send and receive slots say their generation at different places. */
  #claim(slots: number, byteLength: number, count: number): number {
    const base = (slots + this.#next * byteLength) / 4
    const { words, memory } = this.#queuePair.mapping
    const generation = claimFree(words, base, 1)
    if (generation === NO_CLAIM) return -1
    const isSend = slots === this.#queuePair.geometry.sendSlotsOffset
    memory.i32[base + (isSend ? sendSlot.word.generation : receiveSlot.word.generation)] = generation
    this.#posted[count] = this.#next
    this.#next = (this.#next + 1) % SLOTS
    return base
  }

  #describe(word: number): void {
    const { f64, u32 } = this.#queuePair.mapping.memory
    f64[(word + scatterGatherEntry.word.key) / 2] = this.#region.key
    u32[word + scatterGatherEntry.word.offset] = this.#next * BYTES
    u32[word + scatterGatherEntry.word.byteLength] = BYTES
  }

  #commit(ring: number, capacity: number, count: number, onSide: number): void {
    if (count === 0) return
    const { mapping, node, number } = this.#queuePair
    append(mapping.words, ring / 4, capacity, this.#posted, count)
    markActive(node.activity.words, 0, activityBit(number, onSide))
  }

  #free(reference: number, generation: number): void {
    const { geometry, mapping } = this.#queuePair
    const slot = referenceSlot(reference)
    const offset =
      referenceSide(reference) === side.send
        ? geometry.sendSlotsOffset + slot * geometry.sendSlotByteLength
        : geometry.receiveSlotsOffset + slot * receiveSlot.byteLength
    if (!doneToFree(mapping.words, offset / 4, generation)) throw new Error(`slot ${slot} was not done`)
  }
}

const bounce = { bounceByteLength: 4096, bounceCount: 64 }
const alpha = await new EngineNode('alpha', bounce).start()
const beta = options.local ? alpha : await new EngineNode('beta', bounce).start()
if (!options.local) await link(alpha, beta, 0, bounce)

async function prepare(node: EngineNode) {
  const queue = await node.completionQueue(SLOTS * 2)
  const queuePair = await node.queuePair(queue, { sendSlots: SLOTS, receiveSlots: SLOTS })
  return { queue, queuePair, region: await node.region((SLOTS + 1) * BYTES) }
}
const left = await prepare(alpha)
const right = await prepare(beta)
await connect(left.queuePair, right.queuePair)
const sender = new Client(left.queuePair, left.queue, left.region, right.region.key)
const receiver = new Client(right.queuePair, right.queue, right.region, left.region.key)

interface Costs {
  sender: number
  receiver: number
  clients: number
}

/** Nanoseconds of each part for one message. */
function round(operation: number, list: number): Costs {
  const costs = { sender: 0, receiver: 0, clients: 0 }
  for (let moved = 0; moved < ROUND_MESSAGES; ) {
    const start = performance.now()
    if (operation === opcode.send) receiver.receive(list)
    const sent = sender.send(list, operation)
    const posted = performance.now()
    alpha.turn()
    const turned = performance.now()
    if (!options.local) beta.turn()
    const taken = performance.now()
    sender.poll()
    const received = receiver.poll()
    moved += operation === opcode.send ? received : sent
    costs.clients += posted - start + (performance.now() - taken)
    costs.sender += turned - posted
    costs.receiver += taken - turned
  }
  const perMessage = (ms: number): number => (ms * 1e6) / ROUND_MESSAGES
  return {
    sender: perMessage(costs.sender),
    receiver: perMessage(costs.receiver),
    clients: perMessage(costs.clients),
  }
}

// As those who stream do: a list finds receives that were posted for the lists before.
receiver.receive(SLOTS - Math.max(...options.lists.split(',').map(Number)))
for (const name of options.only.split(',')) {
  const operation = name === 'write' ? opcode.write : opcode.send
  for (const list of options.lists.split(',').map(Number)) {
    const rounds = Array.from({ length: ROUNDS }, () => round(operation, list)).slice(WARM_UP_ROUNDS)
    for (const part of ['sender', 'receiver', 'clients'] as const) {
      printFigure(
        `${where}: 64 B ${name}, lists of ${list}, ${part}`,
        Math.min(...rounds.map((costs) => costs[part])),
        'ns',
      )
    }
  }
}
for (const node of new Set([alpha, beta])) node.close()
