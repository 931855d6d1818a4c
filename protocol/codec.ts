/**
 * The one place that encodes and decodes control and link messages. msgpackr with every option written down: no records (both ends
 * would have to share structures), 64-bit integers as numbers only while safe, bounded input, plain maps.
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

const options = {
  useRecords: false,
  mapsAsObjects: true,
  int64AsType: 'number',
  moreTypes: false,
  largeBigIntToFloat: false,
  variableMapSize: true,
} as const
const packer = new Packr(options)
const unpacker = new Unpackr(options)

/** Encodes any plain value; throws `message-too-large` with both numbers. */
export function encode(value: unknown, maximumByteLength: number = limits.controlMessageByteLength): Uint8Array {
  const bytes = packer.pack(value)
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
  return bytes
}

/** Decodes untrusted bytes to a plain value; throws `malformed-message` or `message-too-large`. */
export function decode(bytes: Uint8Array, maximumByteLength: number = limits.controlMessageByteLength): unknown {
  if (bytes.byteLength > maximumByteLength) {
    throw new SharedVerbsError(
      'message-too-large',
      `received ${bytes.byteLength} bytes, the most is ${maximumByteLength}`,
      { byteLength: bytes.byteLength },
    )
  }
  try {
    return unpacker.unpack(bytes)
  } catch (cause) {
    throw new SharedVerbsError(
      'malformed-message',
      `cannot decode ${bytes.byteLength} bytes as msgpack`,
      { byteLength: bytes.byteLength },
      cause,
    )
  }
}

/** Checks a decoded value against its schema; throws `malformed-message` naming the first wrong field and its value's kind. */
export function check<Schema extends z.ZodType>(schema: Schema, value: unknown, what: string): z.output<Schema> {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  const path = issue?.path.join('.') || 'body'
  throw new SharedVerbsError('malformed-message', `${what}: ${path}: ${issue?.message ?? 'invalid'}`, { path, what })
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

export const encodeRequest = (id: number, name: RequestName, body: unknown): Uint8Array =>
  encode([envelopeKind.request, id, requests[name].name, body])
export const encodeReply = (id: number, result: unknown): Uint8Array => encode([envelopeKind.reply, id, result])
export const encodeFailure = (id: number, error: SharedVerbsError): Uint8Array => {
  const wire = error.toWire()
  return encode([
    envelopeKind.failure,
    id,
    { ...wire, message: wire.message.slice(0, 2000), context: wire.context.slice(0, 4000) },
  ])
}
export const encodeEvent = <Name extends EventName>(name: Name, body: EventBody<Name>): Uint8Array =>
  encode([envelopeKind.event, name, body])

const isId = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

/** What a client sent, body checked against its definition. */
export function decodeClientMessage(bytes: Uint8Array): ClientMessage {
  const value = decode(bytes)
  if (!Array.isArray(value) || value.length !== 4 || value[0] !== envelopeKind.request || !isId(value[1])) {
    throw new SharedVerbsError('malformed-message', 'control message is no request envelope [1, id, name, body]')
  }
  const name = typeof value[2] === 'string' ? requestByWireName.get(value[2]) : undefined
  if (!name)
    throw new SharedVerbsError(
      'malformed-message',
      `no control request is named ${JSON.stringify(value[2])?.slice(0, 80)}`,
    )
  return { kind: 'request', id: value[1], name, body: check(requests[name].body, value[3], requests[name].name) }
}

/** Id of a request whose body did not decode, so that the refusal can be addressed; -1 when even that is missing. */
export function requestIdOf(bytes: Uint8Array): number {
  try {
    const value = decode(bytes)
    return Array.isArray(value) && isId(value[1]) ? value[1] : -1
  } catch {
    return -1
  }
}

/** What the broker sent. The result is checked by whoever knows the request. */
export function decodeBrokerMessage(bytes: Uint8Array): BrokerMessage {
  const value = decode(bytes)
  if (!Array.isArray(value)) throw new SharedVerbsError('malformed-message', 'broker message is no envelope')
  if (value[0] === envelopeKind.reply && isId(value[1])) return { kind: 'reply', id: value[1], result: value[2] }
  if (value[0] === envelopeKind.failure && isId(value[1]))
    return { kind: 'failure', id: value[1], error: toWireError(value[2]) }
  if (value[0] === envelopeKind.event && typeof value[1] === 'string' && Object.hasOwn(events, value[1])) {
    const name = value[1] as EventName
    return { kind: 'event', name, body: check(events[name], value[2], name) }
  }
  throw new SharedVerbsError('malformed-message', `broker message of unknown kind ${String(value[0]).slice(0, 20)}`)
}

function toWireError(value: unknown): WireError {
  const record = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>
  const field = (name: string): string => (typeof record[name] === 'string' ? (record[name] as string) : '')
  return { code: field('code'), message: field('message'), context: field('context') }
}
