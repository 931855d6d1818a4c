/**
 * Mistakes that the explorations must catch: one thing changed in the real sources, the smallest scenario that shows it, and the
 * invariants of which one breaks. The rows are those of the table in crash-consistency §3 that concern code of one node, and a few more.
 */
import type { Scenario } from '../support/explorer.js'
import type { Change } from '../support/explorer-code.js'
import { deliverScenario } from './deliver-scene.js'
import type { Code } from './load.js'
import { lockScenario } from './lock-scene.js'
import type { Mutant } from './mutant.js'
import { pollScenario } from './poll-scene.js'
import { postScenario } from './post-scene.js'
import { waitScenario } from './wait-scene.js'

const LOCK = 'shm/robust-lock.ts'
const SLOTS = 'shm/slot-state.ts'
const ACTIVITY = 'shm/activity.ts'
const RING = 'shm/reference-ring.ts'
const DRAIN = 'broker/engine/drain.ts'
const ENGINE = 'broker/engine/engine.ts'
const COMPLETIONS = 'broker/engine/completion-queue.ts'
const FINISH = 'broker/engine/finish.ts'
const RECOVERY = 'broker/engine/recovery.ts'
const POSTING = 'client/posting.ts'
const POLLING = 'client/polling.ts'

const change = (file: string, find: string, replace: string): Change => ({ file, find, replace })

const swept = (code: Code): Scenario =>
  lockScenario(code, 'lock', { clients: 3, rounds: 1, sweeper: true }, { crashes: { client: 1 } })
const takenOver = (code: Code): Scenario =>
  lockScenario(
    code,
    'lock taken over',
    { clients: 3, rounds: 1, sweeper: false },
    { crashes: { client: 1 }, timeouts: 'always' },
  )
const slept = (code: Code): Scenario =>
  lockScenario(code, 'lock slept on', { clients: 3, rounds: 1, sweeper: true }, { crashes: { client: 1 } })

const posted = (code: Code): Scenario =>
  postScenario(code, 'post', { lists: [[1], [1]], slots: 2 }, { crashes: { client: 1 } })
const postedAgain = (code: Code): Scenario =>
  postScenario(code, 'post, broker dies', { lists: [[1], [1]], slots: 2 }, { crashes: { broker: 1 }, preemptions: 2 })
const postedLists = (code: Code): Scenario =>
  postScenario(code, 'post a list', { lists: [[2]], slots: 2 }, { crashes: { broker: 1 } })
const postedToSleeper = (code: Code): Scenario =>
  postScenario(code, 'post, engine sleeps', { lists: [[1, 1]], slots: 2, sleeps: true }, {})

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

export const nodeMutants: readonly Mutant[] = [
  {
    name: 'a sweep that unlocks before it repairs',
    changes: [
      change(LOCK, '    repair()\n    words.exchange(index, FREE)', '    words.exchange(index, FREE)\n    repair()'),
    ],
    scenario: swept,
    caughtBy: ['I1', 'I2'],
  },
  {
    name: 'a take-over by a store instead of a compare-and-swap',
    changes: [
      change(
        LOCK,
        'return this.#words.compareExchange(this.#index, found, owner | WAITERS) === found',
        'this.#words.store(this.#index, owner | WAITERS)\n    return true',
      ),
    ],
    scenario: takenOver,
    caughtBy: ['I1', 'I2'],
  },
  {
    name: 'a take-over that does not ask whether the owner is dead',
    changes: [change(LOCK, 'if (this.#liveness.alive(ownerMember(found))) return false\n', '')],
    scenario: takenOver,
    caughtBy: ['I1', 'I2'],
  },
  {
    name: 'a sweep that wakes waiters only of locks that the dead one held',
    changes: [
      change(
        LOCK,
        '  words.wake(index, ALL)\n  return result',
        "  if (result === 'repaired') words.wake(index, ALL)\n  return result",
      ),
    ],
    scenario: slept,
    caughtBy: ['I3'],
  },
  {
    // Alone it is harmless: a release wakes all.
    name: 'a release that wakes one, and a waiter that slept and takes the lock without the waiters bit',
    changes: [
      change(LOCK, 'this.#words.wake(this.#index, ALL)', 'this.#words.wake(this.#index, 1)'),
      change(
        LOCK,
        'compareExchange(this.#index, FREE, owner | WAITERS) === FREE',
        'compareExchange(this.#index, FREE, owner) === FREE',
      ),
    ],
    scenario: slept,
    caughtBy: ['I3'],
  },
  {
    name: 'a sleep on whatever the word holds',
    changes: [
      change(
        LOCK,
        'this.#words.wait(this.#index, marked,',
        'this.#words.wait(this.#index, this.#words.or(this.#index, 0),',
      ),
    ],
    scenario: slept,
    caughtBy: ['I3'],
  },
  {
    name: 'a release that wakes nobody',
    changes: [change(LOCK, 'if ((found & WAITERS) !== 0) this.#words.wake(this.#index, ALL)\n', '')],
    scenario: slept,
    caughtBy: ['I3'],
  },
  {
    name: 'a new broker that does not sweep the locks of its predecessor',
    changes: [],
    scenario: (code) =>
      lockScenario(
        code,
        'lock, broker dies',
        { clients: 2, rounds: 1, sweeper: true, adopts: false },
        { crashes: { client: 1, broker: 1 } },
      ),
    caughtBy: ['I3', 'I5'],
  },
  {
    name: 'the number of a dead member given away before its sweep is done',
    changes: [],
    scenario: (code) =>
      lockScenario(
        code,
        'lock, number used again',
        { clients: 2, rounds: 1, sweeper: true, reuse: 'at-once' },
        { crashes: { client: 1 } },
      ),
    caughtBy: ['I1', 'I2'],
  },
  {
    name: 'a claim by a store',
    changes: [
      change(
        SLOTS,
        'return words.compareExchange(index, found, claimed) === found ? generation : NO_CLAIM',
        'words.store(index, claimed)\n  return generation',
      ),
    ],
    scenario: posted,
    caughtBy: ['I6', 'I9'],
  },
  {
    name: 'an append without the lock',
    changes: [
      change(POSTING, "if (this.#lock.acquire(owner, lockTimeoutMs) === 'busy') return this.#refuseBusy(count)\n", ''),
      change(POSTING, '    this.#lock.release(owner)\n', ''),
    ],
    scenario: posted,
    caughtBy: ['I6', 'I9'],
  },
  {
    name: 'the tail stored before the entries',
    changes: [
      change(
        RING,
        '  const entries = base + ENTRIES\n  for',
        '  const entries = base + ENTRIES\n  words.store(base + TAIL, (tail + count) | 0)\n  for',
      ),
      change(RING, '  words.store(base + TAIL, (tail + count) | 0)\n  return true', '  return true'),
    ],
    scenario: posted,
    caughtBy: ['I6', 'I9', 'I10'],
  },
  {
    name: 'the body written after the commit',
    changes: [
      change(
        'client/queue-pair.ts',
        '    for (let index = 0; index < count; index++) {\n      writeSend(',
        '    const accepted = this.#commit(this.#sends, count, requests.length)\n    for (let index = 0; index < count; index++) {\n      writeSend(',
      ),
      change(
        'client/queue-pair.ts',
        '    return this.#commit(this.#sends, count, requests.length)',
        '    return accepted',
      ),
    ],
    scenario: posted,
    caughtBy: ['I6', 'I9'],
  },
  {
    name: 'the head stored before the entries are taken',
    changes: [
      change(
        DRAIN,
        '    const slot = ring.slotAt(count)\n    // A slot',
        '    const slot = ring.slotAt(0)\n    ring.advance(1)\n    // A slot',
      ),
      change(DRAIN, '  ring.advance(count)\n  // Only now', '  // Only now'),
    ],
    scenario: postedAgain,
    caughtBy: ['I6', 'I9', 'I7'],
  },
  {
    name: 'a successor that does not finish the visit under way',
    changes: [change(RECOVERY, '  if (taken > 0) ring.advance(taken)\n', '')],
    scenario: postedAgain,
    caughtBy: ['I6', 'I7', 'I9', 'exception'],
  },
  {
    name: 'a sweep that frees claims before it drains',
    changes: [
      change(
        'broker/engine/command-handlers.ts',
        'member: number): number {\n  for (let visit = 0; visit < 64 && drainSends(engine, queuePair, 4096); visit++);\n',
        'member: number): number {\n',
      ),
      change(
        'broker/engine/command-handlers.ts',
        '  return swept\n}',
        '  for (let visit = 0; visit < 64 && drainSends(engine, queuePair, 4096); visit++);\n  return swept\n}',
      ),
    ],
    scenario: posted,
    caughtBy: ['I6', 'I7', 'I9'],
  },
  {
    name: 'activity marked before the commit',
    changes: [
      change(
        POSTING,
        '    const appended = append(',
        '    this.#attachment.notify(this.#activityBit)\n    const appended = append(',
      ),
      change(POSTING, "    this.#attachment.notify(this.#activityBit)\n    return 'none'", "    return 'none'"),
    ],
    scenario: posted,
    caughtBy: ['I9'],
  },
  {
    name: 'the root marked only by whoever set the leaf',
    changes: [
      change(
        ACTIVITY,
        '  words.or(base + LEAF + leaf, 1 << (bit & 31))\n',
        '  if ((words.or(base + LEAF + leaf, 1 << (bit & 31)) & (1 << (bit & 31))) !== 0) return\n',
      ),
    ],
    scenario: posted,
    caughtBy: ['I9'],
  },
  {
    name: 'activity collected upwards',
    changes: [
      change(ACTIVITY, '  let roots = words.exchange(base + TOP, 0)', '  let roots = words.load(base + TOP)'),
      change(
        ACTIVITY,
        '      count += collectLeaf(words, base, leaf, visit)\n    }\n  }\n',
        '      count += collectLeaf(words, base, leaf, visit)\n    }\n  }\n  words.exchange(base + TOP, 0)\n',
      ),
    ],
    scenario: posted,
    caughtBy: ['I9'],
  },
  {
    name: 'a drain that stops at its budget and forgets the rest',
    changes: [
      change(ENGINE, 'const DRAIN_BUDGET = 256', 'const DRAIN_BUDGET = 1'),
      change(ENGINE, '    queuePair.sendBacklog = true\n', '    this.#backlog.length = 0\n'),
    ],
    scenario: postedLists,
    caughtBy: ['I9'],
  },
  {
    name: 'a successor that trusts the activity bits',
    changes: [],
    scenario: (code) =>
      postScenario(
        code,
        'post, broker dies',
        { lists: [[1], [1]], slots: 2, recovery: { drains: false } },
        { crashes: { broker: 1 }, preemptions: 2 },
      ),
    caughtBy: ['I9'],
  },
  {
    name: 'a successor that clears the activity bits after it drained',
    changes: [],
    scenario: (code) =>
      postScenario(
        code,
        'post, broker dies',
        { lists: [[1], [1]], slots: 2, recovery: { clearsFirst: false } },
        { crashes: { broker: 1 }, preemptions: 2 },
      ),
    caughtBy: ['I9'],
  },
  {
    name: 'the position not stored in the slot',
    changes: [change(DRAIN, '    memory.i32[word + sendSlot.word.position] = (first + count) | 0\n', '')],
    scenario: postedAgain,
    caughtBy: ['I6'],
  },
  {
    name: 'the position stored after the slot was taken',
    changes: [
      change(DRAIN, '    memory.i32[word + sendSlot.word.position] = (first + count) | 0\n', ''),
      change(
        DRAIN,
        '    engine.pending.push(recordSend(',
        '    memory.i32[word + sendSlot.word.position] = (first + count) | 0\n    engine.pending.push(recordSend(',
      ),
    ],
    scenario: postedAgain,
    caughtBy: ['I6'],
  },
  {
    name: 'recovered sends taken in slot order',
    changes: [
      change(
        RECOVERY,
        'list.sort((one, other) => ((one.position - head) | 0) - ((other.position - head) | 0))',
        'list',
      ),
    ],
    scenario: postedAgain,
    caughtBy: ['I6'],
  },
  {
    name: 'clients that look whether the engine sleeps before they mark',
    changes: [
      change(
        'client/attachment.ts',
        '    markActive(this.#activityWords, 0, bit)\n    this.wakeEngine()',
        '    this.wakeEngine()\n    markActive(this.#activityWords, 0, bit)',
      ),
    ],
    scenario: postedToSleeper,
    caughtBy: ['I13'],
  },
  {
    name: 'an engine that looks once more before it says that it sleeps',
    changes: [
      change(
        'broker/engine/idle.ts',
        '    this.#words.store(brokerPage.word.sleeping, 1)\n',
        '    const stays = restless()\n    this.#words.store(brokerPage.word.sleeping, 1)\n',
      ),
      change('broker/engine/idle.ts', '    if (!restless()) {', '    if (!stays) {'),
    ],
    scenario: postedToSleeper,
    caughtBy: ['I13'],
  },
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
        '    this.#words.store(at, reference)\n    this.#words.store(at + 1, generation)\n',
        '    this.#words.store(TAIL, (this.#tail + 1) | 0)\n    this.#words.store(at, reference)\n    this.#words.store(at + 1, generation)\n',
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
        '  if (!silent) queuePair.sendQueue.push(queuePair, side.send, request.slot, request.generation, true)\n  if (!silent) queuePair.sendQueue.publish(() => {})\n  let committed: boolean\n',
      ),
      change(
        FINISH,
        '  if (silent) return\n  queuePair.sendQueue.push(queuePair, side.send, request.slot, request.generation, request.status !== status.success)\n',
        '  if (silent) return\n',
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
        COMPLETIONS,
        '    this.#words.store(TAIL, this.#published)\n    let rung = this.#ringArmed(ARMED_ROOT, ARMED_LEAF, ring)\n',
        '    let rung = this.#ringArmed(ARMED_ROOT, ARMED_LEAF, ring)\n    this.#words.store(TAIL, this.#published)\n',
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
        '    completeReceive(engine, receive, flow)\n    flow.lastDelivered = receive.sequence\n    storeLast(flow)\n',
        '    flow.lastDelivered = receive.sequence\n    storeLast(flow)\n    completeReceive(engine, receive, flow)\n',
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
        '    flow.lastDelivered = receive.sequence\n    storeLast(flow)\n',
        '    flow.queuePair.receiveQueue.publish(() => {})\n    flow.lastDelivered = receive.sequence\n    storeLast(flow)\n',
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
        '  moveOn(engine, flow, request)\n  if (request.taken) markPosted(engine, request, 0, 0)\n  return true\n}\n\nfunction describe',
      ),
    ],
    scenario: delivered,
    caughtBy: ['I14', 'I9'],
  },
  {
    name: 'a successor that does not recover last',
    changes: [],
    scenario: (code) =>
      deliverScenario(code, 'deliver', { messages: 2, recoversLast: false }, { crashes: { broker: 1 } }),
    caughtBy: ['I14', 'W5'],
  },
]
