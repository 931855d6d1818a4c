import test from 'ava'
import fc from 'fast-check'
import { type ErrorCode, errorCodes, isErrorCode } from '../../../protocol/error-codes.js'
import { SharedVerbsError } from '../../../protocol/errors.js'

const codes = Object.keys(errorCodes) as ErrorCode[]
const categories = ['usage', 'state', 'limit', 'access', 'environment', 'peer', 'protocol', 'internal']
const contexts = fc.dictionary(fc.string(), fc.jsonValue(), { noNullPrototype: true })

test('every error travels whole', (t) => {
  fc.assert(
    fc.property(fc.constantFrom(...codes), fc.string({ unit: 'grapheme' }), contexts, (code, message, context) => {
      const sent = new SharedVerbsError(code, message, context)
      const received = SharedVerbsError.fromWire(sent.toWire())
      t.true(received instanceof Error)
      t.deepEqual([received.name, received.code, received.message], ['SharedVerbsError', code, message])
      t.is(received.category, errorCodes[code])
      t.deepEqual(received.context, JSON.parse(JSON.stringify(context)) as Record<string, unknown>)
    }),
  )
})

test('a code that is not known here is an internal error, with the same text', (t) => {
  for (const code of ['', 'no-such-code', 'toString', '__proto__', 'constructor', 'hasOwnProperty', 'Busy']) {
    const error = SharedVerbsError.fromWire({ code, message: 'why', context: '{"a":1}' })
    t.is(error.code, 'internal-error')
    t.is(error.category, 'internal')
    t.is(error.message, 'why')
    t.deepEqual(error.context, { a: 1 })
  }
})

test('a context that is no record is none', (t) => {
  for (const context of ['', '{', 'null', '1', '"a"', '[1]', 'undefined', '{"a":1']) {
    t.deepEqual(SharedVerbsError.fromWire({ code: 'busy', message: '', context }).context, {})
  }
})

test('what JSON cannot hold does not keep an error from travelling', (t) => {
  const endless: Record<string, unknown> = {}
  endless['self'] = endless
  t.is(new SharedVerbsError('busy', '', { swap: 2n ** 63n }).toWire().context, '{"swap":"9223372036854775808"}')
  t.is(new SharedVerbsError('busy', '', endless).toWire().context, '{}')
})

test('the cause stays here', (t) => {
  const cause = new Error('deep inside')
  const error = new SharedVerbsError('internal-error', 'outside', { a: 1 }, cause)
  t.is(error.cause, cause)
  t.false(JSON.stringify(error.toWire()).includes('deep'))
  t.false('cause' in new SharedVerbsError('busy', ''))
  t.deepEqual(new SharedVerbsError('busy', '').context, {})
})

test('codes are words with dashes, each in one known category', (t) => {
  t.true(codes.length > 30)
  for (const code of codes) {
    t.regex(code, /^[a-z]+(-[a-z]+)*$/)
    t.true(categories.includes(errorCodes[code]))
    t.true(isErrorCode(code))
    t.true(code.length <= 40, 'codes fit the error rows of the node file')
  }
  for (const value of ['', 'toString', '__proto__', 7, null, undefined, {}]) t.false(isErrorCode(value))
})
