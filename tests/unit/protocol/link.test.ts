import test from 'ava'
import fc from 'fast-check'
import { check, encode } from '../../../protocol/codec.js'
import { SharedVerbsError } from '../../../protocol/errors.js'
import {
  decodeLinkMessage,
  encodeLinkMessage,
  type LinkMessageBody,
  type LinkMessageName,
  linkMessageByteLength,
  linkMessages,
  queuePairAddressSchema,
} from '../../../protocol/link.js'
import { bodiesOf, fieldsOf, leavesOf } from './bodies.js'
import { codeOf, damaged, hex, joined, refusals } from './malformed.js'

const names = Object.keys(linkMessages) as LinkMessageName[]
type AnyBody = LinkMessageBody<LinkMessageName>

for (const name of names) {
  test(`link message ${name} arrives as it was sent`, (t) => {
    fc.assert(
      fc.property(bodiesOf(linkMessages[name]), (body) => {
        const message = decodeLinkMessage(encodeLinkMessage(name, body as AnyBody))
        t.is(message.name, name)
        t.deepEqual(message.body as unknown, body)
      }),
      { numRuns: 25 },
    )
  })

  test(`link message ${name} with a field more, less or of another kind is malformed`, (t) => {
    fc.assert(
      fc.property(bodiesOf(linkMessages[name]), (body) => {
        const refuses = (bad: unknown): void => {
          t.is(
            codeOf(() => decodeLinkMessage(encodeLinkMessage(name, bad as AnyBody))),
            'malformed-message',
          )
        }
        const good = body as Readonly<Record<string, unknown>>
        for (const extra of ['more', '__proto_', 'constructor', '']) refuses({ ...good, [extra]: {} })
        for (const bad of [null, 7, 'text', [], [good]]) refuses(bad)
        for (const field of Object.keys(fieldsOf(linkMessages[name]))) {
          const { [field]: left, ...others } = good
          refuses(others)
          for (const bad of [null, [left], { field: left }]) refuses({ ...good, [field]: bad })
        }
      }),
      { numRuns: 2 },
    )
  })
}

test('every text and every number of every link message is bounded', (t) => {
  const leaves = names.flatMap((name) => leavesOf(linkMessages[name], name))
  t.true(leaves.length > 100)
  for (const { path, schema } of leaves) {
    const bad = ['x'.repeat(501), Number.NaN, Number.POSITIVE_INFINITY, -1, 2 ** 53, 1e300, -(2 ** 53)]
    for (const value of bad) t.false(schema.safeParse(value).success, `${path} accepts ${String(value).slice(0, 20)}`)
  }
})

test('every link message fits its bound, and a larger one is refused on both sides', (t) => {
  const longest = { code: 'c'.repeat(64), field: 'f'.repeat(64), mine: '€'.repeat(256), yours: '€'.repeat(256) }
  t.deepEqual(decodeLinkMessage(encodeLinkMessage('refused', longest)).body as unknown, longest)
  t.is(
    codeOf(() => encodeLinkMessage('goodbye', { kind: 'stop', reason: 'x'.repeat(linkMessageByteLength) })),
    'message-too-large',
  )
  t.is(
    codeOf(() => decodeLinkMessage(new Uint8Array(linkMessageByteLength + 1))),
    'message-too-large',
  )
})

test('garbage on a link is refused and nothing else happens', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      t.true(refusals.includes(codeOf(() => decodeLinkMessage(bytes))))
    }),
    { numRuns: 300 },
  )
  const ready = { job: 'job', userId: 1, trafficClass: 0, lane: 0, incarnation: 70_000 }
  for (const bytes of damaged(encodeLinkMessage('lane-ready', ready))) {
    t.true([...refusals, 'none'].includes(codeOf(() => decodeLinkMessage(bytes))))
  }
  for (const digits of ['dd ffffffff', 'df ffffffff', 'db ffffffff', '92 db ffffffff', 'c9 ffffffff 62']) {
    t.is(
      codeOf(() => decodeLinkMessage(hex(digits))),
      'malformed-message',
    )
  }
})

test('a link message that is no pair of a known name and a body is malformed', (t) => {
  const strange: readonly unknown[] = [
    '',
    'Hello',
    '__proto__',
    'constructor',
    'toString',
    null,
    7,
    {},
    ['hello'],
    { toString: 1 },
  ]
  const wrong: readonly unknown[] = [
    ...[null, 1, 'hello', {}, [], ['goodbye'], ['goodbye', { reason: '' }, 1]],
    ...strange.map((name) => [name, { reason: '' }]),
  ]
  for (const value of wrong) {
    const error = t.throws(() => decodeLinkMessage(encode(value)), { instanceOf: SharedVerbsError })
    t.is(error.code, 'malformed-message')
  }
  const long = t.throws(() => decodeLinkMessage(encode([`\u001b[2J${'n'.repeat(9000)}`, {}])))
  t.true((long?.message.length ?? 0) < 300)
  t.regex(long?.message ?? '', /^[\x20-\x7e]*$/)
})

test('a path is a few short facts with plain names', (t) => {
  const address = (path: unknown): unknown => ({ number: 1, packetSequence: 2, path })
  const accepts = (path: unknown): boolean => queuePairAddressSchema.safeParse(address(path)).success
  const many = (count: number): unknown =>
    Object.fromEntries(Array.from({ length: count }, (_, index) => [`key${index}`, index]))
  t.true(accepts({}))
  t.true(accepts({ host: '::1', port: 65_535, 'gid-index': 3 }))
  t.true(accepts(many(16)))
  for (const path of [
    many(17),
    { '': 1 },
    { __proto_: 1 },
    { 'a b': 1 },
    { ['k'.repeat(33)]: 1 },
    { k: 'x'.repeat(129) },
  ]) {
    t.false(accepts(path))
  }
  for (const value of [null, true, [], {}, 0.5, -1]) t.false(accepts({ k: value }))
  const name = encode('__proto__')
  const body = joined(hex('83'), encode('number'), hex('01'), encode('packetSequence'), hex('02'), encode('path'))
  const bytes = joined(hex('92'), encode('lane-opened'), body, hex('81'), name, hex('01'))
  t.is(
    codeOf(() => decodeLinkMessage(bytes)),
    'malformed-message',
  )
})

test('the name of a path field is repeated in an error only in part, and without what steers a terminal', (t) => {
  const address = { number: 1, packetSequence: 2, path: { [`\u001b[2J${'k'.repeat(9000)}`]: 1 } }
  const error = t.throws(() => decodeLinkMessage(encode(['lane-opened', { address }])), {
    instanceOf: SharedVerbsError,
  })
  t.true(error.message.length < 300)
  const named = t.throws(() => check(queuePairAddressSchema, address, 'address'), { instanceOf: SharedVerbsError })
  t.regex(named.message, /^address: path\.\?\[2Jkk/)
  t.true(named.message.length < 500)
  t.regex(`${named.message}${String(named.context['path'])}`, /^[\x20-\x7e]*$/)
})
