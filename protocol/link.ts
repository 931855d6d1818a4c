/**
 * Messages on the brokers' control link (TLS with a pre-shared key over TCP; a 4-byte little-endian length before each msgpack message
 * [name, body]). Whatever must stay ordered with data is not here but on the lane (protocol/wire.ts).
 *
 * Order of a link: hello both ways → (version, features, identity checked; one link wins when both dialled) → domain-open for each job
 * → lane-open / lane-opened / lane-ready for each lane → heartbeats. Every refusal names the field and both values.
 */
import { z } from 'zod'
import { isName, isNodeName } from './address.js'
import { check, decode, encode, nameOf } from './codec.js'
import { SharedVerbsError } from './errors.js'

const u32 = z.number().int().min(0).max(0xffffffff)
const small = z
  .number()
  .int()
  .min(0)
  .max(1 << 24)
const nodeName = z.string().refine(isNodeName, 'a node name')
const jobName = z.string().refine(isName, 'a job name')
const whole = z.number().int().min(0)
const hex = z.string().regex(/^[0-9a-f]{0,128}$/, 'up to 128 hexadecimal digits')

/** What a provider needs besides to reach a queue pair, in its own words: a few short facts. */
const pathFields = 16
const pathKey = z.string().regex(/^[A-Za-z][A-Za-z0-9-]{0,31}$/, 'a word of at most 32 letters, digits and dashes')

export const queuePairAddressSchema = z.strictObject({
  number: small,
  packetSequence: small,
  path: z
    .record(pathKey, z.union([z.string().max(128), whole]))
    .refine((path) => Object.keys(path).length <= pathFields, `at most ${pathFields} fields`),
})

/** What two brokers must agree on for a lane; the effective value is the minimum, or equality where noted. */
export const laneParametersSchema = z.strictObject({
  providerKind: z.enum(['soft', 'verbs']),
  readsInitiated: small,
  readsAccepted: small,
  bounceByteLength: small,
  bounceCount: small,
  chunkByteLength: small,
  mtu: small,
  trafficClass: small,
  atomicWindow: small,
  maxMessageByteLength: whole,
})
export type LaneParameters = z.output<typeof laneParametersSchema>

/** Names a lane for both ends: job, traffic class, index. The node pair is the link's. */
const laneName = { job: jobName, userId: u32, trafficClass: small, lane: small }

export const linkMessages = {
  hello: z.strictObject({
    protocolMinimum: u32,
    protocolMaximum: u32,
    wireFingerprint: u32,
    node: nodeName,
    nodeId: hex,
    bootId: z.string().max(64),
    epoch: u32,
    /** Where this broker listens for links, on the address it is reached by: for a peer that was called and must call back. */
    port: z.number().int().min(0).max(65535),
    provider: z.enum(['soft', 'verbs']),
    lanes: small,
    sharing: z.enum(['job', 'node']),
    nonce: hex,
  }),
  /** Last word of the side that keeps or gives up this link. */
  welcome: z.strictObject({ proof: hex }),
  refused: z.strictObject({
    code: z.string().max(64),
    field: z.string().max(64),
    mine: z.string().max(256),
    yours: z.string().max(256),
  }),
  /** I have members of this job; proof = HMAC(job key, both nonces), so that the key never travels. */
  'domain-open': z.strictObject({ job: jobName, userId: u32, proof: hex }),
  'domain-opened': z.strictObject({ job: jobName, userId: u32 }),
  'domain-refused': z.strictObject({
    job: jobName,
    userId: u32,
    code: z.string().max(64),
    message: z.string().max(500),
  }),
  'domain-closed': z.strictObject({ job: jobName, userId: u32 }),
  /** The side with the higher node id asks the other to open lanes, so that both never create the same one. */
  'lane-want': z.strictObject({ job: jobName, userId: u32, trafficClass: small }),
  'lane-open': z.strictObject({
    ...laneName,
    incarnation: u32,
    lanes: small,
    parameters: laneParametersSchema,
    address: queuePairAddressSchema,
  }),
  'lane-opened': z.strictObject({
    ...laneName,
    incarnation: u32,
    parameters: laneParametersSchema,
    address: queuePairAddressSchema,
  }),
  'lane-refused': z.strictObject({
    ...laneName,
    incarnation: u32,
    code: z.string().max(64),
    message: z.string().max(500),
  }),
  'lane-ready': z.strictObject({ ...laneName, incarnation: u32 }),
  'lane-failed': z.strictObject({ ...laneName, incarnation: u32, reason: z.string().max(200) }),
  /** Orderly reap of an idle lane: the asked side agrees only with nothing in flight and no queue pair on it. */
  'lane-reap': z.strictObject({ ...laneName, incarnation: u32 }),
  'lane-reaped': z.strictObject({ ...laneName, incarnation: u32, agreed: z.boolean() }),
  heartbeat: z.strictObject({ engineTurns: whole, echo: whole }),
  /** stop: what this node had is gone. handover: the next broker of this node goes on with it. */
  goodbye: z.strictObject({ kind: z.enum(['stop', 'handover']), reason: z.string().max(200) }),
} as const

export type LinkMessageName = keyof typeof linkMessages
export type LinkMessageBody<Name extends LinkMessageName> = z.output<(typeof linkMessages)[Name]>
export type LinkMessage = {
  [Name in LinkMessageName]: { readonly name: Name; readonly body: LinkMessageBody<Name> }
}[LinkMessageName]

export const linkMessageByteLength = 16384

export function encodeLinkMessage<Name extends LinkMessageName>(name: Name, body: LinkMessageBody<Name>): Uint8Array {
  return encode([name, body], linkMessageByteLength)
}

export function decodeLinkMessage(bytes: Uint8Array): LinkMessage {
  const value = decode(bytes, linkMessageByteLength)
  const name: unknown = Array.isArray(value) && value.length === 2 ? value[0] : undefined
  if (typeof name !== 'string' || !Object.hasOwn(linkMessages, name)) {
    throw new SharedVerbsError('malformed-message', `no link message is named ${nameOf(name)}`)
  }
  const known = name as LinkMessageName
  return { name: known, body: check(linkMessages[known], (value as unknown[])[1], known) } as LinkMessage
}
