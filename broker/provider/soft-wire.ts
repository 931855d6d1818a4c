/**
 * Frames of a soft stream. Pure: bytes in, fields out; it knows neither sockets nor queue pairs.
 *
 *   0        1        2        3        4                 8                 12
 *   ┌────────┬────────┬─────────────────┬─────────────────┬─────────────────┬─────────────────┐
 *   │ type   │ flags  │ code u16        │ byteLength u32  │ sequence u32    │ acknowledged u32│  16 bytes, always
 *   ├────────┴────────┴─────────────────┼─────────────────┼─────────────────┴─────────────────┤
 *   │ messageByteLength u32             │ remoteKey u32   │ remoteAddress f64                 │  16 more if `extended`
 *   ├───────────────────────────────────┴─────────────────┴───────────────────────────────────┤
 *   │ payload, byteLength bytes, then zero bytes up to a multiple of 8                        │
 *   └─────────────────────────────────────────────────────────────────────────────────────────┘
 *
 * Little-endian. Every frame begins at a multiple of 8 of the stream, so that words can be copied as words.
 *
 *   type          header    payload   meaning
 *   send          16 or 32  yes       request; extended when the message has several segments (remoteAddress = offset in it)
 *   write         32        yes       request, or one segment of it; key and address are the segment's own
 *   read          32        no        request for messageByteLength bytes
 *   readResponse  16        yes       data of the oldest unanswered read; `last` ends it
 *   acknowledge   16        no        carries nothing but `acknowledged`
 *   refuse        32        no        request `sequence` was not executed: `code` says why (messageByteLength = RNR timer, µs)
 *
 * `sequence` numbers requests, not frames. `acknowledged` is the first sequence of the other direction that is not yet
 * answered: everything before it has been executed, and the data of every read before it stands earlier in this stream.
 */
export const frameType = { send: 1, write: 2, read: 3, readResponse: 4, acknowledge: 5, refuse: 6 } as const

export const frameFlag = { first: 1, last: 2, extended: 4 } as const

/** `code` of a refuse frame that asks for the request again; other codes are statuses for the initiator. */
export const CODE_RECEIVER_NOT_READY = 0xffff

export const HEADER_BYTES = 16
export const EXTENDED_HEADER_BYTES = 32
/** Payload of one frame never exceeds this; longer messages are cut into segments, so that answers of the other direction never wait for a whole message. */
export const SEGMENT_BYTES = 1 << 20

/** Fields of one frame, filled again and again. 32-bit fields are signed here: they stay small integers for the engine. */
export class Frame {
  type = 0
  flags = 0
  code = 0
  byteLength = 0
  sequence = 0
  acknowledged = 0
  messageByteLength = 0
  remoteKey = 0
  remoteAddress = 0.5
}

/** What a decoder needs to see bytes: the same memory as words and as doubles. */
export interface FrameBytes {
  readonly i32: Int32Array
  readonly f64: Float64Array
}

/** Padding that follows a payload. */
export function paddingOf(byteLength: number): number {
  return -byteLength & 7
}

/**
 * Reads the header at byte `at` (a multiple of 8) of which `available` bytes are there. Returns its length, 0 when more
 * bytes are needed, -1 when no correct peer would have sent it.
 */
export function decodeFrame(from: FrameBytes, at: number, available: number, frame: Frame): number {
  if (available < HEADER_BYTES) return 0
  const word = at >> 2
  const first = from.i32[word]!
  frame.type = first & 0xff
  frame.flags = (first >> 8) & 0xff
  frame.code = first >>> 16
  frame.byteLength = from.i32[word + 1]!
  frame.sequence = from.i32[word + 2]!
  frame.acknowledged = from.i32[word + 3]!
  if ((frame.flags & frameFlag.extended) === 0) return isPlausibleShort(frame) ? HEADER_BYTES : -1
  if (available < EXTENDED_HEADER_BYTES) return isPlausibleStart(frame) ? 0 : -1
  frame.messageByteLength = from.i32[word + 4]!
  frame.remoteKey = from.i32[word + 5]!
  frame.remoteAddress = from.f64[(at >> 3) + 3]!
  return isPlausibleExtended(frame) ? EXTENDED_HEADER_BYTES : -1
}

const BOTH_ENDS = frameFlag.first | frameFlag.last

/** Largest message, so that byte lengths stay signed 32-bit integers. */
export const MESSAGE_BYTES_MAX = 1 << 30

function isPlausibleStart(frame: Frame): boolean {
  return (
    frame.type >= frameType.send &&
    frame.type <= frameType.refuse &&
    frame.byteLength >= 0 &&
    frame.byteLength <= SEGMENT_BYTES &&
    frame.flags <= (BOTH_ENDS | frameFlag.extended)
  )
}

function isPlausibleShort(frame: Frame): boolean {
  if (!isPlausibleStart(frame)) return false
  if (frame.type === frameType.send) return (frame.flags & BOTH_ENDS) === BOTH_ENDS
  if (frame.type === frameType.readResponse) return true
  return frame.type === frameType.acknowledge && frame.byteLength === 0
}

function isPlausibleExtended(frame: Frame): boolean {
  if (!isPlausibleStart(frame)) return false
  const length = frame.messageByteLength
  if (length < 0 || length > MESSAGE_BYTES_MAX || frame.byteLength > length) return false
  if (!(frame.remoteAddress >= 0 && frame.remoteAddress <= Number.MAX_SAFE_INTEGER)) return false
  if (!Number.isInteger(frame.remoteAddress)) return false
  if (frame.type === frameType.send || frame.type === frameType.write) return true
  return (frame.type === frameType.read || frame.type === frameType.refuse) && frame.byteLength === 0
}

/** Writes the 16 bytes that every frame has. */
export function encodeHeader(
  into: FrameBytes,
  at: number,
  typeAndFlags: number,
  byteLength: number,
  sequence: number,
  acknowledged: number,
): void {
  const word = at >> 2
  into.i32[word] = typeAndFlags
  into.i32[word + 1] = byteLength
  into.i32[word + 2] = sequence
  into.i32[word + 3] = acknowledged
}

/** Writes the 16 bytes after them. */
export function encodeExtension(
  into: FrameBytes,
  at: number,
  messageByteLength: number,
  remoteKey: number,
  remoteAddress: number,
): void {
  const word = at >> 2
  into.i32[word + 4] = messageByteLength
  into.i32[word + 5] = remoteKey
  into.f64[(at >> 3) + 3] = remoteAddress
}

/** First word of a frame. */
export function frameWord(type: number, flags: number, code = 0): number {
  return type | (flags << 8) | (code << 16)
}
