import test from 'ava'
import fc from 'fast-check'
import { defaults, limits } from '../../../protocol/limits.js'
import {
  acknowledgementRow,
  connectByService,
  connectExtension,
  frameFlag,
  grantSegment,
  kindFlags,
  kindLength,
  kindType,
  laneHeader,
  messageFlag,
  messageType,
  packKind,
  regionRight,
  rejectReason,
  rejectReasonNames,
  routeHeader,
  wireLayouts,
} from '../../../protocol/wire.js'
import { Memory } from '../../../shm/memory.js'

const byte = fc.nat({ max: 0xff })

test('the kind word gives type, flags and length back, signed or unsigned', (t) => {
  fc.assert(
    fc.property(byte, byte, fc.nat({ max: 0xffff }), (type, flags, length) => {
      const kind = packKind(type, flags, length)
      for (const word of [kind, kind | 0]) {
        t.deepEqual([kindType(word), kindFlags(word), kindLength(word)], [type, flags, length])
      }
    }),
  )
})

test('a route header in a frame reads as it was written', (t) => {
  const memory = new Memory(new ArrayBuffer(256))
  const kind = packKind(messageType.eager, messageFlag.more, 0xfff8)
  const number = { destinationNumber: 0xffffffff, sourceNumber: 1, sequence: 0x80000000, delivered: 0x7fffffff }
  const values = { kind, immediate: 0xdeadbeef, destinationGeneration: 3, sourceGeneration: 4, ...number }
  routeHeader.write(memory, laneHeader.byteLength, { ...values, receiveLimit: 5, segmentOffset: 6 })
  t.deepEqual(routeHeader.read(memory, laneHeader.byteLength), { ...values, receiveLimit: 5, segmentOffset: 6 })
})

test('headers are as long as the specification of the link says', (t) => {
  t.is(laneHeader.byteLength, 16)
  t.is(routeHeader.byteLength, 40)
  t.is(acknowledgementRow.byteLength, 24)
})

test('payloads begin where 8-byte fields can be read in place', (t) => {
  t.is(laneHeader.byteLength % 8, 0)
  t.is((laneHeader.byteLength + routeHeader.byteLength) % 8, 0)
  for (const record of wireLayouts) {
    for (const field of record.fields) {
      if (field.kind === 'f64' || field.kind === 'i64') t.is(field.offset % 8, 0, `${record.name}.${field.name}`)
    }
  }
})

test('the largest message of each kind fits a frame, and a frame its length field', (t) => {
  const room = defaults.bounceByteLength - laneHeader.byteLength - routeHeader.byteLength
  const largest = Math.max(
    ...wireLayouts.map((record) => record.byteLength),
    grantSegment.byteLength * limits.scatterGatherEntries,
    acknowledgementRow.byteLength,
  )
  t.true(largest <= room)
  t.true(defaults.bounceByteLength <= 0xffff)
})

test('message types, reasons and flags have numbers of their own that fit their fields', (t) => {
  const types = Object.values(messageType)
  t.is(new Set(types).size, types.length)
  t.true(types.every((type) => type >= 1 && type <= 0xff))
  const reasons: readonly number[] = Object.values(rejectReason)
  t.true(reasons.every((reason, index) => reason === index))
  const dashed = Object.keys(rejectReason).map((name) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`))
  t.deepEqual(dashed, [...rejectReasonNames])
  for (const flags of [messageFlag, frameFlag, regionRight]) {
    const bits = Object.values(flags)
    t.is(new Set(bits).size, bits.length)
    t.true(bits.every((bit) => Number.isInteger(Math.log2(bit)) && bit <= 0x80))
  }
})

test('no queue pair has the number that means a service', (t) => {
  t.true(connectByService >= limits.queuePairs)
  t.is(connectExtension.byteLength - connectExtension.offset.service, limits.serviceByteLength)
})
