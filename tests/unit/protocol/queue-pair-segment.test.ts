import test from 'ava'
import fc from 'fast-check'
import { side } from '../../../protocol/completion-queue-segment.js'
import { defaults, limits } from '../../../protocol/limits.js'
import {
  activityBit,
  activityQueuePair,
  atomicRecord,
  flowRecord,
  queuePairGeometry,
  queuePairHeader,
  queuePairState,
  queuePairStateNames,
  queuePairType,
  receiveSlot,
  scatterGatherEntry,
  sendSlot,
} from '../../../protocol/queue-pair-segment.js'
import { ACTIVITY_BITS } from '../../../shm/activity.js'
import { ringByteLength } from '../../../shm/reference-ring.js'

const shapes = fc.record({
  type: fc.constantFrom(...Object.values(queuePairType)),
  sendSlots: fc.integer({ min: 0, max: limits.slotsPerQueue }),
  receiveSlots: fc.integer({ min: 0, max: limits.slotsPerQueue }),
  inlineByteLength: fc.integer({ min: 0, max: limits.inlineByteLength }),
})
type Shape = Parameters<typeof queuePairGeometry>[0]

/** Name, start and end of every area of a segment. */
function areasOf(shape: Shape): [string, number, number][] {
  const of = queuePairGeometry(shape)
  const area = (name: string, start: number, byteLength: number): [string, number, number] => [
    name,
    start,
    start + byteLength,
  ]
  return [
    area('header', 0, queuePairHeader.byteLength),
    area('send ring', of.sendRingOffset, ringByteLength(of.sendRingCapacity)),
    area('receive ring', of.receiveRingOffset, ringByteLength(of.receiveRingCapacity)),
    area('atomic records', of.atomicRecordsOffset, limits.atomicWindow * atomicRecord.byteLength),
    area('flow table', of.flowTableOffset, of.flowRecords * flowRecord.byteLength),
    area('send slots', of.sendSlotsOffset, of.sendSlots * of.sendSlotByteLength),
    area('receive slots', of.receiveSlotsOffset, of.receiveSlots * of.receiveSlotByteLength),
  ]
}

test('areas follow each other without overlap, inside the segment, each on a cache line', (t) => {
  fc.assert(
    fc.property(shapes, (shape) => {
      const areas = areasOf(shape)
      let end = 0
      for (const [name, start, areaEnd] of areas) {
        t.true(start >= end, `${name} overlaps`)
        t.true(start - end < 64, `a hole before ${name}`)
        t.is(start % 64, 0, name)
        end = areaEnd
      }
      t.is(queuePairGeometry(shape).byteLength, end)
    }),
  )
})

test('slots are whole cache lines, and large enough for what they hold', (t) => {
  fc.assert(
    fc.property(shapes, (shape) => {
      const of = queuePairGeometry(shape)
      t.is(of.sendSlotByteLength % 64, 0)
      t.is(of.receiveSlotByteLength % 64, 0)
      t.is(of.sendSlotByteLength - sendSlot.offset.furtherEntries, of.inlineByteLength)
      t.true(of.inlineByteLength >= shape.inlineByteLength && of.inlineByteLength % 64 === 0)
      t.true(of.inlineByteLength >= limits.scatterGatherEntries * scatterGatherEntry.byteLength)
    }),
  )
  const further = (limits.scatterGatherEntries - 1) * scatterGatherEntry.byteLength
  t.true(receiveSlot.offset.immediate - receiveSlot.offset.furtherEntries >= further)
})

test('rings are powers of two with a place for every slot', (t) => {
  fc.assert(
    fc.property(shapes, (shape) => {
      const of = queuePairGeometry(shape)
      for (const [capacity, slots] of [
        [of.sendRingCapacity, shape.sendSlots],
        [of.receiveRingCapacity, shape.receiveSlots],
      ] as const) {
        t.is(capacity & (capacity - 1), 0)
        t.true(capacity >= Math.max(1, slots) && capacity < 2 * Math.max(1, slots))
      }
    }),
  )
})

test('more of anything never makes the segment smaller', (t) => {
  fc.assert(
    fc.property(shapes, shapes, (one, other) => {
      const larger = {
        type: Math.max(one.type, other.type),
        sendSlots: Math.max(one.sendSlots, other.sendSlots),
        receiveSlots: Math.max(one.receiveSlots, other.receiveSlots),
        inlineByteLength: Math.max(one.inlineByteLength, other.inlineByteLength),
      }
      return queuePairGeometry(one).byteLength <= queuePairGeometry(larger).byteLength
    }),
  )
  t.pass()
})

test('both sides compute the same from what the broker grants', (t) => {
  fc.assert(
    fc.property(shapes, (shape) => {
      const granted = queuePairGeometry(shape)
      t.deepEqual(queuePairGeometry({ ...granted, type: shape.type }), granted)
    }),
  )
})

test('a queue pair as it is made by default fits 64 KiB, the largest 4 MiB', (t) => {
  const { maxSend: sendSlots, maxReceive: receiveSlots, maxInline: inlineByteLength } = defaults
  const { slotsPerQueue } = limits
  for (const type of Object.values(queuePairType)) {
    t.true(queuePairGeometry({ type, sendSlots, receiveSlots, inlineByteLength }).byteLength <= 64 << 10)
    const largest = { type, sendSlots: slotsPerQueue, receiveSlots: slotsPerQueue, inlineByteLength: 512 }
    t.true(queuePairGeometry(largest).byteLength <= 4 << 20)
  }
})

test('only datagram queue pairs have a table of flows', (t) => {
  const shape = { sendSlots: 4, receiveSlots: 4, inlineByteLength: 0 }
  t.is(queuePairGeometry({ type: queuePairType.connected, ...shape }).flowRecords, 0)
  t.is(queuePairGeometry({ type: queuePairType.datagram, ...shape }).flowRecords, limits.datagramFlows)
})

test('words of clients and words of the broker never share a cache line', (t) => {
  const lineOf = (field: keyof typeof queuePairHeader.offset): number => Math.floor(queuePairHeader.offset[field] / 64)
  const broker = (['state', 'last', 'errorStatus', 'epoch'] as const).map(lineOf)
  for (const field of ['magic', 'sendLock', 'wantRoom', 'receiveLock'] as const) t.false(broker.includes(lineOf(field)))
  t.not(lineOf('sendLock'), lineOf('receiveLock'))
})

test('all that is said of a send or receive with one entry lies in its first line', (t) => {
  for (const field of ['state', 'generation', 'byteLength', 'id', 'operation', 'position'] as const) {
    t.true(sendSlot.offset[field] < 64)
    t.true(receiveSlot.offset[field] < 64)
  }
  t.true(sendSlot.offset.status < 64)
  t.true(receiveSlot.offset.sourceGeneration < 64 && receiveSlot.offset.sequence < 64)
  for (const slot of [sendSlot, receiveSlot]) t.is(slot.offset.firstEntry + scatterGatherEntry.byteLength, 64)
})

test('zeroes are an idle queue pair, and every state has its name', (t) => {
  t.is(queuePairState.idle, 0)
  for (const [name, number] of Object.entries(queuePairState))
    t.is<string | undefined, string>(queuePairStateNames[number], name)
  t.deepEqual(Object.keys(queuePairState), [...queuePairStateNames])
})

test('every ring of every queue pair has a bit of its own in the activity of its job', (t) => {
  const bits = new Set<number>()
  for (let number = 0; number < limits.queuePairs; number++) {
    for (const onSide of Object.values(side)) {
      const bit = activityBit(number, onSide)
      if (activityQueuePair(bit) !== number) t.fail(`bit ${bit}`)
      bits.add(bit)
    }
  }
  t.is(bits.size, 2 * limits.queuePairs)
  t.true(Math.max(...bits) < ACTIVITY_BITS)
})
