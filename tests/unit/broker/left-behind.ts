/** A broker that is gone while its sessions live on, without a process to kill: it hands over and nobody takes. */
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { readNodeFile } from '../../../broker/observe/node-file-reader.js'
import { nodeFileGeometry, queuePairRow } from '../../../protocol/node-file.js'
import { nodeFilePath, standbyPath } from '../../../protocol/paths.js'
import { abiVersion, clientFingerprint } from '../../../protocol/version.js'
import { tryLockWholeFile } from '../../../shm/libc.js'
import type { LivenessToken } from '../../../shm/liveness.js'
import { Memory } from '../../../shm/memory.js'
import type { Scope } from '../../support/temporary-directory.js'
import { createQueuePair, type Identity } from './client-steps.js'
import { RawClient } from './raw-client.js'
import { startTestBroker, type TestBroker } from './start-test-broker.js'

/** What a client had when its broker went. */
export interface Survivor {
  readonly client: RawClient
  readonly member: number
  readonly memberGeneration: number
  readonly token: LivenessToken
  readonly epoch: number
  /** Liveness file, activity, doorbell. */
  readonly files: readonly [number, number, number]
  readonly completionQueue: Identity & { readonly descriptor: number }
  readonly queuePair: Identity & { readonly descriptor: number }
  readonly region: Identity & { readonly descriptor: number }
}

/** A client with one of everything. */
export async function equippedClient(scope: Scope, directory: string, job = 'job'): Promise<Survivor> {
  const client = new RawClient(scope, directory)
  const { result, descriptors } = await client.attach(job)
  const made = await createQueuePair(client)
  const opened = await client.ask('openCompletionQueue', made.completionQueue)
  await client.ask('closeCompletionQueue', made.completionQueue)
  const memory = await client.ask('registerMemory', { byteLength: 100, rights: { remoteRead: true } })
  const region = readNodeFile(directory)
    .rows('regions')
    .filter(({ member }) => member === result.member)
    .at(-1)
  return {
    client,
    member: result.member,
    memberGeneration: result.memberGeneration,
    token: client.token,
    epoch: result.epoch,
    files: [descriptors[2] ?? -1, descriptors[1] ?? -1, descriptors[3] ?? -1],
    completionQueue: { ...made.completionQueue, descriptor: opened.descriptors[0] ?? -1 },
    queuePair: { number: made.number, generation: made.generation, descriptor: made.descriptor },
    region: {
      number: region?.index ?? 0,
      generation: region?.generation ?? 0,
      descriptor: memory.descriptors[0] ?? -1,
    },
  }
}

/** Ends the broker as a handover does, so that its successor finds everything as a killed one leaves it. */
export async function leaveBehind({ broker, directory }: TestBroker): Promise<void> {
  const place = openSync(standbyPath(directory), 'w+')
  if (!tryLockWholeFile(place)) throw new Error('somebody stands by')
  await broker.handover(1000)
  await broker.whenStopped
  closeSync(place)
  rmSync(standbyPath(directory))
}

/** The first word of a survivor to the next broker; `changed` and `files` are what a hostile one would say instead. */
export async function reattach(
  scope: Scope,
  directory: string,
  survivor: Survivor,
  { files = survivor.files, ...changed }: { files?: readonly number[]; [name: string]: unknown } = {},
): Promise<RawClient> {
  const next = new RawClient(scope, directory)
  const { member, memberGeneration, epoch } = survivor
  const language = { abiVersion, fingerprint: clientFingerprint }
  const identity = { job: 'job', jobKey: 'key', member, memberGeneration, epoch, node: 'alpha', processId: process.pid }
  await next.present('reattach', { ...language, ...identity, ...changed }, files)
  return next
}

export const kinds = { completionQueue: 'completion-queue', region: 'memory-region', queuePair: 'queue-pair' } as const

export async function present(
  client: RawClient,
  kind: keyof typeof kinds,
  { number, generation, descriptor }: Survivor['queuePair'],
): Promise<{ readonly remote?: unknown }> {
  return (await client.present('present', { kind: kinds[kind], number, generation }, [descriptor])).result
}

export async function presentAll(client: RawClient, survivor: Survivor): Promise<void> {
  for (const kind of ['completionQueue', 'region', 'queuePair'] as const) await present(client, kind, survivor[kind])
}

/** What the engine writes when a queue pair is connected, written into the file of a broker that is gone. */
export function writeConnection(
  directory: string,
  number: number,
  values: { peer: number; peerNumber: number; peerGeneration: number; laneIndex: number; condition: number },
): void {
  const { offset, rowByteLength } = nodeFileGeometry.sections.queuePairs
  const memory = new Memory(new ArrayBuffer(Math.ceil(rowByteLength / 8) * 8))
  const row = readNodeFile(directory)
    .rows('queuePairs')
    .find(({ index }) => index === number)
  if (!row) throw new Error(`no queue pair ${number}`)
  queuePairRow.write(memory, 0, { ...row, ...values, connected: 1 })
  const fd = openSync(nodeFilePath(directory), 'r+')
  writeSync(fd, memory.u8, 0, rowByteLength, offset + number * rowByteLength)
  closeSync(fd)
}

/** A broker that comes after another, and a client that outlived it. */
export async function restarted(
  scope: Scope,
  options: Parameters<typeof startTestBroker>[1] = {},
): Promise<TestBroker & { readonly survivor: Survivor; readonly before: TestBroker }> {
  const before = await startTestBroker(scope, options)
  const survivor = await equippedClient(scope, before.directory)
  await leaveBehind(before)
  const after = await startTestBroker(scope, { ...options, runtimeDirectory: before.directory })
  return { ...after, survivor, before }
}
