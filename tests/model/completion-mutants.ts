/** Mistakes on the way from a completion or an arrived message to the application. One thing changed in the real sources, or in what the scene does, and the smallest scenario that shows it. */
import type { Scenario } from '../support/explorer.js'
import type { Change } from '../support/explorer-code.js'
import { deliverScenario } from './deliver-scene.js'
import type { Code } from './load.js'
import type { Mutant } from './mutant.js'
import { pollScenario } from './poll-scene.js'
import { waitScenario } from './wait-scene.js'

const SLOTS = 'shm/slot-state.ts'
const COMPLETIONS = 'broker/engine/completion-queue.ts'
const FINISH = 'broker/engine/finish.ts'
const RECOVERY = 'broker/engine/recovery.ts'
const STRAIGHT = 'broker/engine/local-straight.ts'
const POLLING = 'client/polling.ts'

const change = (file: string, find: string, replace: string): Change => ({ file, find, replace })

const polled = (code: Code): Scenario =>
  pollScenario(
    code,
    'poll',
    { pollers: 2, requests: 3, slots: 2, batch: 1 },
    { crashes: { poller: 1 }, preemptions: 2 },
  )
const polledAgain = (code: Code): Scenario =>
  pollScenario(code, 'poll, broker dies', { pollers: 1, requests: 3, slots: 2, batch: 1 }, { crashes: { broker: 1 } })
const waited = (code: Code): Scenario =>
  waitScenario(code, 'wait', { wants: [1, 1], turns: [1, 1] }, { preemptions: 2 })
const delivered = (code: Code): Scenario =>
  deliverScenario(code, 'deliver', { messages: 2 }, { crashes: { broker: 1 } })
const deliveredStraight = (code: Code): Scenario =>
  deliverScenario(code, 'deliver straight', { messages: 2, hasEntries: true }, { crashes: { broker: 1 } })

export const completionMutants: readonly Mutant[] = [
  {
    name: 'a poller that claims by a store',
    changes: [
      change(
        SLOTS,
        'return words.compareExchange(index, expected, packState(SLOT_FREE, nextGeneration(generation))) === expected',
        'if (words.load(index) !== expected) return false\n  words.store(index, packState(SLOT_FREE, nextGeneration(generation)))\n  return true',
      ),
    ],
    scenario: polled,
    caughtBy: ['I11'],
  },
  {
    name: 'a poller that takes what is done whatever its generation',
    changes: [
      change(
        POLLING,
        'if (!doneToFree(segment.words, base, generation)) return false',
        'if (!doneToFree(segment.words, base, generationOf(segment.words.load(base)) | (generation & 0))) return false',
      ),
    ],
    scenario: polled,
    caughtBy: ['I11', 'I12'],
  },
  {
    name: 'a poller that does not look at the head again',
    changes: [change(POLLING, '      if (((words.load(HEAD) - position) | 0) > 0) return false\n', '')],
    scenario: polled,
    caughtBy: ['I11', 'I12'],
  },
  {
    name: 'a poller that copies the result after it freed the slot',
    changes: [
      change(
        POLLING,
        '  if (isSend) copySend(segment, base, batch)\n  else copyReceive(segment, base, batch)\n  if (!doneToFree(segment.words, base, generation)) return false\n',
        '  if (!doneToFree(segment.words, base, generation)) return false\n  segment.words.load(base)\n  if (isSend) copySend(segment, base, batch)\n  else copyReceive(segment, base, batch)\n',
      ),
    ],
    scenario: polled,
    caughtBy: ['I11', 'I12'],
  },
  {
    name: 'generations of two bits, and a poller that stops in between',
    changes: [change(SLOTS, '  return (generation + 1) & GENERATION_MASK', '  return (generation + 1) & 3')],
    scenario: (code) =>
      pollScenario(code, 'poll, generations', { pollers: 2, requests: 6, slots: 1, batch: 1 }, { preemptions: 2 }),
    caughtBy: ['I11', 'I12'],
  },
  {
    name: 'an entry stored over one that was not read',
    changes: [
      change(COMPLETIONS, 'return used >= 0 && used < this.capacity', 'return used >= 0 && used <= this.capacity'),
    ],
    scenario: polled,
    caughtBy: ['I11', 'I12'],
  },
  {
    name: 'a successor that publishes nothing again',
    changes: [
      change(
        RECOVERY,
        '  for (const { slot, generation } of done) queue.push(',
        '  for (const { slot, generation } of done.slice(done.length)) queue.push(',
      ),
    ],
    scenario: polledAgain,
    caughtBy: ['I11'],
  },
  {
    name: 'the tail published before the entry',
    changes: [
      change(
        COMPLETIONS,
        '    this.#words.put(at, reference)\n    this.#words.put(at + 1, generation)\n',
        '    this.#words.store(TAIL, (this.#tail + 1) | 0)\n    this.#words.put(at, reference)\n    this.#words.put(at + 1, generation)\n',
      ),
    ],
    scenario: polled,
    caughtBy: ['I11', 'I12'],
  },
  {
    name: 'the completion published before the slot is done',
    changes: [
      change(
        FINISH,
        '  let committed: boolean\n',
        '  if (!silent) queuePair.sendQueue.push(queuePair, side.send, request.slot, request.generation, true)\n  if (!silent) queuePair.sendQueue.publish()\n  let committed: boolean\n',
      ),
      change(
        FINISH,
        '  queuePair.sendQueue.push(queuePair, side.send, request.slot, request.generation, request.status !== status.success)\n',
        '',
      ),
    ],
    scenario: polled,
    caughtBy: ['I11'],
  },
  {
    name: 'a waiter that does not look again after it armed',
    changes: [
      change(
        'client/completion-queue.ts',
        '    armed.set()\n    return this.available',
        '    armed.set()\n    return false',
      ),
    ],
    scenario: waited,
    caughtBy: ['I13'],
  },
  {
    name: 'armed waiters rung before the tail is stored',
    changes: [
      change(
        'broker/engine/completion-queue.ts',
        '    this.#published = this.#tail\n    this.#words.store(TAIL, this.#published)\n  }\n',
        '    this.#published = this.#tail\n  }\n',
      ),
      change(
        'broker/engine/completion-queue.ts',
        '    this.#urgent = false\n',
        '    this.#urgent = false\n    this.#words.store(TAIL, this.#published)\n',
      ),
    ],
    scenario: waited,
    caughtBy: ['I13'],
  },
  {
    name: 'the root armed before the leaf',
    changes: [
      change(
        'client/arming.ts',
        '    this.#words.or(this.#leaf, this.#leafBit)\n    this.#words.or(this.#root, this.#rootBit)',
        '    this.#words.or(this.#root, this.#rootBit)\n    this.#words.or(this.#leaf, this.#leafBit)',
      ),
    ],
    scenario: waited,
    caughtBy: ['I13'],
  },
  {
    name: 'two waiters that sleep on one bell',
    changes: [],
    scenario: (code) =>
      waitScenario(code, 'wait on one bell', { wants: [1, 1], turns: [2], oneBell: true }, { preemptions: 2 }),
    caughtBy: ['I13'],
  },
  {
    name: 'last stored before the slot is done',
    changes: [
      change(
        FINISH,
        '  completeReceive(engine, receive, flow)\n  flow.lastDelivered = receive.sequence\n  storeLast(flow)\n',
        '  flow.lastDelivered = receive.sequence\n  storeLast(flow)\n  completeReceive(engine, receive, flow)\n',
      ),
    ],
    scenario: delivered,
    caughtBy: ['W5', 'I14', 'I15'],
  },
  {
    name: 'a receive published before last is stored',
    changes: [
      change(
        FINISH,
        '  flow.lastDelivered = receive.sequence\n  storeLast(flow)\n',
        '    flow.queuePair.receiveQueue.publish()\n    flow.lastDelivered = receive.sequence\n    storeLast(flow)\n',
      ),
    ],
    scenario: delivered,
    caughtBy: ['W5'],
  },
  {
    name: 'a send that succeeds before its message is delivered',
    changes: [
      change(
        FINISH,
        '    flow.inbound.shift()\n',
        '    flow.inbound.shift()\n    if (flow.twin) flow.twin.delivered = receive.sequence\n    if (flow.twin) for (let sent = flow.twin.inFlight.head; sent; sent = sent.next) sent.stage = requestStage.sent\n    if (flow.twin) settleFlow(engine, flow.twin)\n',
      ),
    ],
    scenario: delivered,
    caughtBy: ['I15'],
  },
  {
    name: 'a request marked posted after it went',
    changes: [
      change(
        'broker/engine/local.ts',
        '  markPosted(engine, request, 0, 0)\n  flow.waiting.shift()',
        '  flow.waiting.shift()',
      ),
      change(
        'broker/engine/local.ts',
        '  moveOn(engine, flow, request)\n  return true\n}\n\nfunction describe',
        '  moveOn(engine, flow, request)\n  if (request.flow) markPosted(engine, request, 0, 0)\n  return true\n}\n\nfunction describe',
      ),
    ],
    scenario: delivered,
    caughtBy: ['I14', 'I9'],
  },
  {
    name: 'a straight send that succeeds before its message is delivered',
    changes: [
      change(
        STRAIGHT,
        '    posted.fill(\n',
        '    commit(engine, queuePair, slot, word, generation, false, byteLength)\n    posted.fill(\n',
      ),
      change(
        STRAIGHT,
        '    commit(engine, queuePair, slot, word, generation, (flags & workRequestFlag.signaled) !== 0, byteLength)\n',
        '',
      ),
    ],
    scenario: deliveredStraight,
    caughtBy: ['I15'],
  },
  {
    name: 'a straight send that is copied before it is posted',
    changes: [
      change(
        STRAIGHT,
        '    const isTaken = claimedToPosted(words, word, generation)\n    ring.advance()\n',
        '    const isTaken = true\n    ring.advance()\n',
      ),
      change(STRAIGHT, '    flow.highestSent = sequence\n', '    claimedToPosted(words, word, generation)\n'),
    ],
    scenario: deliveredStraight,
    caughtBy: ['I14', 'I9'],
  },
  {
    name: 'a straight receive published before last is stored',
    changes: [
      change(
        STRAIGHT,
        '    posted.end(twin, sequence)\n',
        '    twin.queuePair.receiveQueue.publish()\n    posted.end(twin, sequence)\n',
      ),
    ],
    scenario: deliveredStraight,
    caughtBy: ['W5'],
  },
  {
    name: 'a successor that does not recover last',
    changes: [],
    scenario: (code) =>
      deliverScenario(code, 'deliver', { messages: 2, recoversLast: false }, { crashes: { broker: 1 } }),
    caughtBy: ['I14', 'W5'],
  },
]
