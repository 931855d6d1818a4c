import { inspect } from 'node:util'
import test from 'ava'
import fc from 'fast-check'
import {
  check,
  decode,
  decodeBrokerMessage,
  decodeClientMessage,
  encode,
  encodeEvent,
  encodeFailure,
  encodeReply,
  encodeRequest,
  noRequestId,
  requestIdOf,
} from '../../../protocol/codec.js'
import {
  type EventBody,
  type EventName,
  events,
  type RequestName,
  requestByWireName,
  requests,
} from '../../../protocol/control.js'
import { SharedVerbsError } from '../../../protocol/errors.js'
import { limits } from '../../../protocol/limits.js'
import { bodiesOf, fieldsOf, leavesOf } from './bodies.js'
import { codeOf, damaged, hex, joined, refusals } from './malformed.js'

const requestNames = Object.keys(requests) as RequestName[]
const eventNames = Object.keys(events) as EventName[]
const ids = fc.nat({ max: Number.MAX_SAFE_INTEGER })
const runs = { numRuns: 25 }

const decoders: readonly ((bytes: Uint8Array) => unknown)[] = [decode, decodeClientMessage, decodeBrokerMessage]

for (const name of requestNames) {
  const { body, result, name: wireName } = requests[name]

  test(`request and reply of ${wireName} arrive as they were sent`, (t) => {
    fc.assert(
      fc.property(ids, bodiesOf(body), bodiesOf(result), (id, sent, answer) => {
        const message = decodeClientMessage(encodeRequest(id, name, sent))
        t.deepEqual(message, { kind: 'request', id, name, body: body.parse(sent) as unknown })
        const reply = decodeBrokerMessage(encodeReply(id, answer))
        t.deepEqual(reply, { kind: 'reply', id, result: answer })
        t.deepEqual(check(result, answer, wireName) as unknown, answer)
      }),
      runs,
    )
  })

  test(`${wireName} with a field more, less or of another kind is malformed`, (t) => {
    const fields = Object.entries(fieldsOf(body))
    fc.assert(
      fc.property(bodiesOf(body), (sent) => {
        const good = sent as Readonly<Record<string, unknown>>
        const refuses = (bad: unknown): void => {
          t.is(
            codeOf(() => decodeClientMessage(encodeRequest(1, name, bad))),
            'malformed-message',
          )
        }
        for (const extra of ['more', '__proto_', 'constructor', 'toString', 'hasOwnProperty', '']) {
          refuses({ ...good, [extra]: {} })
        }
        for (const bad of [null, 7, 'text', true, [], [good]]) refuses(bad)
        for (const [field] of fields) {
          const { [field]: left, ...others } = good
          refuses(others)
          for (const bad of [null, [left], { [field]: left }, typeof left === 'string' ? 1 : 'text']) {
            refuses({ ...good, [field]: bad })
          }
        }
      }),
      { numRuns: 2 },
    )
  })
}

for (const name of eventNames) {
  test(`event ${name} arrives as it was sent`, (t) => {
    fc.assert(
      fc.property(bodiesOf(events[name]), (body) => {
        const message = decodeBrokerMessage(encodeEvent(name, body as EventBody<EventName>))
        t.deepEqual(message, { kind: 'event', name, body: body as EventBody<EventName> })
        const more = { ...(body as object), more: 1 } as unknown as EventBody<EventName>
        t.is(
          codeOf(() => decodeBrokerMessage(encodeEvent(name, more))),
          'malformed-message',
        )
      }),
      runs,
    )
  })
}

test('every text and every number of every control message is bounded', (t) => {
  const leaves = [
    ...Object.values(requests).flatMap(({ name, body, result }) => [
      ...leavesOf(body, name),
      ...leavesOf(result, `${name} reply`),
    ]),
    ...Object.entries(events).flatMap(([name, body]) => leavesOf(body, name)),
  ]
  t.true(leaves.length > 100)
  for (const { path, schema } of leaves) {
    const bad = ['x'.repeat(2001), Number.NaN, Number.POSITIVE_INFINITY, -1, 2 ** 53, 1e300, -(2 ** 53)]
    for (const value of bad) t.false(schema.safeParse(value).success, `${path} accepts ${String(value).slice(0, 20)}`)
  }
})

test('requests are known by the names they have on the wire, each once', (t) => {
  t.is(requestByWireName.size, requestNames.length)
  for (const name of requestNames) {
    t.is(requestByWireName.get(requests[name].name), name)
    t.is(
      requests[name].name,
      name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`),
    )
  }
})

test('fields that are undefined are left out, elements that are undefined are nil', (t) => {
  t.deepEqual(decode(encode({ a: undefined, b: [undefined, 1] })), { b: [null, 1] })
  const rights = { remoteRead: undefined, remoteWrite: true }
  const message = decodeClientMessage(encodeRequest(1, 'registerMemory', { byteLength: 1, rights }))
  t.deepEqual(message.body, {
    byteLength: 1,
    rights: { remoteRead: false, remoteWrite: true, remoteAtomic: false },
  })
})

test('64-bit integers arrive as numbers while numbers hold them', (t) => {
  t.is(decode(encode(2n ** 53n - 1n)), 2 ** 53 - 1)
  t.is(decode(hex('d3 ffffffffffffffff')), -1)
  for (const value of [2n ** 53n, 2n ** 63n, 2n ** 64n, -(2n ** 53n)]) {
    t.is(
      codeOf(() => encode(value)),
      'invalid-argument',
    )
  }
})

test('what is not plain cannot be sent', (t) => {
  const endless: unknown[] = []
  endless.push(endless)
  const values: readonly unknown[] = [
    ...[new Date(0), new Uint8Array(3), new ArrayBuffer(3), { a: [new Date(0)] }, '\ud800', endless, Symbol('a')],
    ...[new Map([[1, 2]]), 2n ** 64n],
  ]
  for (const value of values) {
    t.is(
      codeOf(() => encode(value)),
      'invalid-argument',
      inspect(value),
    )
  }
})

test('a message is at most as large as its bound, in both directions', (t) => {
  const bound = limits.controlMessageByteLength
  const fits = 'a'.repeat(bound - 3)
  t.is(decode(encode(fits)), fits)
  const error = t.throws(() => encode(`${fits}a`), { instanceOf: SharedVerbsError })
  t.is(error.code, 'message-too-large')
  t.deepEqual(error.context, { byteLength: bound + 1, maximumByteLength: bound })
  for (const decoder of decoders) {
    t.is(
      codeOf(() => decoder(new Uint8Array(bound + 1))),
      'message-too-large',
    )
  }
  t.is(
    codeOf(() => encode([1, 2], 2)),
    'message-too-large',
  )
  t.is(
    codeOf(() => decode(hex('92 01 02'), 2)),
    'message-too-large',
  )
})

test('garbage is refused and nothing else happens', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      t.true([...refusals, 'none'].includes(codeOf(() => decode(bytes))))
      t.true(refusals.includes(codeOf(() => decodeClientMessage(bytes))))
      t.true([...refusals, 'none'].includes(codeOf(() => decodeBrokerMessage(bytes))))
      t.true(requestIdOf(bytes) >= noRequestId)
    }),
    { numRuns: 500 },
  )
})

test('a message with a byte more, less or different is refused or is another message', (t) => {
  const remote = { node: 'beta', number: 7, generation: 3 }
  const messages = [
    encodeRequest(300, 'connectQueuePair', { number: 1, generation: 2, remote, timeoutMs: 0.5 }),
    encodeReply(70_000, { remote }),
    encodeEvent('path-lost', { node: 'alpha', reason: 'the cable, or the other end of it: ¿quién sabe?' }),
    encodeFailure(5, new SharedVerbsError('busy', 'later', { queuePair: 4 })),
  ]
  for (const message of messages) {
    for (const bytes of damaged(message)) {
      for (const decoder of decoders) t.true([...refusals, 'none'].includes(codeOf(() => decoder(bytes))))
    }
    for (let length = 0; length < message.byteLength; length++) {
      for (const decoder of decoders) {
        t.is(
          codeOf(() => decoder(message.subarray(0, length))),
          'malformed-message',
        )
      }
    }
  }
})

test('what decodes at all is plain: it can be sent again and is the same', (t) => {
  const mutations = fc.tuple(bodiesOf(requests.attach.body), fc.nat(), fc.nat({ max: 255 }))
  fc.assert(
    fc.property(mutations, ([body, where, byte]) => {
      const bytes = Uint8Array.from(encodeRequest(1, 'attach', body))
      bytes[where % bytes.byteLength] = byte
      if (codeOf(() => decode(bytes)) !== 'none') return
      const value = decode(bytes)
      t.deepEqual(decode(encode(value)), value)
    }),
    { numRuns: 500 },
  )
})

test('envelopes that are none are malformed', (t) => {
  const body = {}
  const detach = 'detach'
  const wrong: readonly unknown[] = [
    ...[null, 1, 'a', {}, [], [1], [1, 1], [1, 1, detach], [1, 1, detach, body, 1], { 0: 1, 1: 1, 2: detach, 3: body }],
    ...[
      [0, 1, detach, body],
      [2, 1, detach, body],
      ['1', 1, detach, body],
    ],
    ...['1', -1, 1.5, Number.NaN, null, 2 ** 53].map((id) => [1, id, detach, body]),
    ...['', 'Detach', 'createQueuePair', '__proto__', 'constructor', null, 7, {}, ['detach']].map((name) => [
      1,
      1,
      name,
      body,
    ]),
  ]
  for (const value of wrong) {
    if (codeOf(() => encode(value)) !== 'none') continue
    t.is(
      codeOf(() => decodeClientMessage(encode(value))),
      'malformed-message',
      JSON.stringify(value),
    )
  }
  const wrongForClients: readonly unknown[] = [
    ...[null, 1, {}, [], [2], [2, 1], [2, 1, {}, {}], [1, 1, {}], [5, 1, {}], ['2', 1, {}]],
    ...[
      [2, noRequestId, {}],
      [2, 'a', {}],
      [3, -2, {}],
      [3, null, {}],
      [4, 1, {}],
      [4, 'no-such-event', {}],
    ],
    ...['__proto__', 'constructor', 'toString', 'hasOwnProperty', ''].map((name) => [4, name, {}]),
    [4, { toString: 1, valueOf: 2 }, {}],
    [{ toString: 1, valueOf: 2 }, 1, {}],
  ]
  for (const value of wrongForClients) {
    t.is(
      codeOf(() => decodeBrokerMessage(encode(value))),
      'malformed-message',
      JSON.stringify(value),
    )
  }
})

test('keys that steer prototypes are refused and change no prototype', (t) => {
  const bytes = joined(hex('94 01 01'), encode('detach'), hex('81'), encode('__proto__'), encode({ polluted: 1 }))
  t.is(
    codeOf(() => decodeClientMessage(bytes)),
    'malformed-message',
  )
  const value = decode(bytes.subarray(bytes.indexOf(0x81)))
  t.is(Object.getPrototypeOf(value), Object.prototype)
  t.false('polluted' in {})
})

test('hostile heads cost neither time nor memory', (t) => {
  const bound = limits.controlMessageByteLength
  const hostile = [
    ...['db ffffffff', 'dd ffffffff', 'df ffffffff', 'c6 ffffffff', 'c9 ffffffff 62'].map(hex),
    Buffer.alloc(bound, 0x91),
    Buffer.alloc(bound, hex('dd 0000ffff')),
    Buffer.alloc(bound, hex('dc fff0')),
    Buffer.alloc(bound, hex('df 00007fff a1 61')),
    joined(hex('94 01 01'), encode('detach'), Buffer.alloc(bound - 100, 0x91)),
  ]
  const before = process.memoryUsage()
  const startedMs = performance.now()
  for (let round = 0; round < 20; round++) {
    for (const bytes of hostile) {
      for (const decoder of decoders) {
        t.is(
          codeOf(() => decoder(bytes)),
          'malformed-message',
        )
      }
    }
  }
  const after = process.memoryUsage()
  t.true(after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers < 64 << 20)
  t.true(performance.now() - startedMs < 5000)
})

test('a failure travels with its code, message and context', (t) => {
  const error = new SharedVerbsError('limit-exceeded', 'no more than 4 queue pairs', { asked: 5, maximum: 4 })
  const message = decodeBrokerMessage(encodeFailure(9, error))
  if (message.kind !== 'failure') return t.fail()
  t.is(message.id, 9)
  const received = SharedVerbsError.fromWire(message.error)
  t.deepEqual([received.code, received.message, received.context], [error.code, error.message, error.context])
})

test('a failure can always be sent, whatever the error holds', (t) => {
  const endless: Record<string, unknown> = { size: 5n }
  const errors = [
    new SharedVerbsError('busy', 'x'.repeat(1_000_000), { text: 'y'.repeat(1_000_000) }),
    new SharedVerbsError('busy', '\ud800', { text: '\udfff', count: 5n }),
    new SharedVerbsError('busy', `${'€'.repeat(1999)}😀`, endless),
    new SharedVerbsError('busy', 'looks at itself', { endless: Object.assign(endless, { endless }) }),
  ]
  for (const error of errors) {
    const message = decodeBrokerMessage(encodeFailure(noRequestId, error))
    t.is(message.kind, 'failure')
    if (message.kind !== 'failure') continue
    t.is(message.id, noRequestId)
    t.is(message.error.code, 'busy')
    t.true(message.error.message.length <= 2000)
  }
})

test('a failure whose content makes no sense is an internal error', (t) => {
  for (const content of [null, 1, 'busy', [], {}, { code: 5, message: [], context: {} }, { code: 'no-such-code' }]) {
    const message = decodeBrokerMessage(encode([3, 1, content]))
    if (message.kind !== 'failure') return t.fail()
    t.is(SharedVerbsError.fromWire(message.error).code, 'internal-error')
  }
})

test('a refusal finds its request while there is an id, also in a message that is wrong otherwise', (t) => {
  t.is(requestIdOf(encode([1, 77, 'no-such-request', null])), 77)
  t.is(requestIdOf(encode([1, 77])), 77)
  for (const value of [null, {}, [], [1], [1, -5], [1, 'a'], [1, 1.5]]) t.is(requestIdOf(encode(value)), noRequestId)
  t.is(requestIdOf(hex('c1')), noRequestId)
  t.is(requestIdOf(new Uint8Array(limits.controlMessageByteLength + 1)), noRequestId)
})

test('an error names the field and the kind that is wrong', (t) => {
  const body = { byteLength: 'many', rights: {} }
  const error = t.throws(() => decodeClientMessage(encode([1, 1, 'register-memory', body])), {
    instanceOf: SharedVerbsError,
  })
  t.is(error.message, 'register-memory: byteLength: Invalid input: expected number, received string')
  t.deepEqual(error.context, { path: 'byteLength', what: 'register-memory' })
})

test('an error repeats little of what a stranger sent, and nothing that steers a terminal', (t) => {
  const long = `\u001b[31m${'k'.repeat(30_000)}`
  const messages = [
    encode([1, 1, long, {}]),
    encode([1, 1, 'detach', { [long]: 1 }]),
    encode([4, long, {}]),
    encode([1, 1, 'detach', Object.fromEntries(Array.from({ length: 4000 }, (_, index) => [`key${index}`, 1]))]),
  ]
  for (const message of messages) {
    for (const decoder of [decodeClientMessage, decodeBrokerMessage]) {
      const error = t.throws(() => decoder(message), { instanceOf: SharedVerbsError })
      t.true(error.message.length < 300)
      t.regex(error.message, /^[\x20-\x7e]*$/)
    }
  }
})

test('no error of a message with a job key repeats the key', (t) => {
  const jobKey = 'Sesame-7f3a'
  const body = { abiVersion: 1, fingerprint: 2, job: 'job', jobKey, name: 'name', processId: 3 }
  const attach = (changed: Readonly<Record<string, unknown>>): Uint8Array =>
    encode([1, 1, 'attach', { ...body, ...changed }])
  const messages = [
    ...damaged(attach({})),
    ...Object.keys(body).map((field) => attach({ [field]: null })),
    ...[[jobKey], { jobKey }, jobKey.repeat(30)].map((wrong) => attach({ jobKey: wrong })),
    ...[attach({ more: jobKey }), encode([1, 1, { jobKey }, body]), encode([1, { jobKey }, 'attach', body])],
    ...[encode(body), encode([1, 1, 'detach', body]), encode([1, 1, 'attach', [body]]), encode([4, body, body])],
  ]
  let refused = 0
  for (const message of messages) {
    for (const decoder of decoders) {
      try {
        decoder(message)
      } catch (error) {
        refused++
        t.false(inspect(error, { depth: 20, showHidden: true }).includes(jobKey))
        t.false(JSON.stringify((error as SharedVerbsError).toWire()).includes(jobKey))
      }
    }
  }
  t.true(refused > 100)
})
