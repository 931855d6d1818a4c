/** Cuts a byte stream into messages: a 4-byte little-endian length before each. Whole, split or glued, the result is the same. */
import { SharedVerbsError } from '../../protocol/errors.js'
import { linkMessageByteLength } from '../../protocol/link.js'

const PREFIX_BYTES = 4

export function encodeFrame(message: Uint8Array): Uint8Array {
  const frame = Buffer.allocUnsafe(PREFIX_BYTES + message.byteLength)
  frame.writeUInt32LE(message.byteLength, 0)
  frame.set(message, PREFIX_BYTES)
  return frame
}

export class FrameReader {
  #pending: Buffer = Buffer.alloc(0)

  /** Messages completed by these bytes. Throws `protocol-violation` for a length that cannot be; then the stream is lost. */
  push(chunk: Uint8Array): Uint8Array[] {
    const bytes = this.#pending.byteLength === 0 ? Buffer.from(chunk) : Buffer.concat([this.#pending, chunk])
    const messages: Uint8Array[] = []
    let start = 0
    while (bytes.byteLength - start >= PREFIX_BYTES) {
      const byteLength = bytes.readUInt32LE(start)
      if (byteLength === 0 || byteLength > linkMessageByteLength) {
        throw new SharedVerbsError(
          'protocol-violation',
          `a link message of ${byteLength} bytes; 1 to ${linkMessageByteLength} are possible`,
          { byteLength },
        )
      }
      const end = start + PREFIX_BYTES + byteLength
      if (bytes.byteLength < end) break
      messages.push(bytes.subarray(start + PREFIX_BYTES, end))
      start = end
    }
    // At most one unfinished message stays, so the bound is that of a message.
    this.#pending = Buffer.from(bytes.subarray(start))
    return messages
  }
}
