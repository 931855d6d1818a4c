import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { copyBytes, copyInOrder } from '../../../shm/copy.js'
import { Mapping } from '../../../shm/mapping.js'
import { Memory } from '../../../shm/memory.js'

const SPAN = 32_768
const copies = { copyBytes, copyInOrder }

function patterned(memory: Memory): Memory {
  for (let index = 0; index < memory.byteLength; index++) memory.u8[index] = (index * 131 + (index >>> 8)) & 0xff
  return memory
}

function mapped(t: ExecutionContext): Memory {
  const mapping = Mapping.create('copy', SPAN)
  t.teardown(() => mapping.close())
  return mapping.memory
}

/** Short and long, on and off every boundary that matters. */
const byteLengths = fc.oneof(
  fc.integer({ min: 0, max: 40 }),
  fc.constantFrom(505, 511, 512, 513, 520, 2048, 2049, 4096, 10_001),
)
const offsets = fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 20_000 }))

for (const [name, copy] of Object.entries(copies)) {
  test(`${name} copies exactly the range, whatever the boundaries, mapped or not`, (t) => {
    const sources = [patterned(mapped(t)), patterned(new Memory(new ArrayBuffer(SPAN)))]
    const destinations = [mapped(t), new Memory(new ArrayBuffer(SPAN))]
    fc.assert(
      fc.property(byteLengths, offsets, offsets, fc.nat(1), fc.nat(1), (byteLength, from, to, source, destination) => {
        const [origin, target] = [sources[source]!, destinations[destination]!]
        target.u8.fill(0xaa)
        copy(target, to, origin, from, byteLength)
        const expected = new Uint8Array(SPAN).fill(0xaa)
        expected.set(origin.u8.subarray(from, from + byteLength), to)
        return Buffer.compare(expected, target.u8) === 0
      }),
      { numRuns: 400 },
    )
    t.pass()
  })

  test(`${name} refuses a range outside a span before it touches anything`, (t) => {
    const [one, two] = [mapped(t), mapped(t)]
    const refused = { code: 'out-of-bounds' }
    for (const [to, from, byteLength] of [
      [SPAN - 4, 0, 8],
      [0, SPAN - 4, 8],
      [-8, 0, 8],
      [0, -8, 8],
      [0, 0, -1],
      [Number.NaN, 0, 8],
      [0, 0, SPAN + 8],
    ]) {
      t.throws(() => copy(one, to!, two, from!, byteLength!), refused)
    }
    t.true(one.u8.every((byte) => byte === 0))
  })
}

test('doubles that are no numbers keep their bits', (t) => {
  const [from, to] = [mapped(t), mapped(t)]
  from.i64[0] = 0x7ff4_dead_beef_0001n
  copyBytes(to, 8, from, 0, 8)
  t.is(to.i64[1], 0x7ff4_dead_beef_0001n)
})

test('copyInOrder stores the last eight bytes last', (t) => {
  const source = patterned(new Memory(new ArrayBuffer(1024)))
  for (const byteLength of [9, 16, 24, 100, 512, 600]) {
    const order: number[] = []
    const memory = new Memory(new ArrayBuffer(1024))
    copyInOrder(recording(memory, order), 0, source, 0, byteLength)
    const tail = order.findIndex((byte) => byte >= byteLength - 8)
    t.true(
      order.slice(tail).every((byte) => byte >= byteLength - 8),
      `${byteLength}: ${order.join(' ')}`,
    )
    t.deepEqual(memory.u8.subarray(0, byteLength), source.u8.subarray(0, byteLength))
  }
})

/** The same memory, with every store through its arrays noted as the byte it begins at. */
function recording(memory: Memory, order: number[]): Memory {
  const watch = <View extends object>(array: View, elementBytes: number): View =>
    new Proxy(array, {
      get: (target, key) => {
        const value: unknown = Reflect.get(target, key, target)
        if (key !== 'set') return value
        return (bytes: Uint8Array, offset: number) => {
          for (let index = 0; index < bytes.length; index++) order.push(offset + index)
          memory.u8.set(bytes, offset)
        }
      },
      set: (target, key, value) => {
        order.push(Number(key) * elementBytes)
        return Reflect.set(target, key, value, target)
      },
    })
  return { ...memory, u8: watch(memory.u8, 1), i64: watch(memory.i64, 8) }
}
