import test from 'ava'
import fc from 'fast-check'
import type { QueuePairAddress } from '../../../broker/provider/provider.js'
import {
  compareAddresses,
  decodeGreeting,
  encodeGreeting,
  GREETING_BYTES,
  greetingKind,
  isSameToken,
  isToken,
} from '../../../broker/provider/soft-hello.js'

const greeting = {
  kind: greetingKind.hello,
  sourceNumber: 0x123456,
  targetNumber: 0xffffff,
  sourcePacketSequence: 0,
  targetPacketSequence: 0xabcdef,
  token: '00ff10a5'.repeat(4),
}

test('a greeting reads back as it was written', (t) => {
  const bytes = encodeGreeting(greeting)
  t.is(bytes.length, GREETING_BYTES)
  t.deepEqual(decodeGreeting(bytes), greeting)
})

test('a greeting with another magic, version or filling, or too short, is none', (t) => {
  for (const at of [0, 3, 4, 12, 48, 63]) {
    const bytes = encodeGreeting(greeting)
    bytes[at]! ^= 0x40
    t.is(decodeGreeting(bytes), null, `byte ${at}`)
  }
  t.is(decodeGreeting(encodeGreeting(greeting).subarray(0, 63)), null)
  fc.assert(fc.property(fc.uint8Array({ minLength: 64, maxLength: 64 }), (bytes) => decodeGreeting(bytes) === null))
})

test('tokens are 32 hexadecimal digits and compare as a whole', (t) => {
  t.true(isToken(greeting.token))
  for (const bad of ['', 'ab', `${greeting.token}0`, 'G'.repeat(32), 7, undefined]) t.false(isToken(bad))
  t.true(isSameToken(greeting.token, greeting.token))
  t.false(isSameToken(greeting.token, `1${greeting.token.slice(1)}`))
  t.false(isSameToken(greeting.token, greeting.token.slice(1)))
})

test('exactly one of two different addresses dials', (t) => {
  const address = fc.record({ number: fc.nat(2), packetSequence: fc.nat(2), token: fc.constantFrom('a', 'b') })
  const property = fc.property(address, address, (x, y) => {
    const [a, b] = [x, y].map(
      ({ number, packetSequence, token }): QueuePairAddress => ({ number, packetSequence, path: { token } }),
    )
    t.is(Math.sign(compareAddresses(a!, b!)), -Math.sign(compareAddresses(b!, a!)) + 0)
    const isSame = x.number === y.number && x.packetSequence === y.packetSequence && x.token === y.token
    t.is(compareAddresses(a!, b!) === 0, isSame)
  })
  fc.assert(property)
})
