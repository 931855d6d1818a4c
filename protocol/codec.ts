/**
 * The one place that encodes and decodes control and link messages. msgpackr with every option written down: no records (both ends
 * would have to share structures), no extensions, plain objects for maps, fields that are undefined left out. Its decoder cannot be
 * told to refuse extension types, so every message passes `plainMessageFault` first, in both directions: the decoder, and the native
 * code it may use, meets only whole plain values within the bound.
 *
 * Errors name fields and kinds, never values: a message may carry a job key. For the same reason the decoder's own errors, which quote
 * what was decoded, are not kept as causes.
 */
import { Packr, Unpackr } from 'msgpackr'
import type { z } from 'zod'
import {
  type EventBody,
  type EventName,
  envelopeKind,
  events,
  type RequestName,
  requestByWireName,
  requests,
} from './control.js'
import { SharedVerbsError, type WireError } from './errors.js'
import { limits } from './limits.js'
import { plainMessageFault } from './plain-message.js'

const options = {
  useRecords: false,
  mapsAsObjects: true,
  int64AsType: 'number',
  moreTypes: false,
  structuredClone: false,
  bundleStrings: false,
  largeBigIntToFloat: false,
  variableMapSize: true,
  encodeUndefinedAsNil: true,
  skipValues: [undefined],
} as const
const packer = new Packr({ ...options })
const unpacker = new Unpackr({ ...options })

/** Longest name or sentence of a stranger that is repeated in an error. */
const quotedLength = 200

/** For repeating what a stranger sent: printable, bounded. */
export const quoted = (text: string): string => text.replace(/[^\x20-\x7e]/g, '?').slice(0, quotedLength)

/** How a name that should be there is repeated in an error. */
export const nameOf = (value: unknown): string =>
  typeof value === 'string' ? `"${quoted(value)}"` : `a ${typeof value}`

/** Encodes any plain value; throws `message-too-large` with both numbers, `invalid-argument` for what is not plain. */
export function encode(value: unknown, maximumByteLength: number = limits.controlMessageByteLength): Uint8Array {
  const bytes = pack(value)
  if (bytes.byteLength > maximumByteLength) {
    throw new SharedVerbsError(
      'message-too-large',
      `message of ${bytes.byteLength} bytes exceeds ${maximumByteLength}; send less at once`,
      {
        byteLength: bytes.byteLength,
        maximumByteLength,
      },
    )
  }
  const fault = plainMessageFault(bytes)
  if (fault) throw new SharedVerbsError('invalid-argument', `cannot send a value that is not plain: ${fault}`)
  return bytes
}

function pack(value: unknown): Uint8Array {
  try {
    return packer.pack(value)
  } catch {
    throw new SharedVerbsError(
      'invalid-argument',
      'cannot send a value that has no end, or an integer beyond 64 bits, in it',
    )
  }
}

/** Decodes untrusted bytes to a plain value; throws `malformed-message` or `message-too-large`. */
export function decode(bytes: Uint8Array, maximumByteLength: number = limits.controlMessageByteLength): unknown {
  const { byteLength } = bytes
  if (byteLength > maximumByteLength) {
    throw new SharedVerbsError('message-too-large', `received ${byteLength} bytes, the most is ${maximumByteLength}`, {
      byteLength,
      maximumByteLength,
    })
  }
  const fault = plainMessageFault(bytes)
  if (fault) {
    throw new SharedVerbsError('malformed-message', `cannot decode ${byteLength} bytes: ${fault}`, { byteLength })
  }
  try {
    return unpacker.unpack(bytes)
  } catch {
    throw new SharedVerbsError('malformed-message', `cannot decode ${byteLength} bytes`, { byteLength })
  }
}

/** Checks a decoded value against its schema; throws `malformed-message` naming the first wrong field and its value's kind. */
export function check<Schema extends z.ZodType>(schema: Schema, value: unknown, what: string): z.output<Schema> {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  const path = quoted(issue?.path.join('.') || 'body')
  throw new SharedVerbsError('malformed-message', `${what}: ${path}: ${quoted(issue?.message ?? 'invalid')}`, {
    path,
    what,
  })
}

export type ClientMessage = {
  readonly kind: 'request'
  readonly id: number
  readonly name: RequestName
  readonly body: unknown
}
export type BrokerMessage =
  | { readonly kind: 'reply'; readonly id: number; readonly result: unknown }
  | { readonly kind: 'failure'; readonly id: number; readonly error: WireError }
  | { readonly kind: 'event'; readonly name: EventName; readonly body: EventBody<EventName> }

const failureMessageLength = 2000
const failureContextLength = 4000
/** Without halves of surrogate pairs, which UTF-8 cannot say. */
const wellFormed = (text: string): string => Buffer.from(text).toString()

export const encodeRequest = (id: number, name: RequestName, body: unknown): Uint8Array =>
  encode([envelopeKind.request, id, requests[name].name, body])
export const encodeReply = (id: number, result: unknown): Uint8Array => encode([envelopeKind.reply, id, result])
/** Never throws, whatever the error holds: it is the answer when nothing else can be said. */
export const encodeFailure = (id: number, error: SharedVerbsError): Uint8Array => {
  const { code, message, context } = error.toWire()
  const fits = context.length <= failureContextLength
  return encode([
    envelopeKind.failure,
    id,
    { code, message: wellFormed(message.slice(0, failureMessageLength)), context: fits ? wellFormed(context) : '{}' },
  ])
}
export const encodeEvent = <Name extends EventName>(name: Name, body: EventBody<Name>): Uint8Array =>
  encode([envelopeKind.event, name, body])

/** Failures of no request in particular: what came made no sense. */
export const noRequestId = -1

const isId = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

/** What a client sent, body checked against its definition. */
export function decodeClientMessage(bytes: Uint8Array): ClientMessage {
  const value = decode(bytes)
  if (!Array.isArray(value) || value.length !== 4 || value[0] !== envelopeKind.request || !isId(value[1])) {
    throw new SharedVerbsError('malformed-message', 'control message is no request envelope [1, id, name, body]')
  }
  const name = typeof value[2] === 'string' ? requestByWireName.get(value[2]) : undefined
  if (!name) throw new SharedVerbsError('malformed-message', `no control request is named ${nameOf(value[2])}`)
  return { kind: 'request', id: value[1], name, body: check(requests[name].body, value[3], requests[name].name) }
}

/** Id of a request whose body did not decode, so that the refusal can be addressed; `noRequestId` when even that is missing. */
export function requestIdOf(bytes: Uint8Array): number {
  try {
    const value = decode(bytes)
    return Array.isArray(value) && isId(value[1]) ? value[1] : noRequestId
  } catch {
    return noRequestId
  }
}

/** What the broker sent. The result is checked by whoever knows the request. */
export function decodeBrokerMessage(bytes: Uint8Array): BrokerMessage {
  const value = decode(bytes)
  if (!Array.isArray(value) || value.length !== 3) {
    throw new SharedVerbsError('malformed-message', 'broker message is no envelope of three')
  }
  const [kind, of, content] = value as [unknown, unknown, unknown]
  if (kind === envelopeKind.reply && isId(of)) return { kind: 'reply', id: of, result: content }
  if (kind === envelopeKind.failure && (isId(of) || of === noRequestId)) {
    return { kind: 'failure', id: of, error: toWireError(content) }
  }
  if (kind === envelopeKind.event && typeof of === 'string' && Object.hasOwn(events, of)) {
    const name = of as EventName
    return { kind: 'event', name, body: check(events[name], content, name) }
  }
  throw new SharedVerbsError('malformed-message', `broker message of no known kind, for ${nameOf(of)}`)
}

function toWireError(value: unknown): WireError {
  const record = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>
  const field = (name: string): string => (typeof record[name] === 'string' ? (record[name] as string) : '')
  return { code: field('code'), message: field('message'), context: field('context') }
}
