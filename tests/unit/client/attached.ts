/** A session at a fake broker with one of everything, for tests that look at something else. */
import {
  attach,
  type CompletionQueue,
  type MemoryRegion,
  type QueuePair,
  type QueuePairOptions,
  type Session,
} from '../../../client/index.js'
import type { Scope } from '../../support/temporary-directory.js'
import { FakeBroker, type FakeQueuePair } from './fake-broker.js'

export interface Attached {
  readonly broker: FakeBroker
  readonly session: Session
  readonly cq: CompletionQueue
  readonly qp: QueuePair
  /** The broker's side of `qp`. */
  readonly fake: FakeQueuePair
  readonly region: MemoryRegion
}

export async function attached(
  scope: Scope,
  {
    capacity = 64,
    reconnectTimeoutMs = 0,
    ...options
  }: Partial<QueuePairOptions> & { readonly capacity?: number; readonly reconnectTimeoutMs?: number } = {},
): Promise<Attached> {
  const broker = FakeBroker.start(scope)
  const session = await attach({ runtimeDir: broker.directory, name: 'test', reconnectTimeoutMs })
  scope.teardown(() => session.close())
  const cq = await session.createCompletionQueue({ capacity })
  const qp = await session.createQueuePair({ sendCq: cq, maxSend: 16, maxReceive: 16, ...options })
  const region = await session.registerMemory(4096, { remoteWrite: true })
  return { broker, session, cq, qp, fake: broker.queuePair(qp.number), region }
}
