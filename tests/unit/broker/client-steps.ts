/** What tests of the control plane do again and again with a client. */
import type { RequestBody } from '../../../protocol/control.js'
import type { SharedVerbsError } from '../../../protocol/errors.js'
import type { Scope } from '../../support/temporary-directory.js'
import { RawClient } from './raw-client.js'

export interface Identity {
  readonly number: number
  readonly generation: number
}

export async function attachedClient(scope: Scope, directory: string, job?: string, key?: string): Promise<RawClient> {
  const client = new RawClient(scope, directory)
  await client.attach(job, key)
  return client
}

export async function createCompletionQueue(client: RawClient, capacity = 16): Promise<Identity> {
  const { result } = await client.ask('createCompletionQueue', { capacity })
  return { number: result.number, generation: result.generation }
}

export async function createQueuePair(
  client: RawClient,
  options: Partial<RequestBody<'createQueuePair'>> = {},
): Promise<Identity & { readonly completionQueue: Identity; readonly descriptor: number }> {
  const completionQueue = await createCompletionQueue(client)
  const { result, descriptors } = await client.ask('createQueuePair', {
    type: 'connected',
    sendCompletionQueue: completionQueue,
    receiveCompletionQueue: completionQueue,
    maxSend: 16,
    maxReceive: 16,
    maxInline: 64,
    trafficClass: 0,
    rnrRetry: 7,
    rnrTimerMs: 10,
    ...options,
  })
  return { number: result.number, generation: result.generation, completionQueue, descriptor: descriptors[0] ?? -1 }
}

export async function connect(client: RawClient, node: string, timeoutMs = 5000, trafficClass = 0): Promise<Identity> {
  const { number, generation } = await createQueuePair(client, { trafficClass })
  const remote = { node, number: 5, generation: 6 }
  await client.ask('connectQueuePair', { number, generation, remote, timeoutMs })
  return { number, generation }
}

export const codeOf = (error: unknown): string => (error as SharedVerbsError).code

/** The failure of a request that must fail. */
export async function failureOf(asked: Promise<unknown>): Promise<SharedVerbsError> {
  try {
    await asked
  } catch (error) {
    return error as SharedVerbsError
  }
  throw new Error('the request was answered, a failure was expected')
}
