import test from 'ava'
import fc from 'fast-check'
import { systemFutex } from '../../../shm/libc.js'
import {
  append,
  CORRUPT,
  EMPTY,
  ReferenceRingConsumer,
  referenceRingLayout,
  ringByteLength,
  ringCapacity,
} from '../../../shm/reference-ring.js'
import { SharedWords, type Words } from '../../../shm/words.js'

const BASE = 8
const TAIL = BASE + referenceRingLayout.word.tail
const HEAD = BASE + referenceRingLayout.word.head

/** A ring of 8 whose positions begin anywhere. */
function ring(start = 0, slotCount = 8): { words: Words; consumer: ReferenceRingConsumer } {
  const words = new SharedWords(new Int32Array(BASE + ringByteLength(8) / 4), 0, systemFutex)
  words.store(TAIL, start)
  words.store(HEAD, start)
  return { words, consumer: new ReferenceRingConsumer(words, BASE, 8, slotCount) }
}

const starts = fc.oneof(
  fc.constantFrom(0, 0x7ffffffc, -3, -(2 ** 31)),
  fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
)
const steps = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('append' as const), slots: fc.array(fc.nat(7), { maxLength: 10 }) }),
    fc.record({ kind: fc.constant('take' as const), count: fc.nat(8) }),
    fc.record({ kind: fc.constant('successor' as const) }),
  ),
  { maxLength: 60 },
)

test('the ring behaves as a bounded list, also where positions wrap and when the consumer is replaced', (t) => {
  fc.assert(
    fc.property(starts, steps, (start, plan) => {
      const made = ring(start)
      const { words } = made
      let { consumer } = made
      const model: number[] = []
      let position = start
      for (const step of plan) {
        if (step.kind === 'append') {
          const fits = model.length + step.slots.length <= 8
          t.is(append(words, BASE, 8, Int32Array.from(step.slots), step.slots.length), fits)
          if (fits) model.push(...step.slots)
        } else if (step.kind === 'successor') {
          consumer = new ReferenceRingConsumer(words, BASE, 8, 8)
        } else {
          t.is(consumer.pending(), model.length)
          const count = Math.min(step.count, model.length)
          for (let offset = 0; offset < count; offset++) t.is(consumer.slotAt(offset), model[offset]!)
          consumer.advance(count)
          model.splice(0, count)
          position = (position + count) | 0
        }
        t.is(consumer.position, position)
        t.is(consumer.peek(), model[0] ?? EMPTY)
      }
    }),
  )
})

test('a list that was not committed does not exist, and the next producer writes over it', (t) => {
  const { words, consumer } = ring()
  const dying: Words = {
    load: (index) => words.load(index),
    put: (index, value) => words.put(index, value),
    store: (index, value) => {
      if (index === TAIL) throw new Error('killed')
      words.store(index, value)
    },
  } as Words
  t.throws(() => append(dying, BASE, 8, Int32Array.of(5, 6), 2), { message: 'killed' })
  t.is(consumer.peek(), EMPTY)
  t.true(append(words, BASE, 8, Int32Array.of(1), 1))
  t.is(consumer.peek(), 1)
  t.is(consumer.pending(), 1)
})

test('a tail beyond the capacity or behind the head is corrupt to both sides', (t) => {
  for (const tail of [9, -1, 2 ** 31 - 1, -(2 ** 31)]) {
    const { words, consumer } = ring()
    words.store(TAIL, tail)
    t.is(consumer.pending(), CORRUPT)
    t.is(consumer.peek(), CORRUPT)
    t.false(append(words, BASE, 8, Int32Array.of(1), 1))
  }
})

test('an entry that names no slot is corrupt', (t) => {
  for (const entry of [0, 6, -1, 2 ** 31 - 1]) {
    const { words, consumer } = ring(0, 5)
    append(words, BASE, 8, Int32Array.of(4), 1)
    t.is(consumer.peek(), 4)
    words.store(BASE + referenceRingLayout.byteLength / 4, entry)
    t.is(consumer.peek(), CORRUPT)
  }
})

test('a scribbled shared head does not move the consumer', (t) => {
  const { words, consumer } = ring()
  append(words, BASE, 8, Int32Array.of(3, 2), 2)
  words.store(HEAD, 100)
  t.is(consumer.peek(), 3)
  consumer.advance()
  t.is(words.load(HEAD), 1)
  t.is(consumer.peek(), 2)
})

test('capacity is the power of two that holds all slots', (t) => {
  t.deepEqual([0, 1, 2, 3, 256, 257].map(ringCapacity), [1, 1, 2, 4, 256, 512])
  t.is(ringByteLength(256), 128 + 1024)
})
