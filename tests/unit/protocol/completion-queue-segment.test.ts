import test from 'ava'
import fc from 'fast-check'
import {
  completionEntry,
  completionQueueGeometry,
  completionQueueHeader,
  packReference,
  referenceQueuePair,
  referenceSide,
  referenceSlot,
  side,
} from '../../../protocol/completion-queue-segment.js'
import { limits } from '../../../protocol/limits.js'

test('a reference gives queue pair, side and slot back, up to the limits', (t) => {
  const parts = fc.tuple(
    fc.oneof(fc.nat({ max: 2 ** 18 - 1 }), fc.constant(limits.queuePairs - 1)),
    fc.constantFrom(...Object.values(side)),
    fc.nat({ max: 2 ** 13 - 1 }),
  )
  fc.assert(
    fc.property(parts, ([queuePair, onSide, slot]) => {
      const reference = packReference(queuePair, onSide, slot)
      const back = [referenceQueuePair(reference), referenceSide(reference), referenceSlot(reference)]
      t.deepEqual(back, [queuePair, onSide, slot])
      t.is(reference, reference | 0, 'it is a word')
    }),
  )
  t.true(limits.queuePairs <= 2 ** 18)
  t.true(limits.slotsPerQueue <= 2 ** 13)
})

test('a hostile reference still gives numbers in range', (t) => {
  for (const word of [-1, 0x7fffffff, -0x80000000]) {
    t.true(referenceQueuePair(word) < 2 ** 18)
    t.true(referenceSide(word) <= 1)
    t.true(referenceSlot(word) < 2 ** 13)
  }
})

test('capacity is the next power of two, and the entries fill the rest of the segment', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: limits.completionQueueCapacity }), (asked) => {
      const of = completionQueueGeometry(asked)
      t.is(of.capacity & (of.capacity - 1), 0)
      t.true(of.capacity >= Math.max(2, asked) && of.capacity < 2 * Math.max(2, asked))
      t.is(of.entriesOffset, completionQueueHeader.byteLength)
      t.is(of.entriesOffset % 64, 0)
      t.is(of.byteLength, of.entriesOffset + of.capacity * completionEntry.byteLength)
      t.deepEqual(completionQueueGeometry(of.capacity), of)
    }),
  )
  for (let power = 1; power <= 16; power++) t.is(completionQueueGeometry(2 ** power).capacity, 2 ** power)
})

test('every member has a bit to arm, and every leaf a bit above it', (t) => {
  const { offset } = completionQueueHeader
  const leafBits = (offset.solicitedLeaf - offset.armedLeaf) * 8
  t.true(leafBits > limits.members)
  t.is(completionQueueHeader.byteLength - offset.solicitedLeaf, offset.solicitedLeaf - offset.armedLeaf)
  t.is((offset.solicitedRoot - offset.armedRoot) * 8, leafBits / 32)
})

test('broker and pollers write different cache lines', (t) => {
  const { tail, head, armedRoot, armedLeaf } = completionQueueHeader.offset
  const lines = [tail, head, armedRoot, armedLeaf].map((offset) => Math.floor(offset / 64))
  t.is(new Set(lines).size, lines.length)
})
