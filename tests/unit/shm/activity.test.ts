import test from 'ava'
import fc from 'fast-check'
import { ACTIVITY_BITS, activityLayout, anyActive, clearAll, collectActive, markActive } from '../../../shm/activity.js'
import { systemFutex } from '../../../shm/libc.js'
import { SharedWords, type Words } from '../../../shm/words.js'

const BASE = 16

function fresh(): Words {
  return new SharedWords(new Int32Array(BASE + activityLayout.byteLength / 4 + BASE), 0, systemFutex)
}

function collected(words: Words): number[] {
  const bits: number[] = []
  const count = collectActive(words, BASE, (bit) => bits.push(bit))
  if (count !== bits.length) throw new Error(`${count} told, ${bits.length} visited`)
  return bits
}

const bits = fc.array(
  fc.oneof(fc.integer({ min: 0, max: ACTIVITY_BITS - 1 }), fc.constantFrom(0, 31, 32, 1023, 1024, 32_767)),
)

test('what was marked is collected once, in order, and nothing else', (t) => {
  fc.assert(
    fc.property(bits, bits, (first, second) => {
      const words = fresh()
      for (const marked of [first, second]) {
        for (const bit of marked) markActive(words, BASE, bit)
        t.is(anyActive(words, BASE), marked.length > 0)
        t.deepEqual(
          collected(words),
          [...new Set(marked)].sort((a, b) => a - b),
        )
        t.deepEqual(collected(words), [])
      }
    }),
  )
})

test('all bits have their place, and the neighbours of the bitmap stay untouched', (t) => {
  const words = fresh()
  for (let bit = 0; bit < ACTIVITY_BITS; bit++) markActive(words, BASE, bit)
  t.is(collected(words).length, ACTIVITY_BITS)
  for (let index = 0; index < BASE; index++) {
    t.is(words.load(index), 0)
    t.is(words.load(BASE + activityLayout.byteLength / 4 + index), 0)
  }
})

test('clearing forgets everything', (t) => {
  const words = fresh()
  for (const bit of [0, 5000, 32_767]) markActive(words, BASE, bit)
  clearAll(words, BASE)
  t.false(anyActive(words, BASE))
  markActive(words, BASE, 7)
  t.deepEqual(collected(words), [7])
})

/** Stops a marker before its access number `steps`, as a kill would. */
function killedAfter(words: Words, steps: number): Words {
  let left = steps
  return {
    ...words,
    or: (index, mask) => {
      if (left-- === 0) throw new Error('killed')
      return words.or(index, mask)
    },
  }
}

for (const steps of [0, 1, 2]) {
  test(`a marker killed after ${steps} of three steps does not hide the next marker of the same ring`, (t) => {
    const words = fresh()
    t.throws(() => markActive(killedAfter(words, steps), BASE, 1234), { message: 'killed' })
    markActive(words, BASE, 1234)
    t.deepEqual(collected(words), [1234])
  })
}

test('a mark made at any moment of a collection is found by it or by the next', (t) => {
  for (let moment = 0; moment < 4; moment++) {
    const words = fresh()
    markActive(words, BASE, 100)
    let accesses = 0
    const interrupted: Words = {
      ...words,
      load: (index) => words.load(index),
      exchange: (index, value) => {
        if (accesses++ === moment) markActive(words, BASE, 100)
        return words.exchange(index, value)
      },
    }
    const seen: number[] = []
    collectActive(interrupted, BASE, (bit) => seen.push(bit))
    collectActive(words, BASE, (bit) => seen.push(bit))
    t.true(seen.includes(100))
    t.true(seen.length >= (moment < 3 ? 1 : 1))
  }
})
