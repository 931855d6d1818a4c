/**
 * Every control message between a client and its broker, each request declared once as a value: name, body, result. Client and broker
 * both use these values; whatever does not validate is refused with `malformed-message` before anybody looks at it.
 *
 * Envelope on the socket (one SEQPACKET message each, msgpack, at most limits.controlMessageByteLength):
 *   request   [1, id, name, body]         id: a number the client never uses twice in a session; a repeat gets the first answer again
 *   reply     [2, id, result]
 *   failure   [3, id, {code, message, context}]      id -1: what came was so wrong that no request can be named
 *   event     [4, name, body]             broker → client, unasked
 *
 * After the end of its broker a session goes on with the next one: `reattach`, one `present` for each object it holds (completion queues
 * before the queue pairs that use them), `reattached`; after its reply everything is as before.
 */
import { z } from 'zod'
import { isName, isNodeName } from './address.js'
import { isKey } from './keys.js'
import { limits } from './limits.js'

const u32 = z.number().int().min(0).max(0xffffffff)
const count = (maximum: number) => z.number().int().min(0).max(maximum)
const nodeName = z.string().refine(isNodeName, 'a node name: letters, digits, dots, dashes, underscores, at most 64')
const name = z.string().refine(isName, 'a name of 1 to 64 printable characters without spaces')
const key = z.number().refine(isKey, 'a region key')
const timeoutMs = z.number().min(0).max(3_600_000)
const objectNumber = count(0xffffff)
const byteLength = count(Number.MAX_SAFE_INTEGER)
/** Why something happened, for people. */
const reason = z.string().max(2000)

export const addressSchema = z.strictObject({ node: nodeName, number: objectNumber, generation: u32 })
export const serviceAddressSchema = z.strictObject({ node: nodeName, service: name })
const objectId = { number: objectNumber, generation: u32 }

export const rightsSchema = z.strictObject({
  remoteRead: z.boolean().default(false),
  remoteWrite: z.boolean().default(false),
  remoteAtomic: z.boolean().default(false),
})

const queuePairGrant = z.strictObject({
  ...objectId,
  type: z.enum(['connected', 'datagram']),
  sendSlots: u32,
  receiveSlots: u32,
  inlineByteLength: u32,
  byteLength,
  sendCompletionQueue: u32,
  receiveCompletionQueue: u32,
})
const completionQueueGrant = z.strictObject({ ...objectId, capacity: u32, byteLength })
const regionGrant = z.strictObject({ key, byteLength, mappedByteLength: byteLength, rights: u32 })

export interface RequestDefinition<Body extends z.ZodType = z.ZodType, Result extends z.ZodType = z.ZodType> {
  readonly name: string
  readonly body: Body
  readonly result: Result
  /** Descriptors that travel beside the reply, in order. */
  readonly descriptors: readonly string[]
  /** Descriptors that travel beside the request, in order. */
  readonly presented: readonly string[]
}

function request<Body extends z.ZodType, Result extends z.ZodType>(
  named: string,
  body: Body,
  result: Result,
  descriptors: readonly string[] = [],
  presented: readonly string[] = [],
): RequestDefinition<Body, Result> {
  return { name: named, body, result, descriptors, presented }
}
const nothing = z.strictObject({})

export const requests = {
  /** First message of every session. Reply's descriptors: broker page (read-only), job activity, liveness, session doorbell, engine doorbell. */
  attach: request(
    'attach',
    z.strictObject({
      abiVersion: u32,
      fingerprint: u32,
      job: name,
      jobKey: z.string().max(256),
      name: z.string().max(64),
      /** Process as the client sees itself; shown only, credentials come from the kernel. */
      processId: u32,
    }),
    z.strictObject({
      member: count(limits.members),
      memberGeneration: u32,
      node: nodeName,
      epoch: u32,
      brokerProcessId: u32,
      brokerPageByteLength: byteLength,
      activityByteLength: byteLength,
      provider: z.string().max(64),
    }),
    ['broker-page', 'activity', 'liveness', 'session-doorbell', 'engine-doorbell'],
  ),
  /**
   * First message of a session that lost its broker, to the next one. Everything is checked against the node file and the kernel's word;
   * what does not fit is refused. Reply's descriptors: the new broker page, the new engine doorbell.
   */
  reattach: request(
    'reattach',
    z.strictObject({
      abiVersion: u32,
      fingerprint: u32,
      job: name,
      jobKey: z.string().max(256),
      member: count(limits.members),
      memberGeneration: u32,
      /** Of the broker that was lost. */
      epoch: u32,
      node: nodeName,
      processId: u32,
    }),
    z.strictObject({
      epoch: u32,
      brokerProcessId: u32,
      brokerPageByteLength: byteLength,
      provider: z.string().max(64),
    }),
    ['broker-page', 'engine-doorbell'],
    ['liveness', 'activity', 'session-doorbell'],
  ),
  /** One object that the session holds, with the descriptor of its segment: what the broker knows of it. */
  present: request(
    'present',
    z.strictObject({ kind: z.enum(['completion-queue', 'memory-region', 'queue-pair']), ...objectId }),
    /** Of a connected queue pair its peer; else nothing. */
    z.strictObject({ remote: addressSchema.optional() }),
    [],
    ['segment'],
  ),
  /** Everything was presented; replied when the job goes on. */
  reattached: request('reattached', nothing, nothing),
  /** Of an operator, by a connection that is no session: hand over to the broker that stands by. Replied before the connection ends. */
  handover: request('handover', z.strictObject({ timeoutMs }), z.strictObject({ epoch: u32, processId: u32 })),
  /** Orderly end: everything of the session is closed; replied when done. */
  detach: request('detach', nothing, nothing),
  createCompletionQueue: request(
    'create-completion-queue',
    z.strictObject({ capacity: count(limits.completionQueueCapacity) }),
    completionQueueGrant,
    ['segment'],
  ),
  openCompletionQueue: request('open-completion-queue', z.strictObject(objectId), completionQueueGrant, ['segment']),
  closeCompletionQueue: request('close-completion-queue', z.strictObject(objectId), nothing),
  createQueuePair: request(
    'create-queue-pair',
    z.strictObject({
      type: z.enum(['connected', 'datagram']),
      sendCompletionQueue: z.strictObject(objectId),
      receiveCompletionQueue: z.strictObject(objectId),
      maxSend: count(limits.slotsPerQueue),
      maxReceive: count(limits.slotsPerQueue),
      maxInline: count(limits.inlineByteLength),
      trafficClass: count(255),
      rnrRetry: count(7),
      rnrTimerMs: z.number().min(0.01).max(10_000),
    }),
    queuePairGrant,
    ['segment'],
  ),
  /** Also how a poller of a shared completion queue learns of queue pairs it has not opened: then `generation` may be 0 = whatever lives. */
  openQueuePair: request('open-queue-pair', z.strictObject(objectId), queuePairGrant, ['segment']),
  closeQueuePair: request('close-queue-pair', z.strictObject(objectId), nothing),
  connectQueuePair: request(
    'connect-queue-pair',
    z.strictObject({ ...objectId, remote: z.union([addressSchema, serviceAddressSchema]), timeoutMs }),
    z.strictObject({ remote: addressSchema }),
  ),
  disconnectQueuePair: request('disconnect-queue-pair', z.strictObject({ ...objectId, timeoutMs }), nothing),
  /** Finds the node and prepares the path; the index goes into work requests of datagram queue pairs. */
  resolveNode: request(
    'resolve-node',
    z.strictObject({ node: nodeName, timeoutMs }),
    z.strictObject({ nodeIndex: u32 }),
  ),
  registerMemory: request(
    'register-memory',
    z.strictObject({ byteLength: count(limits.regionByteLength), rights: rightsSchema }),
    regionGrant,
    ['segment'],
  ),
  openMemory: request('open-memory', z.strictObject({ key }), regionGrant, ['segment']),
  closeMemory: request('close-memory', z.strictObject({ key }), nothing),
  listen: request('listen', z.strictObject({ service: name, backlog: count(1024) }), nothing),
  unlisten: request('unlisten', z.strictObject({ service: name }), nothing),
  acceptConnection: request(
    'accept-connection',
    z.strictObject({ connection: u32, ...objectId }),
    z.strictObject({ remote: addressSchema }),
  ),
  rejectConnection: request('reject-connection', z.strictObject({ connection: u32 }), nothing),
} as const

export const events = {
  /** Somebody asks to connect to a service this session listens on; answer by accept-connection or reject-connection. */
  'connection-request': z.strictObject({ connection: u32, service: name, remote: addressSchema }),
  'queue-pair-error': z.strictObject({ ...objectId, status: u32, reason }),
  'queue-pair-disconnected': z.strictObject({ ...objectId, reason }),
  'completion-queue-error': z.strictObject({ ...objectId, reason }),
  /** Somebody was refused as `busy` on this shared queue pair; whoever held its posting lock has let go of it. */
  'queue-pair-room': z.strictObject(objectId),
  /** The path to a node was lost or came back. */
  'path-lost': z.strictObject({ node: nodeName, reason }),
  'path-recovered': z.strictObject({ node: nodeName }),
  'device-removed': z.strictObject({ device: z.string().max(256) }),
  'broker-draining': z.strictObject({ reason }),
  /** The broker has ended the session and closed its objects: no other broker will know it. */
  'session-ended': z.strictObject({ reason }),
} as const

export type RequestName = keyof typeof requests
export type RequestBody<Name extends RequestName> = z.input<(typeof requests)[Name]['body']>
export type CheckedBody<Name extends RequestName> = z.output<(typeof requests)[Name]['body']>
export type RequestResult<Name extends RequestName> = z.output<(typeof requests)[Name]['result']>
export type EventName = keyof typeof events
export type EventBody<Name extends EventName> = z.output<(typeof events)[Name]>

export const envelopeKind = { request: 1, reply: 2, failure: 3, event: 4 } as const

/** Request names on the wire to their keys here. */
export const requestByWireName: ReadonlyMap<string, RequestName> = new Map(
  Object.entries(requests).map(([requestKey, definition]) => [definition.name, requestKey as RequestName]),
)
