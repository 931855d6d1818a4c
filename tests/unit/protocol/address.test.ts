import test from 'ava'
import fc from 'fast-check'
import { isName, isNodeName } from '../../../protocol/address.js'
import { limits } from '../../../protocol/limits.js'

test('node names are host-name like', (t) => {
  for (const name of ['a', '7', 'alpha', 'node-1', 'a.b.example', 'A_b', 'x'.repeat(64), '10.0.0.1']) {
    t.true(isNodeName(name), name)
  }
  const wrong = ['', '-a', 'a-', '.a', 'a.', '_a', 'a b', 'a/b', 'a:1', 'ä', 'a\n', '\na', 'x'.repeat(65)]
  for (const name of [...wrong, null, undefined, 7, ['alpha'], { toString: () => 'alpha' }]) t.false(isNodeName(name))
})

test('job and service names are printable, without spaces, and bounded', (t) => {
  for (const name of ['a', 'slurm.4711', '{}', '!~', 'x'.repeat(64)]) t.true(isName(name), name)
  for (const name of ['', ' ', 'a b', 'a\n', '\u007f', '\u001b[2J', 'ä', 'x'.repeat(65), null, 7, ['a']]) {
    t.false(isName(name))
  }
})

test('every name fits its field, whole', (t) => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 80 }), (text) => {
      const byteLength = Buffer.byteLength(text)
      if (isNodeName(text)) t.true(byteLength <= limits.nameByteLength)
      if (isName(text)) t.true(byteLength <= limits.serviceByteLength)
    }),
  )
  t.is(limits.nameByteLength, 64)
  t.is(limits.serviceByteLength, 64)
})
