/** Mistakes on the way from a post to its execution, and in the recovery of it. One thing changed in the real sources, or in what the scene does, and the smallest scenario that shows it. */
import type { Scenario } from '../support/explorer.js'
import type { Change } from '../support/explorer-code.js'
import type { Code } from './load.js'
import type { Mutant } from './mutant.js'
import { postScenario } from './post-scene.js'

const SLOTS = 'shm/slot-state.ts'
const ACTIVITY = 'shm/activity.ts'
const RING = 'shm/reference-ring.ts'
const DRAIN = 'broker/engine/drain.ts'
const ENGINE = 'broker/engine/engine.ts'
const RECOVERY = 'broker/engine/recovery.ts'
const POSTING = 'client/posting.ts'
const change = (file: string, find: string, replace: string): Change => ({ file, find, replace })

const posted = (code: Code): Scenario =>
  postScenario(code, 'post', { lists: [[1], [1]], slots: 2 }, { crashes: { client: 1 } })
const postedAgain = (code: Code): Scenario =>
  postScenario(code, 'post, broker dies', { lists: [[1], [1]], slots: 2 }, { crashes: { broker: 1 }, preemptions: 2 })
const postedLists = (code: Code): Scenario =>
  postScenario(code, 'post a list', { lists: [[2]], slots: 2 }, { crashes: { broker: 1 } })
const postedToSleeper = (code: Code): Scenario =>
  postScenario(code, 'post, engine sleeps', { lists: [[1, 1]], slots: 2, sleeps: true }, {})

const postedAndPolled = (code: Code): Scenario =>
  postScenario(
    code,
    'post and poll, broker dies',
    { lists: [[1, 1]], slots: 1, pollers: 1 },
    { crashes: { broker: 1 }, preemptions: 2 },
  )

export const postMutants: readonly Mutant[] = [
  {
    name: 'the number of a dead poster given away before its sweep is done',
    changes: [],
    scenario: (code) =>
      postScenario(
        code,
        'post, number used again',
        { lists: [[1], [1]], slots: 2, reuse: 'at-once' },
        { crashes: { client: 1 } },
      ),
    caughtBy: ['I6', 'I7', 'I9'],
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
      change(ENGINE, '    queuePair.sendBacklog ||= sends\n', '    this.#backlog.length = 0\n'),
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
        '    const request = recordSend(',
        '    memory.i32[word + sendSlot.word.position] = (first + count) | 0\n    const request = recordSend(',
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
    name: 'a successor that publishes nothing again, while clients post and poll',
    changes: [
      change(
        RECOVERY,
        '  for (const { slot, generation } of done) queue.push(',
        '  for (const { slot, generation } of done.slice(done.length)) queue.push(',
      ),
    ],
    scenario: postedAndPolled,
    caughtBy: ['I11'],
  },
  {
    name: 'a successor that does not finish the visit under way, while clients post and poll',
    changes: [change(RECOVERY, '  if (taken > 0) ring.advance(taken)\n', '')],
    scenario: postedAndPolled,
    caughtBy: ['I6', 'I7', 'I9', 'I11', 'exception'],
  },
]
