import test from 'ava'
import fc from 'fast-check'
import {
  decodeFrame,
  EXTENDED_HEADER_BYTES,
  encodeExtension,
  encodeHeader,
  Frame,
  frameFlag,
  frameType,
  frameWord,
  HEADER_BYTES,
  MESSAGE_BYTES_MAX,
  paddingOf,
  SEGMENT_BYTES,
} from '../../../broker/provider/soft-wire.js'

function bytesOf(byteLength: number) {
  const buffer = new ArrayBuffer(byteLength)
  return { u8: new Uint8Array(buffer), i32: new Int32Array(buffer), f64: new Float64Array(buffer) }
}

const BOTH = frameFlag.first | frameFlag.last

test('an extended header reads back as it was written, at any multiple of 8', (t) => {
  const fields = fc.record({
    at: fc.nat(7).map((index) => index * 8),
    byteLength: fc.nat(SEGMENT_BYTES),
    sequence: fc.integer(),
    acknowledged: fc.integer(),
    key: fc.integer(),
    address: fc.nat({ max: Number.MAX_SAFE_INTEGER }),
    more: fc.nat(MESSAGE_BYTES_MAX - SEGMENT_BYTES),
  })
  const property = fc.property(fields, ({ at, byteLength, sequence, acknowledged, key, address, more }) => {
    const bytes = bytesOf(96)
    const word = frameWord(frameType.write, BOTH | frameFlag.extended)
    encodeHeader(bytes, at, word, byteLength, sequence, acknowledged)
    encodeExtension(bytes, at, byteLength + more, key, address)
    const frame = new Frame()
    t.is(decodeFrame(bytes, at, EXTENDED_HEADER_BYTES, frame), EXTENDED_HEADER_BYTES)
    t.deepEqual(
      { ...frame },
      {
        type: frameType.write,
        flags: BOTH | frameFlag.extended,
        code: 0,
        byteLength,
        sequence,
        acknowledged,
        messageByteLength: byteLength + more,
        remoteKey: key,
        remoteAddress: address,
      },
    )
  })
  fc.assert(property)
})

test('a short header is 16 bytes; with one byte less it asks for more', (t) => {
  const bytes = bytesOf(16)
  encodeHeader(bytes, 0, frameWord(frameType.send, BOTH), 77, 5, 6)
  const frame = new Frame()
  for (let available = 0; available < HEADER_BYTES; available++) t.is(decodeFrame(bytes, 0, available, frame), 0)
  t.is(decodeFrame(bytes, 0, HEADER_BYTES, frame), HEADER_BYTES)
})

test('whatever the bytes, a decoder says: a header, more, or never', (t) => {
  const property = fc.property(
    fc.uint8Array({ minLength: 32, maxLength: 32 }),
    fc.nat(32),
    fc.nat(8),
    (garbage, available, type) => {
      const bytes = bytesOf(32)
      bytes.u8.set(garbage)
      // Half of the runs get past the type, so that the fields behind it are tried too.
      if (type < 7) bytes.u8[0] = type
      const frame = new Frame()
      const header = decodeFrame(bytes, 0, available, frame)
      t.true(header === -1 || header === 0 || header === HEADER_BYTES || header === EXTENDED_HEADER_BYTES)
      if (header <= 0) return
      t.true(header <= available)
      t.true(frame.byteLength >= 0 && frame.byteLength <= SEGMENT_BYTES)
      if (header === EXTENDED_HEADER_BYTES) {
        t.true(frame.messageByteLength >= frame.byteLength && frame.messageByteLength <= MESSAGE_BYTES_MAX)
        t.true(Number.isSafeInteger(frame.remoteAddress) && frame.remoteAddress >= 0)
      }
    },
  )
  fc.assert(property, { numRuns: 2000 })
})

test('garbage is told as soon as the first 16 bytes are there', (t) => {
  const bytes = bytesOf(32)
  const cases: [number, number, number][] = [
    [0, 0, 0],
    [7, 0, 0],
    [frameType.send, 8, 0],
    [frameType.send, frameFlag.first, 0],
    [frameType.write, BOTH, 8],
    [frameType.acknowledge, 0, 8],
    [frameType.write, frameFlag.extended, SEGMENT_BYTES + 1],
    [frameType.write, frameFlag.extended, -1],
  ]
  for (const [type, flags, byteLength] of cases) {
    encodeHeader(bytes, 0, frameWord(type, flags), byteLength, 0, 0)
    t.is(decodeFrame(bytes, 0, HEADER_BYTES, new Frame()), -1, `type ${type}, flags ${flags}, ${byteLength} bytes`)
  }
})

test('padding fills up to a multiple of 8', (t) => {
  for (let byteLength = 0; byteLength < 100; byteLength++) {
    t.is((byteLength + paddingOf(byteLength)) % 8, 0)
    t.true(paddingOf(byteLength) < 8)
  }
})
