/**
 * The overview: that the broker works, and that sharing does. Its rows are for one look at a terminal of 80 columns.
 *
 * What an unshared design would hold on this node: one provider queue pair for each connected queue pair, counted here and now. For a
 * job that connects every process with every remote one that is (N-1)·P², N nodes and P processes on each, which is shown with the
 * numbers known here: this node and the peers it is connected to, and the processes on this node.
 */
import { laneStateNames, memberStateNames, peerStateNames } from '../../protocol/node-file.js'
import type { InspectRow } from './inspect-row.js'
import type { NodeFileSnapshot, Row } from './node-file-reader.js'

export interface Sharing {
  readonly processes: number
  readonly sessions: number
  readonly queuePairs: number
  /** Queue pairs connected to other nodes. */
  readonly remoteQueuePairs: number
  readonly sharedQueuePairs: number
  readonly unsharedQueuePairs: number
  readonly nodes: number
  /** (N-1)·P². */
  readonly unsharedByFormula: number
  readonly peers: readonly PeerSharing[]
}

export interface PeerSharing {
  readonly node: string
  readonly state: string
  readonly queuePairs: number
  readonly sharedQueuePairs: number
}

const isUp = (row: Row<'sharedQueuePairs'>): boolean => laneStateNames[row.state] === 'up'
const isConnected = (row: Row<'peers'>): boolean => peerStateNames[row.state] === 'connected'

export function sharingOf(snapshot: NodeFileSnapshot): Sharing {
  const here = snapshot.header.node
  const living = snapshot.rows('members').filter((row) => memberStateNames[row.state] === 'alive')
  const queuePairs = snapshot.rows('queuePairs')
  const remote = queuePairs.filter((row) => row.peerNode !== '' && row.peerNode !== here)
  const shared = snapshot.rows('sharedQueuePairs').filter(isUp)
  const peers = snapshot.rows('peers').filter((row) => row.node !== here)
  const processes = new Set(living.map((row) => row.processId)).size
  const nodes = 1 + peers.filter(isConnected).length
  return {
    processes,
    sessions: living.length,
    queuePairs: queuePairs.length,
    remoteQueuePairs: remote.length,
    sharedQueuePairs: shared.length,
    unsharedQueuePairs: remote.length,
    nodes,
    unsharedByFormula: (nodes - 1) * processes ** 2,
    peers: peers.map((peer) => ({
      node: peer.node,
      state: peerStateNames[peer.state] ?? String(peer.state),
      queuePairs: remote.filter((row) => row.peerNode === peer.node).length,
      sharedQueuePairs: shared.filter((row) => row.peer === peer.index).length,
    })),
  }
}

export function inspectOverview(snapshot: NodeFileSnapshot): InspectRow[] {
  const { header } = snapshot
  const sharing = sharingOf(snapshot)
  const counters = snapshot.counters()
  const seconds = (durationMs: number): string => `${(Math.max(0, durationMs) / 1000).toFixed(1)}s`
  return [
    {
      noun: 'broker',
      fields: {
        node: header.node,
        state: snapshot.life,
        pid: header.processId,
        epoch: header.epoch,
        uptime: seconds(snapshot.takenTimeMs - header.startedTimeMs),
        heartbeat: seconds(snapshot.heartbeatAgeMs),
      },
      details: { engineTurns: header.engineTurns, bootId: header.bootId, nodeId: header.nodeId },
    },
    {
      noun: 'provider',
      fields: { name: header.provider, device: header.device, link: header.linkAddress || null, lanes: header.lanes },
    },
    {
      noun: 'sharing',
      fields: {
        processes: sharing.processes,
        queuePairs: sharing.queuePairs,
        sharedQueuePairs: sharing.sharedQueuePairs,
        unshared: sharing.unsharedQueuePairs,
      },
    },
    {
      noun: 'formula',
      fields: {
        nodes: sharing.nodes,
        processes: sharing.processes,
        unshared: sharing.unsharedByFormula,
        by: '(N-1)*P^2',
      },
    },
    ...sharing.peers.map((peer) => ({
      noun: 'peer',
      fields: {
        node: peer.node,
        state: peer.state,
        queuePairs: peer.queuePairs,
        sharedQueuePairs: peer.sharedQueuePairs,
        unshared: peer.queuePairs,
      },
    })),
    { noun: 'sent', fields: { messages: counters['messages-sent'], bytes: counters['bytes-sent'] } },
    { noun: 'received', fields: { messages: counters['messages-received'], bytes: counters['bytes-received'] } },
    {
      noun: 'trouble',
      fields: {
        errorCompletions: counters['completions-error'],
        laneFailures: counters['lane-failures'],
        sessionsDied: counters['sessions-died'],
        distinctErrors: snapshot.rows('errors').length,
      },
    },
  ]
}
