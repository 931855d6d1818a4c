import { closeSync, openSync, truncateSync, writeSync } from 'node:fs'
import test from 'ava'
import { brokerIdentity, inspectViewNames, inspectViews } from '../../../../broker/observe/inspect.js'
import { sharingOf } from '../../../../broker/observe/inspect-overview.js'
import { NodeFile } from '../../../../broker/observe/node-file.js'
import { hungAfterMs, type NodeFileSnapshot, readNodeFile } from '../../../../broker/observe/node-file-reader.js'
import { brokerState } from '../../../../protocol/broker-page.js'
import type { SharedVerbsError } from '../../../../protocol/errors.js'
import { memberState } from '../../../../protocol/node-file.js'
import { queuePairHeader, queuePairMagic, queuePairType } from '../../../../protocol/queue-pair-segment.js'
import { tryLockWholeFile } from '../../../../shm/libc.js'
import { Mapping } from '../../../../shm/mapping.js'
import { ownerWord, WAITERS } from '../../../../shm/robust-lock.js'
import { type Scope, temporaryDirectory } from '../../../support/temporary-directory.js'

interface Written {
  readonly directory: string
  readonly file: NodeFile
  now: number
}

/** A node file as a broker of this process would write it. */
function writtenNodeFile(scope: Scope, { locked = true } = {}): Written {
  const directory = temporaryDirectory(scope)
  const fd = openSync(`${directory}/node`, 'w+', 0o600)
  if (locked) tryLockWholeFile(fd)
  const written: Written = { directory, now: Date.now(), file: undefined as unknown as NodeFile }
  const file = NodeFile.open(fd, {
    node: 'alpha',
    bootId: 'boot',
    processId: process.pid,
    freshNodeId: 'cafe',
    freshGeneration: 5,
    wallTimeMs: () => written.now,
  })
  scope.teardown(() => file.close())
  file.setState(brokerState.running)
  file.beat()
  file.publishReady()
  return Object.assign(written, { file })
}

const member = (number: number, processId: number, name = `rank-${number}`) => ({
  state: memberState.alive,
  job: 1,
  member: number,
  generation: 1,
  processId,
  userId: 0,
  attachedTimeMs: 0,
  queuePairs: 0,
  regions: 0,
  processStartTime: 0,
  registeredByteLength: 0,
  name,
})

const job = (members: number) => ({
  state: 1,
  number: 1,
  userId: 0,
  members,
  name: 'train',
  livenessInode: 0,
  activityInode: 0,
  keyProof: '',
})

const queuePair = (peerNode: string, segmentInode = 0) => ({
  state: 1,
  job: 1,
  member: 3,
  generation: 7,
  type: queuePairType.connected,
  sendCompletionQueue: 1,
  receiveCompletionQueue: 1,
  lane: 0,
  peerNumber: 9,
  peerGeneration: 2,
  sendSlots: 16,
  receiveSlots: 16,
  messagesSent: 5,
  messagesReceived: 6,
  bytesSent: 50,
  bytesReceived: 60,
  segmentInode,
  segmentByteLength: 4096,
  peerNode,
  condition: 0,
  errorStatus: 0,
  peer: 0,
  laneIndex: 0,
  connected: 0,
  inlineByteLength: 64,
  trafficClass: 0,
  rnrRetry: 7,
  rnrTimerMs: 1,
})

const peer = (node: string) => ({
  state: 2,
  epoch: 1,
  lanes: 1,
  failures: 0,
  connectedTimeMs: 0,
  heardTimeMs: 0,
  node,
  address: '127.0.0.1:1',
})

const sharedQueuePair = (peerRow: number) => ({
  state: 2,
  job: 1,
  peer: peerRow,
  lane: 0,
  providerNumber: 17,
  remoteNumber: 18,
  incarnation: 1,
  trafficClass: 0,
  queuePairs: 2,
  postedBytes: 0,
  framesSent: 0,
  framesReceived: 0,
  bytesSent: 0,
  bytesReceived: 0,
  credit: 1,
  bounceBuffers: 1,
})

test('a broker that holds the lock and beats runs', (t) => {
  const { directory } = writtenNodeFile(t)
  const snapshot = readNodeFile(directory)
  t.is(snapshot.life, 'running')
  t.is(snapshot.lockHolder, process.pid)
  t.like(brokerIdentity(snapshot), { node: 'alpha', state: 'running', processId: process.pid, epoch: 1 })
})

test('without the lock it is dead, or stopped when it said so', (t) => {
  const { directory, file } = writtenNodeFile(t, { locked: false })
  t.is(readNodeFile(directory).life, 'dead')
  file.setState(brokerState.stopped)
  t.is(readNodeFile(directory).life, 'stopped')
})

test('with the lock but without a heartbeat it hangs', (t) => {
  const written = writtenNodeFile(t)
  written.now -= hungAfterMs + 1000
  written.file.beat()
  t.is(readNodeFile(written.directory).life, 'hung')
  written.file.setState(brokerState.starting)
  t.is(readNodeFile(written.directory).life, 'starting')
})

const refusal = (t: { throws<E extends Error>(run: () => unknown): E | undefined }, directory: string): string =>
  t.throws<SharedVerbsError>(() => readNodeFile(directory))?.code ?? 'nothing'

test('what is no node file of this build is refused', (t) => {
  t.is(refusal(t, '/nonexistent/directory'), 'broker-not-running')
  const { directory } = writtenNodeFile(t)
  const fd = openSync(`${directory}/node`, 'r+')
  writeSync(fd, new Uint8Array([9]), 0, 1, 4)
  t.is(refusal(t, directory), 'abi-mismatch')
  writeSync(fd, new Uint8Array([9]), 0, 1, 0)
  t.is(refusal(t, directory), 'segment-invalid')
  closeSync(fd)
  const empty = temporaryDirectory(t)
  closeSync(openSync(`${empty}/node`, 'w'))
  t.is(refusal(t, empty), 'broker-not-running')
  truncateSync(`${empty}/node`, 8192)
  t.is(refusal(t, empty), 'broker-not-running')
})

function filled(scope: Scope): NodeFileSnapshot {
  const { directory, file } = writtenNodeFile(scope)
  file.jobs.fill(1, job(2))
  file.members.fill(3, member(3, 4711))
  file.members.fill(4, member(4, 4711))
  file.members.fill(5, member(5, 4712, 'esc\x1b[31m'))
  file.peers.fill(1, peer('beta'))
  file.sharedQueuePairs.fill(1, sharedQueuePair(1))
  file.queuePairs.fill(1, queuePair('beta'))
  file.queuePairs.fill(2, queuePair('beta'))
  file.queuePairs.fill(3, queuePair('alpha'))
  file.queuePairs.fill(4, queuePair(''))
  file.errors.observe('timeout', 'beta', 'beta: no answer')
  file.events.note('peer-lost', 'beta is gone')
  return readNodeFile(directory)
}

test('sharing is counted: processes, queue pairs, and what an unshared design would hold', (t) => {
  const sharing = sharingOf(filled(t))
  t.deepEqual(sharing, {
    processes: 2,
    sessions: 3,
    queuePairs: 4,
    remoteQueuePairs: 2,
    sharedQueuePairs: 1,
    unsharedQueuePairs: 2,
    nodes: 2,
    unsharedByFormula: 4,
    peers: [{ node: 'beta', state: 'connected', queuePairs: 2, sharedQueuePairs: 1 }],
  })
})

test('rows name their process, their job and their peer', (t) => {
  const snapshot = filled(t)
  const first = (view: keyof typeof inspectViews) => inspectViews[view](snapshot)[0]!.fields
  t.like(first('sessions'), { member: 3, pid: 4711, comm: 'rank-3', state: 'alive', job: 'train' })
  t.like(first('qps'), { number: 1, type: 'connected', pid: 4711, comm: 'rank-3', peer: 'beta/9', messagesSent: 5 })
  t.like(first('shared-qps'), { lqpn: 17, rqpn: 18, type: 'RC', state: 'up', peer: 'beta', job: 'train' })
  t.like(first('peers'), { node: 'beta', state: 'connected', address: '127.0.0.1:1' })
  t.like(first('errors'), { code: 'timeout', count: 1 })
  t.like(first('events'), { kind: 'peer-lost', message: 'beta is gone' })
  t.is(inspectViews.counters(snapshot)[0]!.fields['name'], 'messages-sent')
})

test('every view gives rows with a noun', (t) => {
  const snapshot = filled(t)
  for (const view of inspectViewNames) {
    for (const row of inspectViews[view](snapshot)) t.regex(row.noun, /^[a-z-]+$/)
  }
})

test('held locks are read from the segments of a process that has them open', (t) => {
  const { directory, file } = writtenNodeFile(t)
  const segment = Mapping.create('queue-pair', 4096)
  t.teardown(() => segment.close())
  queuePairHeader.write(segment.memory, 0, {
    magic: queuePairMagic,
    number: 2,
    sendLock: ownerWord(3, 7) | WAITERS,
  })
  file.jobs.fill(1, job(1))
  file.members.fill(3, member(3, 4711))
  file.queuePairs.fill(2, queuePair('beta', segment.identity.inode))
  file.queuePairs.fill(5, queuePair('beta', 0))
  const rows = inspectViews.locks(readNodeFile(directory))
  t.like(rows[0]?.fields, { qp: 2, side: 'send', member: 3, generation: 7, pid: 4711, comm: 'rank-3', waiters: true })
  t.like(rows[1]?.fields, { queuePairs: 2, held: 1, unreadable: 1 })
  t.is(rows.length, 2)
})
