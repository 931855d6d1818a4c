/** What the codec may do with bytes that make no sense, and nothing else. */
import { SharedVerbsError } from '../../../protocol/errors.js'

export const hex = (digits: string): Uint8Array => Buffer.from(digits.replaceAll(' ', ''), 'hex')
export const joined = (...parts: readonly Uint8Array[]): Uint8Array => Buffer.concat(parts)

/** The code of the error that `run` throws; 'none' if it returns. Anything but a `SharedVerbsError` is thrown on. */
export function codeOf(run: () => unknown): string {
  try {
    run()
    return 'none'
  } catch (error) {
    if (error instanceof SharedVerbsError) return error.code
    throw error
  }
}

export const refusals: readonly string[] = ['malformed-message', 'message-too-large']

/** Copies of a message, each with one byte more, less or different. */
export function* damaged(message: Uint8Array): Generator<Uint8Array> {
  for (let length = 0; length < message.byteLength; length++) yield Uint8Array.from(message.subarray(0, length))
  yield joined(message, hex('00'))
  for (let at = 0; at < message.byteLength; at++) {
    for (const flip of [0x01, 0x10, 0x80, 0xff]) {
      const copy = Uint8Array.from(message)
      copy[at]! ^= flip
      yield copy
    }
  }
}
