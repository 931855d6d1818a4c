import test from 'ava'
import fc from 'fast-check'
import {
  bytes,
  cacheLine,
  type Field,
  f64,
  gap,
  i32,
  i64,
  LayoutError,
  layout,
  text,
  u32,
  word,
} from '../../../shm/layout.js'
import { Memory } from '../../../shm/memory.js'

const kinds: Record<string, () => Field> = {
  word,
  u32,
  i32,
  f64,
  i64,
  text: () => text(24),
  bytes: () => bytes(16),
  line: cacheLine,
}
/** Fields in any order, each brought to its alignment by a written gap, the whole ended to repeat at 8 bytes. */
const declaration = fc.array(fc.constantFrom(...Object.keys(kinds)), { minLength: 1, maxLength: 20 }).map((names) => {
  const fields: Record<string, Field> = {}
  let end = 0
  const add = (name: string, field: Field): void => {
    fields[name] = field
    end += field.kind === 'line' ? (64 - (end % 64)) % 64 : field.byteLength
  }
  names.forEach((name, index) => {
    const field = kinds[name]!()
    const missing = (field.alignment - (end % field.alignment)) % field.alignment
    if (missing > 0) add(`pad${index}`, gap(missing))
    add(`f${index}`, field)
  })
  if (end % 8 !== 0) add('end', gap(8 - (end % 8)))
  return fields
})

test('fields follow each other without holes or overlaps, at their alignment', (t) => {
  fc.assert(
    fc.property(declaration, (fields) => {
      const record = layout('any', fields)
      let end = 0
      for (const field of record.fields) {
        if (field.offset !== end) throw new Error(`${field.name} at ${field.offset}, expected ${end}`)
        if (field.offset % fields[field.name]!.alignment !== 0) throw new Error(`${field.name} is not aligned`)
        end += field.byteLength
      }
      return record.byteLength === end && record.byteLength % 8 === 0
    }),
  )
  t.pass()
})

test('word offsets are byte offsets in fours, and NaN where there is none', (t) => {
  const record = layout('offsets', { a: bytes(2), b: bytes(2), c: word() })
  t.deepEqual(record.offset, { a: 0, b: 2, c: 4 })
  t.deepEqual(record.word, { a: 0, b: Number.NaN, c: 1 })
})

test('what is written is read back, and nothing beside it changes', (t) => {
  const record = layout('row', {
    flag: word(),
    id: u32(),
    level: i32(),
    space: gap(4),
    at: f64(),
    big: i64(),
    name: text(8),
    raw: bytes(8),
  })
  const values = fc.record({
    flag: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
    id: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    level: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
    at: fc.double({ noNaN: true }),
    big: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
    name: fc.string({ maxLength: 8, unit: fc.constantFrom('a', 'b', 'z', '0') }),
    raw: fc.uint8Array({ minLength: 8, maxLength: 8 }),
  })
  fc.assert(
    fc.property(values, fc.integer({ min: 0, max: 3 }), (row, place) => {
      const memory = new Memory(new ArrayBuffer(record.byteLength * 4))
      memory.u8.fill(0xee)
      const base = place * record.byteLength
      memory.u8.fill(0, base, base + record.byteLength)
      record.write(memory, base, row)
      t.deepEqual(record.read(memory, base), row)
      const outside = [...memory.u8.subarray(0, base), ...memory.u8.subarray(base + record.byteLength)]
      t.true(outside.every((byte) => byte === 0xee))
    }),
  )
})

test('a part of a record can be written, the rest stays', (t) => {
  const record = layout('part', { a: u32(), b: u32() })
  const memory = new Memory(new ArrayBuffer(8))
  record.write(memory, 0, { a: 1, b: 2 })
  record.write(memory, 0, { b: 3 })
  t.deepEqual(record.read(memory, 0), { a: 1, b: 3 })
})

test('text is cut at a whole character and old text does not shine through', (t) => {
  const record = layout('names', { name: text(4) })
  const memory = new Memory(new ArrayBuffer(8))
  record.write(memory, 0, { name: 'abcd' })
  t.is(record.read(memory, 0).name, 'abcd')
  record.write(memory, 0, { name: 'abcé' })
  t.is(record.read(memory, 0).name, 'abc')
  record.write(memory, 0, { name: 'x' })
  t.is(record.read(memory, 0).name, 'x')
})

test('padding that is not written down is refused', (t) => {
  t.throws(() => layout('hole', { a: bytes(2), b: word() }), {
    instanceOf: LayoutError,
    code: 'layout-invalid',
    message: /field b at byte 2/,
  })
  t.throws(() => layout('tail', { a: f64(), b: word() }), { instanceOf: LayoutError, message: /end it with a gap/ })
  t.notThrows(() => layout('filled', { a: f64(), b: word(), rest: gap(4) }))
})

test('a line ends where the next 64 bytes begin, also when it is full', (t) => {
  const record = layout('lines', {
    a: word(),
    first: cacheLine(),
    b: bytes(64),
    second: cacheLine(),
    c: word(),
    third: cacheLine(),
  })
  t.deepEqual([record.offset.b, record.offset.c, record.byteLength], [64, 128, 192])
})

test('the table and the signature name every field with its place', (t) => {
  const record = layout('row', { state: word(), rest: gap(4), at: f64() })
  t.is(
    record.describe(),
    'row (16 bytes)\n      0      4  word   state\n      4      4  gap    rest\n      8      8  f64    at',
  )
  t.is(record.signature(), 'row:16:state/word/0/4,rest/gap/4/4,at/f64/8/8')
  t.not(record.signature(), layout('row', { state: word(), rest: gap(4), when: f64() }).signature())
})
