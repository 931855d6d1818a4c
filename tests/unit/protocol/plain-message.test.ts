import test from 'ava'
import fc from 'fast-check'
import { Packr } from 'msgpackr'
import { plainMessageDepth, plainMessageFault } from '../../../protocol/plain-message.js'
import { hex, joined } from './malformed.js'

const packer = new Packr({ useRecords: false, variableMapSize: true })

const plainValues = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', maxDepth: plainMessageDepth - 1 },
    fc.constantFrom<unknown>(null, true, false, '', 0, -1, -32, -33, 2 ** 53 - 1, -(2 ** 53 - 1), 0.5, Number.NaN),
    fc.integer(),
    fc.double(),
    fc.string({ unit: 'grapheme' }),
    fc.string({ unit: 'grapheme', minLength: 30, maxLength: 300 }),
    fc.array(tie('value'), { maxLength: 20 }),
    fc.dictionary(fc.string(), tie('value'), { maxKeys: 20, noNullPrototype: true }),
  ),
})).value

test('every plain value passes, and none of its beginnings', (t) => {
  fc.assert(
    fc.property(plainValues, (value) => {
      const bytes = packer.pack(value)
      t.is(plainMessageFault(bytes), null)
      for (let length = 0; length < Math.min(bytes.byteLength, 60); length++) {
        t.not(plainMessageFault(bytes.subarray(0, length)), null)
      }
      t.regex(plainMessageFault(joined(bytes, hex('c0'))) ?? '', /1 bytes behind the message/)
    }),
    { numRuns: 150 },
  )
})

test('each head of the format is measured right', (t) => {
  const plain = [
    ...['00', '7f', 'e0', 'ff', 'c0', 'c2', 'c3', 'ca 00000000', 'cb 0000000000000000', 'cc ff', 'cd ffff'],
    ...['ce ffffffff', 'cf 001fffffffffffff', 'd0 80', 'd1 8000', 'd2 80000000', 'd3 ffe0000000000001'],
    ...['a0', 'a1 61', 'd9 01 61', 'da 0001 61', 'db 00000001 61', '90', '91 00', 'dc 0001 00', 'dd 00000001 00'],
    ...['80', '81 a0 00', 'de 0001 a0 00', 'df 00000001 a0 00', '92 81 a1 61 90 80', '81 a1 61 81 a1 62 91 c0'],
  ]
  for (const digits of plain) t.is(plainMessageFault(hex(digits)), null, digits)
})

test('extension types, binary and the unused byte are refused, whichever type they name', (t) => {
  const heads = ['d4', 'd5', 'd6', 'd7', 'd8', 'c7 01', 'c8 0001', 'c9 00000001']
  for (let type = 0; type < 256; type++) {
    const kind = Buffer.from([type])
    for (const head of heads) {
      const bytes = joined(hex('91'), hex(head), kind, Buffer.alloc(16, 0x90))
      t.regex(plainMessageFault(bytes) ?? '', /a type \(0x[cd][4-9]\) that is not used here at byte 1/)
    }
  }
  for (const head of ['c1', 'c4 00', 'c5 0000', 'c6 00000000']) t.not(plainMessageFault(hex(head)), null)
})

test('a length beyond the message is refused where it stands', (t) => {
  for (const head of ['db', 'dd', 'df']) {
    t.is(plainMessageFault(hex(`${head} ffffffff`)), 'a length beyond the message at byte 0')
    t.is(plainMessageFault(hex(`91 ${head} 7fffffff 00`)), 'a length beyond the message at byte 1')
  }
  for (const head of ['da', 'dc', 'de']) t.not(plainMessageFault(hex(`${head} ffff 00`)), null)
  t.is(plainMessageFault(hex('d9 02 61')), 'a length beyond the message at byte 0')
  for (const digits of ['', 'cb 00', 'd9', 'da 00', 'db 000000', '92 91 c0', '92 81 a0 c0']) {
    t.regex(plainMessageFault(hex(digits)) ?? '', /the message ends in the middle of a value/)
  }
})

test('integers that no number holds are refused', (t) => {
  for (const digits of ['cf 0020000000000000', 'cf ffffffffffffffff', 'd3 0020000000000000', 'd3 8000000000000000']) {
    t.regex(plainMessageFault(hex(digits)) ?? '', /an integer that no number holds/)
  }
})

test('keys are text', (t) => {
  for (const digits of ['81 00 00', '81 c0 00', '81 90 00', '82 a1 61 00 01 00', '81 80 00']) {
    t.regex(plainMessageFault(hex(digits)) ?? '', /a key that is no text/, digits)
  }
})

test('text that is not UTF-8 is refused', (t) => {
  for (const digits of ['a1 ff', 'a2 c328', 'a3 eda080', 'a1 c3', 'd9 01 80', '81 a1 ff 00']) {
    t.regex(plainMessageFault(hex(digits)) ?? '', /text that is not UTF-8/, digits)
  }
})

test('nesting is bounded, in arrays, maps and both', (t) => {
  const deep = (head: string, depth: number): Uint8Array => joined(...Array(depth).fill(hex(head)), hex('c0'))
  for (const head of ['91', '81 a0', 'dd 00000001', '91 81 a0']) {
    const levels = head === '91 81 a0' ? plainMessageDepth / 2 : plainMessageDepth
    t.is(plainMessageFault(deep(head, levels)), null)
    t.regex(plainMessageFault(deep(head, levels + 1)) ?? '', /nesting deeper than 16/)
    t.regex(plainMessageFault(deep(head, 20_000)) ?? '', /nesting deeper than 16/)
  }
})

test('a view into a larger buffer is judged by its own bytes', (t) => {
  const around = Buffer.concat([hex('ff ff ff'), packer.pack(['a', 1]), hex('ff')])
  t.is(plainMessageFault(around.subarray(3, around.byteLength - 1)), null)
  t.not(plainMessageFault(around.subarray(3)), null)
})
