/**
 * The greeting that opens a soft stream: the dialler says hello, the other side answers welcome, both 64 bytes.
 *
 *   0  magic u32 | 4 version u32 | 8 kind u32 | 12 zero | 16 source number | 20 target number | 24 source psn | 28 target psn
 *   32 token of the *target* queue pair, 16 bytes: proves that the brokers exchanged this address | 48 zero, 16 bytes
 *
 * Until a greeting matched in every field its sender is a stranger: nothing else is read from it and nothing is executed.
 */
import type { QueuePairAddress } from './provider.js'

export const GREETING_BYTES = 64
export const greetingKind = { hello: 1, welcome: 2 } as const

const MAGIC = 0x46_4f_53_56
const VERSION = 1
const TOKEN_AT = 32
const TOKEN_BYTES = 16

export interface Greeting {
  readonly kind: number
  readonly sourceNumber: number
  readonly targetNumber: number
  readonly sourcePacketSequence: number
  readonly targetPacketSequence: number
  /** Hexadecimal, of the queue pair it is sent to. */
  readonly token: string
}

export function encodeGreeting(greeting: Greeting): Uint8Array {
  const bytes = new Uint8Array(GREETING_BYTES)
  const view = new DataView(bytes.buffer)
  const words = [MAGIC, VERSION, greeting.kind, 0, greeting.sourceNumber, greeting.targetNumber]
  words.push(greeting.sourcePacketSequence, greeting.targetPacketSequence)
  words.forEach((word, index) => {
    view.setUint32(index * 4, word, true)
  })
  bytes.set(tokenBytes(greeting.token), TOKEN_AT)
  return bytes
}

/** Null when it is no greeting of this version. */
export function decodeGreeting(bytes: Uint8Array): Greeting | null {
  if (bytes.byteLength < GREETING_BYTES) return null
  const view = new DataView(bytes.buffer, bytes.byteOffset, GREETING_BYTES)
  if (view.getUint32(0, true) !== MAGIC || view.getUint32(4, true) !== VERSION || view.getUint32(12, true) !== 0) {
    return null
  }
  if (view.getUint32(48, true) !== 0 || view.getUint32(52, true) !== 0) return null
  if (view.getUint32(56, true) !== 0 || view.getUint32(60, true) !== 0) return null
  const token = Array.from(bytes.subarray(TOKEN_AT, TOKEN_AT + TOKEN_BYTES), (byte) =>
    byte.toString(16).padStart(2, '0'),
  )
  return {
    kind: view.getUint32(8, true),
    sourceNumber: view.getUint32(16, true),
    targetNumber: view.getUint32(20, true),
    sourcePacketSequence: view.getUint32(24, true),
    targetPacketSequence: view.getUint32(28, true),
    token: token.join(''),
  }
}

export function isToken(value: unknown): value is string {
  return typeof value === 'string' && /^[0-9a-f]{32}$/.test(value)
}

function tokenBytes(token: string): Uint8Array {
  return Uint8Array.from({ length: TOKEN_BYTES }, (_, index) =>
    Number.parseInt(token.slice(index * 2, index * 2 + 2), 16),
  )
}

/** Compares in a time that does not depend on where they differ. */
export function isSameToken(a: string, b: string): boolean {
  if (a.length !== b.length) return false
  let difference = 0
  for (let index = 0; index < a.length; index++) difference |= a.charCodeAt(index) ^ b.charCodeAt(index)
  return difference === 0
}

/** Which side dials: exactly one of the two, decided alike on both. Negative = `a` dials. */
export function compareAddresses(a: QueuePairAddress, b: QueuePairAddress): number {
  if (a.number !== b.number) return a.number - b.number
  if (a.packetSequence !== b.packetSequence) return a.packetSequence - b.packetSequence
  const first = String(a.path.token)
  const second = String(b.path.token)
  return first < second ? -1 : first > second ? 1 : 0
}
