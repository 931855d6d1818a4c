/**
 * The views of `broker inspect`, each a pure function of a snapshot of the node file: rows with the same keys for text and JSON. What
 * a key means is in the comment of its row in protocol/node-file.ts.
 */

import {
  type CounterName,
  counterNames,
  laneStateNames,
  memberStateNames,
  peerStateNames,
} from '../../protocol/node-file.js'
import { queuePairType } from '../../protocol/queue-pair-segment.js'
import { regionRight } from '../../protocol/wire.js'
import { inspectLocks } from './inspect-locks.js'
import { inspectOverview } from './inspect-overview.js'
import { type InspectRow, membersByNumber } from './inspect-row.js'
import type { NodeFileSnapshot } from './node-file-reader.js'

export type InspectView = (snapshot: NodeFileSnapshot) => InspectRow[]

export const inspectViews = {
  overview: inspectOverview,
  sessions: inspectSessions,
  qps: inspectQueuePairs,
  'shared-qps': inspectSharedQueuePairs,
  mrs: inspectRegions,
  cqs: inspectCompletionQueues,
  peers: inspectPeers,
  locks: inspectLocks,
  counters: inspectCounters,
  errors: inspectErrors,
  events: inspectEvents,
} as const satisfies Record<string, InspectView>

export type InspectViewName = keyof typeof inspectViews
export const inspectViewNames = Object.keys(inspectViews) as readonly InspectViewName[]

/** What every view is told about the broker: in JSON beside the rows, in text only when something is wrong with it. */
export function brokerIdentity(snapshot: NodeFileSnapshot) {
  const { header } = snapshot
  return {
    node: header.node,
    state: snapshot.life,
    processId: header.processId,
    epoch: header.epoch,
    uptimeMs: Math.round(Math.max(0, snapshot.takenTimeMs - header.startedTimeMs)),
    heartbeatAgeMs: Math.round(snapshot.heartbeatAgeMs),
  }
}

function jobNames(snapshot: NodeFileSnapshot): Map<number, string> {
  return new Map(snapshot.rows('jobs').map((job) => [job.index, job.name]))
}

interface Owned {
  readonly job: number
  readonly member: number
}

/** `pid` and `comm` as the rdma tool calls them, of the session that created an object. */
function ownerOf(snapshot: NodeFileSnapshot): (row: Owned) => { pid: number | null; comm: string | null } {
  const members = membersByNumber(snapshot)
  return (row) => {
    const member = members.get(`${row.job}/${row.member}`)
    return { pid: member?.processId ?? null, comm: member?.name ?? null }
  }
}

function inspectSessions(snapshot: NodeFileSnapshot): InspectRow[] {
  const jobs = jobNames(snapshot)
  return snapshot.rows('members').map((row) => ({
    noun: 'session',
    fields: {
      member: row.member,
      pid: row.processId,
      comm: row.name,
      state: memberStateNames[row.state] ?? String(row.state),
      job: jobs.get(row.job) ?? String(row.job),
      queuePairs: row.queuePairs,
      regions: row.regions,
      registeredBytes: row.registeredByteLength,
    },
    details: {
      generation: row.generation,
      uid: row.userId,
      attachedMs: Math.round(snapshot.takenTimeMs - row.attachedTimeMs),
    },
  }))
}

const queuePairTypeName = (type: number): string => (type === queuePairType.datagram ? 'datagram' : 'connected')

function inspectQueuePairs(snapshot: NodeFileSnapshot): InspectRow[] {
  const owner = ownerOf(snapshot)
  const shared = new Map(snapshot.rows('sharedQueuePairs').map((row) => [row.index, row.providerNumber]))
  return snapshot.rows('queuePairs').map((row) => ({
    noun: 'qp',
    fields: {
      number: row.index,
      type: queuePairTypeName(row.type),
      ...owner(row),
      // The provider's queue pair that carries it; none between processes of this node.
      lqpn: row.peerNode === '' ? null : (shared.get(row.lane) ?? null),
      peer: row.peerNode === '' ? null : `${row.peerNode}/${row.peerNumber}`,
      messagesSent: row.messagesSent,
      messagesReceived: row.messagesReceived,
    },
    details: {
      generation: row.generation,
      peerGeneration: row.peerNode === '' ? null : row.peerGeneration,
      sendCq: row.sendCompletionQueue,
      receiveCq: row.receiveCompletionQueue,
      sendSlots: row.sendSlots,
      receiveSlots: row.receiveSlots,
      bytesSent: row.bytesSent,
      bytesReceived: row.bytesReceived,
      segmentBytes: row.segmentByteLength,
    },
  }))
}

function inspectSharedQueuePairs(snapshot: NodeFileSnapshot): InspectRow[] {
  const jobs = jobNames(snapshot)
  const peers = new Map(snapshot.rows('peers').map((peer) => [peer.index, peer.node]))
  return snapshot.rows('sharedQueuePairs').map((row) => ({
    noun: 'shared-qp',
    fields: {
      link: `${snapshot.header.device || snapshot.header.provider}/${row.lane}`,
      lqpn: row.providerNumber,
      rqpn: row.remoteNumber,
      type: 'RC',
      state: laneStateNames[row.state] ?? String(row.state),
      peer: peers.get(row.peer) ?? String(row.peer),
      job: jobs.get(row.job) ?? String(row.job),
      queuePairs: row.queuePairs,
    },
    details: {
      incarnation: row.incarnation,
      trafficClass: row.trafficClass,
      credit: row.credit,
      bounceBuffers: row.bounceBuffers,
      postedBytes: row.postedBytes,
      framesSent: row.framesSent,
      framesReceived: row.framesReceived,
      bytesSent: row.bytesSent,
      bytesReceived: row.bytesReceived,
    },
  }))
}

const remoteRights = [
  ['remote-read', regionRight.remoteRead],
  ['remote-write', regionRight.remoteWrite],
  ['remote-atomic', regionRight.remoteAtomic],
] as const

function rightsText(rights: number): string {
  const names = remoteRights.filter(([, bit]) => (rights & bit) !== 0).map(([name]) => name)
  return names.length === 0 ? 'local' : names.join(',')
}

function inspectRegions(snapshot: NodeFileSnapshot): InspectRow[] {
  const owner = ownerOf(snapshot)
  return snapshot.rows('regions').map((row) => ({
    noun: 'mr',
    fields: { number: row.index, bytes: row.byteLength, rights: rightsText(row.rights), ...owner(row) },
    // Neither the key that clients use nor the device's is a secret worth keeping, but nobody needs them here either.
    details: { generation: row.generation, segmentInode: row.segmentInode },
  }))
}

function inspectCompletionQueues(snapshot: NodeFileSnapshot): InspectRow[] {
  const owner = ownerOf(snapshot)
  return snapshot.rows('completionQueues').map((row) => ({
    noun: 'cq',
    fields: { number: row.index, capacity: row.capacity, completions: row.completions, ...owner(row) },
    details: { generation: row.generation },
  }))
}

function inspectPeers(snapshot: NodeFileSnapshot): InspectRow[] {
  return snapshot
    .rows('peers')
    .filter((row) => row.node !== snapshot.header.node)
    .map((row) => ({
      noun: 'peer',
      fields: {
        node: row.node,
        state: peerStateNames[row.state] ?? String(row.state),
        address: row.address,
        lanes: row.lanes,
        failures: row.failures,
        heardMs: row.heardTimeMs === 0 ? null : Math.round(Math.max(0, snapshot.takenTimeMs - row.heardTimeMs)),
      },
      details: { epoch: row.epoch, connectedMs: agoMs(snapshot, row.connectedTimeMs) },
    }))
}

const agoMs = (snapshot: NodeFileSnapshot, timeMs: number): number | null =>
  timeMs === 0 ? null : Math.round(Math.max(0, snapshot.takenTimeMs - timeMs))

function inspectCounters(snapshot: NodeFileSnapshot): InspectRow[] {
  const counters = snapshot.counters()
  return counterNames.map((name: CounterName) => ({ noun: 'counter', fields: { name, value: counters[name] } }))
}

function inspectErrors(snapshot: NodeFileSnapshot): InspectRow[] {
  return snapshot.rows('errors').map((row) => ({
    noun: 'error',
    fields: {
      code: row.code,
      count: row.count,
      lastMs: agoMs(snapshot, row.lastTimeMs),
      firstMs: agoMs(snapshot, row.firstTimeMs),
      message: row.message,
    },
  }))
}

function inspectEvents(snapshot: NodeFileSnapshot): InspectRow[] {
  return snapshot
    .rows('events')
    .sort((a, b) => a.sequence - b.sequence)
    .map((row) => ({
      noun: 'event',
      fields: {
        time: new Date(row.timeMs).toISOString(),
        kind: row.kind,
        message: row.message,
      },
      details: { sequence: row.sequence },
    }))
}
