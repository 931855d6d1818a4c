/** The completion ring from the broker's side: full rings, positions that wrap, heads that cannot be. */
import test from 'ava'
import { EngineCompletionQueue } from '../../../broker/engine/completion-queue.js'
import {
  completionEntry,
  completionQueueGeometry,
  completionQueueHeader,
} from '../../../protocol/completion-queue-segment.js'
import { Mapping } from '../../../shm/mapping.js'

const CAPACITY = 8
const { head, tail } = completionQueueHeader.word

function make(start = 0): { mapping: Mapping; queue: EngineCompletionQueue; entries: () => number[] } {
  const geometry = completionQueueGeometry(CAPACITY)
  const mapping = Mapping.create('ring', geometry.byteLength)
  mapping.words.store(head, start)
  mapping.words.store(tail, start)
  const queue = new EngineCompletionQueue({ number: 1, generation: 1, job: 1, capacity: CAPACITY }, mapping)
  const entries = (): number[] => {
    const taken: number[] = []
    let at = mapping.words.load(head)
    for (; at !== mapping.words.load(tail); at = (at + 1) | 0) {
      const offset = geometry.entriesOffset + (at & (CAPACITY - 1)) * completionEntry.byteLength
      taken.push(completionEntry.read(mapping.memory, offset).generation)
    }
    mapping.words.store(head, at)
    return taken
  }
  return { mapping, queue, entries }
}

const completer = () => ({ number: 5, unpublished: 0 })

for (const start of [0, 0x7ffffffc, -4]) {
  test(`a full ring keeps the rest in order and says when a completer has none left, from position ${start}`, (t) => {
    const { queue, entries } = make(start)
    const [one, two] = [completer(), completer()]
    const ended: unknown[] = []
    for (let generation = 0; generation < 30; generation++)
      queue.push(generation % 2 === 0 ? one : two, 0, 0, generation, false)
    queue.publish()
    t.is(queue.backlog, 22)
    t.is(one.unpublished + two.unpublished, 22)
    const taken = entries()
    while (queue.backlog > 0) {
      t.true(queue.refill((each) => ended.push(each)))
      queue.publish()
      taken.push(...entries())
    }
    t.deepEqual(taken, [...taken.keys()])
    t.deepEqual(ended, [one, two])
  })
}

test('a head that cannot be is no room, never room; nothing is written outside the ring', (t) => {
  const { mapping, queue } = make()
  const before = mapping.memory.u8.slice()
  for (const wrong of [1, 1000, -1, -CAPACITY, 0x7fffffff, -0x80000000]) {
    mapping.words.store(head, wrong)
    queue.push(completer(), 0, 0, 1, false)
    queue.publish()
    const used = (mapping.words.load(tail) - wrong) | 0
    t.true(used <= CAPACITY || queue.backlog > 0)
  }
  const { entriesOffset, byteLength } = completionQueueGeometry(CAPACITY)
  t.deepEqual(mapping.memory.u8.slice(byteLength), before.slice(byteLength))
  t.true(entriesOffset < byteLength)
})

test('what is abandoned leaves the line, the others keep their order', (t) => {
  const { queue, entries } = make()
  const [gone, stays] = [completer(), completer()]
  for (let generation = 0; generation < CAPACITY; generation++) queue.push(stays, 0, 0, generation, false)
  for (let generation = 100; generation < 110; generation++)
    queue.push(generation % 2 === 0 ? gone : stays, 0, 0, generation, false)
  queue.abandon(gone)
  t.is(gone.unpublished, 0)
  queue.publish()
  const taken = entries()
  queue.refill(() => {})
  queue.publish()
  t.deepEqual([...taken, ...entries()], [0, 1, 2, 3, 4, 5, 6, 7, 101, 103, 105, 107, 109])
})
