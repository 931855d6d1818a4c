/**
 * What a session says to the next broker, question by question, whoever carries them: who it is, each thing it holds with its descriptor,
 * and that this was all. Completion queues come before the queue pairs that complete into them.
 */
import { brokerPage, brokerPageMagic } from '../protocol/broker-page.js'
import type { RequestBody, RequestName, RequestResult } from '../protocol/control.js'
import { SharedVerbsError } from '../protocol/errors.js'
import { abiVersion, clientFingerprint } from '../protocol/version.js'
import { Doorbell } from '../shm/doorbell.js'
import type { Mapping } from '../shm/mapping.js'
import type { Attachment } from './attachment.js'
import type { Reply } from './control-client.js'
import { mapSegment } from './segments.js'

/** What attaching needed and coming back needs again. */
export interface Credentials {
  readonly job: string
  readonly jobKey: string
}

export type Question = {
  [Name in RequestName]: {
    readonly name: Name
    readonly body: RequestBody<Name>
    readonly descriptors: readonly number[]
  }
}[RequestName]

export interface Reattached {
  readonly grant: RequestResult<'reattach'>
  readonly page: Mapping
  readonly engineDoorbell: Doorbell
}

export type ReattachSteps = Generator<Question, Reattached, Reply<RequestName>>

export function* reattachSteps(attachment: Attachment, credentials: Credentials): ReattachSteps {
  const { member, memberGeneration, node } = attachment.grant
  const identity = { member, memberGeneration, node, epoch: attachment.epoch, processId: process.pid }
  const descriptors = attachment.descriptors
  const language = { abiVersion, fingerprint: clientFingerprint }
  const reply = yield { name: 'reattach', body: { ...language, ...credentials, ...identity }, descriptors }
  const grant = reply.result as RequestResult<'reattach'>
  const [pageDescriptor, engineDescriptor] = reply.descriptors
  const engineDoorbell = new Doorbell(engineDescriptor ?? -1)
  let page: Mapping | undefined
  try {
    page = mapSegment(pageDescriptor, grant.brokerPageByteLength, false)
    checkPage(page, grant.brokerProcessId)
    yield* presentAll(attachment)
    yield { name: 'reattached', body: {}, descriptors: [] }
    return { grant, page, engineDoorbell }
  } catch (error) {
    engineDoorbell.close()
    page?.close()
    throw error
  }
}

/** A handle that the broker knows by number and segment. */
export interface Presentable {
  readonly number: number
  readonly generation: number
  readonly descriptor: number
  /** Its end was asked for: if the old broker had ended it, nothing is missing. */
  readonly closing: boolean
  presented(result: RequestResult<'present'>): void
}

function* presentAll(attachment: Attachment): Generator<Question, void, Reply<RequestName>> {
  for (const queue of attachment.completionQueues) yield* present('completion-queue', queue.presentable)
  for (const region of attachment.regions) yield* present('memory-region', region.presentable)
  for (const queuePair of attachment.queuePairs) yield* present('queue-pair', queuePair.presentable)
}

function* present(
  kind: RequestBody<'present'>['kind'],
  { number, generation, descriptor, closing, presented }: Presentable,
): Generator<Question, void, Reply<RequestName>> {
  try {
    const reply = yield { name: 'present', body: { kind, number, generation }, descriptors: [descriptor] }
    presented(reply.result as RequestResult<'present'>)
  } catch (error) {
    const gone = error instanceof SharedVerbsError && /^(no-such-object|stale-handle)$/.test(error.code)
    if (!closing || !gone) throw error
  }
}

export function checkPage(page: Mapping, brokerProcessId: number): void {
  const found = brokerPage.read(page.memory, 0)
  const isPage = found.magic === brokerPageMagic && found.version === abiVersion
  if (isPage && found.fingerprint === clientFingerprint) return
  throw new SharedVerbsError(
    'abi-mismatch',
    `broker process ${brokerProcessId} lays shared memory out differently; run broker and client of one version`,
    {
      version: found.version,
      expectedVersion: abiVersion,
      fingerprint: found.fingerprint,
      expected: clientFingerprint,
    },
  )
}
