import { createServer, type Server } from 'node:net'
import test from 'ava'
import type { Link } from '../../../broker/peers/peer.js'
import type { Scope } from '../../support/temporary-directory.js'
import { until } from '../../support/until.js'
import { type PeerNode, peerGround, startPeerNode } from './peer-node.js'

const watch = (what: string) => ({ timeoutMs: 10_000, what })
const linkOf = (from: PeerNode, to: string): Link | null => from.peers.all.find(({ node }) => node === to)?.link ?? null

/** Both ends are of the same connection. */
function sameLink(one: Link | null, other: Link | null): boolean {
  return one !== null && other !== null && one.handshake.mine.nonce === other.handshake.yours.nonce
}

async function linked(alpha: PeerNode, beta: PeerNode): Promise<void> {
  await until(() => sameLink(linkOf(alpha, 'beta'), linkOf(beta, 'alpha')), watch('one link at both ends'))
}

function introduce(alpha: PeerNode, beta: PeerNode): void {
  alpha.peers.setAddress('beta', `127.0.0.1:${beta.port}`)
  beta.peers.setAddress('alpha', `127.0.0.1:${alpha.port}`)
}

test.serial('both dial at once fifty times: one link, the one that the lower node id dialled', async (t) => {
  const grounds = [peerGround(t, 'alpha'), peerGround(t, 'beta')] as const
  for (let round = 0; round < 50; round++) {
    const alpha = await startPeerNode(t, grounds[0], 'alpha')
    const beta = await startPeerNode(t, grounds[1], 'beta')
    introduce(alpha, beta)
    const dial = [() => alpha.peers.get('beta').pursue(), () => beta.peers.get('alpha').pursue()]
    if (round % 2 === 1) dial.reverse()
    for (const one of dial) {
      one()
      // Sometimes the second begins a few turns of the loop later.
      for (let turn = 0; turn < round % 5; turn++) await new Promise((resolve) => setImmediate(resolve))
    }
    await linked(alpha, beta)
    const lower = alpha.nodeId < beta.nodeId ? linkOf(alpha, 'beta') : linkOf(beta, 'alpha')
    t.truthy(lower?.handshake.decides)
    t.is(alpha.peers.all.length + beta.peers.all.length, 2)
    alpha.peers.close()
    beta.peers.close()
  }
})

/** A port that takes connections and says nothing, as a firewall that swallows does. */
async function silentPort(scope: Scope): Promise<number> {
  const server: Server = createServer((socket) => {
    socket.on('error', () => {})
    scope.teardown(() => void socket.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  scope.teardown(() => void server.close())
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : 0
}

test.serial('where only one direction is passable, that one is used', async (t) => {
  const grounds = [peerGround(t, 'alpha'), peerGround(t, 'beta')] as const
  for (const lowerIsBlocked of [true, false]) {
    const ids = lowerIsBlocked ? ['00', 'ff'] : ['ff', '00']
    const alpha = await startPeerNode(t, grounds[0], 'alpha', { nodeId: ids[0]?.repeat(16) ?? '' })
    const beta = await startPeerNode(t, grounds[1], 'beta', { nodeId: ids[1]?.repeat(16) ?? '' })
    alpha.peers.setAddress('beta', `127.0.0.1:${await silentPort(t)}`)
    beta.peers.setAddress('alpha', `127.0.0.1:${alpha.port}`)
    alpha.peers.get('beta').pursue()
    beta.peers.get('alpha').pursue()
    await linked(alpha, beta)
    t.false(linkOf(alpha, 'beta')?.handshake.connection.dialled)
    alpha.peers.close()
    beta.peers.close()
  }
})

test.serial('a link that was cut is made again while somebody needs it', async (t) => {
  const alpha = await startPeerNode(t, peerGround(t, 'alpha'), 'alpha')
  const beta = await startPeerNode(t, peerGround(t, 'beta'), 'beta')
  introduce(alpha, beta)
  alpha.peers.get('beta').pursue()
  await linked(alpha, beta)
  const before = linkOf(alpha, 'beta')
  before?.handshake.connection.close()
  await until(() => linkOf(alpha, 'beta') !== before, watch('the end of the link'))
  await linked(alpha, beta)
  // The life of the peer went on: nothing was destroyed.
  t.deepEqual([...alpha.lost, ...beta.lost], [])
})

test.serial('a new life of a peer ends the old one first, an older one is refused', async (t) => {
  const alpha = await startPeerNode(t, peerGround(t, 'alpha'), 'alpha', { nodeId: '00'.repeat(16) })
  const ground = peerGround(t, 'beta')
  const nodeId = '11'.repeat(16)
  const lives = []
  for (const epoch of [5, 6, 4]) {
    const beta = await startPeerNode(t, ground, 'beta', { nodeId, epoch })
    beta.peers.setAddress('alpha', `127.0.0.1:${alpha.port}`)
    beta.peers.get('alpha').pursue()
    lives.push(beta)
    if (epoch !== 4) await linked(alpha, beta)
    else await until(() => beta.peers.get('alpha').failure !== null, watch('the refusal'))
  }
  t.deepEqual(alpha.lost, ['beta: the peer has started again'])
  t.is(linkOf(alpha, 'beta')?.handshake.yours.epoch, 6)
  const refused = lives[2]?.peers.get('alpha').failure?.error
  t.is(refused?.code, 'peer-refused')
  t.like(refused?.context, { field: 'epoch', mine: '4', yours: '6' })
})

test.serial('a stranger with the name of a living node is refused', async (t) => {
  const alpha = await startPeerNode(t, peerGround(t, 'alpha'), 'alpha')
  const beta = await startPeerNode(t, peerGround(t, 'beta'), 'beta')
  introduce(alpha, beta)
  alpha.peers.get('beta').pursue()
  await linked(alpha, beta)
  const stranger = await startPeerNode(t, peerGround(t, 'beta'), 'beta')
  stranger.peers.setAddress('alpha', `127.0.0.1:${alpha.port}`)
  const peer = stranger.peers.get('alpha')
  peer.pursue()
  await until(() => peer.failure !== null, watch('the refusal'))
  t.like(peer.failure?.error.context, { field: 'nodeId', mine: stranger.nodeId, yours: beta.nodeId })
  t.true(sameLink(linkOf(alpha, 'beta'), linkOf(beta, 'alpha')))
})

test.serial('failed attempts follow each other ever more slowly', async (t) => {
  const delays: number[] = []
  const clock = {
    nowMs: () => performance.now(),
    wallTimeMs: () => Date.now(),
    every: () => ({ cancel: () => {} }),
    after: (delayMs: number, action: () => void) => {
      // Handshakes wait longer than any back-off.
      if (delayMs > 5000 || delayMs === 5000) return { cancel: () => {} }
      delays.push(delayMs)
      const soon = setImmediate(action)
      return { cancel: () => clearImmediate(soon) }
    },
  }
  const alpha = await startPeerNode(t, peerGround(t, 'alpha'), 'alpha', { clock, random: () => 0.5 })
  alpha.peers.setAddress('beta', '127.0.0.1:1')
  alpha.peers.get('beta').pursue()
  await until(() => delays.length >= 8, watch('eight attempts'))
  t.deepEqual(delays.slice(0, 8), [75, 150, 300, 600, 1200, 2400, 3750, 3750])
})
