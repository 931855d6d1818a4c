/** The link layer of one node without the rest of a broker. */
import { openSync } from 'node:fs'
import { systemClock } from '../../../broker/control/clock.js'
import { BrokerPage } from '../../../broker/observe/broker-page.js'
import { createLogger } from '../../../broker/observe/logger.js'
import { NodeFile } from '../../../broker/observe/node-file.js'
import { Observer } from '../../../broker/observe/observer.js'
import { createNodeId } from '../../../broker/peers/link-security.js'
import type { Peer } from '../../../broker/peers/peer.js'
import { Peers, type PeersOptions } from '../../../broker/peers/peers.js'
import { closeDescriptor, eventfdCreate } from '../../../shm/libc.js'
import { type Scope, temporaryDirectory } from '../../support/temporary-directory.js'

export interface PeerNode {
  readonly peers: Peers
  readonly nodeId: string
  readonly observer: Observer
  port: number
  /** Lives of peers that ended, with the reason. */
  readonly lost: string[]
}

/** Parts that outlast a node's life, so that many lives cost little. */
export interface PeerGround {
  readonly nodeFile: NodeFile
  readonly page: BrokerPage
  readonly doorbell: number
}

export function peerGround(scope: Scope, node: string): PeerGround {
  const path = `${temporaryDirectory(scope)}/node`
  const fd = openSync(path, 'w+')
  const identity = { node, bootId: 'boot', processId: process.pid, freshNodeId: createNodeId(), freshGeneration: 1 }
  const nodeFile = NodeFile.open(fd, { ...identity, wallTimeMs: () => Date.now() })
  const page = new BrokerPage({ node, epoch: 1, wallTimeMs: () => Date.now() })
  const doorbell = eventfdCreate()
  scope.teardown(() => {
    nodeFile.close()
    page.close()
    closeDescriptor(doorbell)
  })
  return { nodeFile, page, doorbell }
}

export async function startPeerNode(
  scope: Scope,
  ground: PeerGround,
  node: string,
  options: Partial<PeersOptions> & { readonly nodeId?: string; readonly epoch?: number } = {},
): Promise<PeerNode> {
  const { nodeId = createNodeId(), epoch = 1, ...given } = options
  const identity = { node, nodeId, bootId: 'boot', epoch, provider: 'soft', lanes: 1, sharing: 'job' } as const
  const observer = new Observer(createLogger({ level: 'silent' }, node), ground.nodeFile)
  const lost: string[] = []
  const peers = new Peers(
    {
      identity,
      clusterKey: 'cluster',
      host: '127.0.0.1',
      port: 0,
      peers: {},
      peersFile: null,
      clock: systemClock,
      random: Math.random,
      observer,
      ...ground,
      findJob: () => undefined,
      isAwaited: () => false,
      ...given,
    },
    {
      onLink: () => {},
      onLinkLost: () => {},
      onPeerLost: (peer: Peer, reason: string) => {
        lost.push(`${peer.node}: ${reason}`)
        return Promise.resolve()
      },
      onMessage: () => {},
      onDomainChanged: () => {},
      onDomainClosed: () => {},
      isNeeded: () => true,
    },
  )
  scope.teardown(() => peers.close())
  return { peers, nodeId, observer, port: await peers.listen(), lost }
}
