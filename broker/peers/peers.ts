/**
 * All other nodes this broker knows: by what it was told, or because they called. Dials, answers, keeps one link to each, and
 * judges by heartbeats who lives.
 *
 * Both may dial at once. The broker with the lower node id decides: it prefers its own call and holds the peer's until that one is
 * decided, so one link lives; if only the peer's way is passable, the held call is taken after a moment.
 */
import type { TLSSocket } from 'node:tls'
import { SharedVerbsError } from '../../protocol/errors.js'
import type { LinkMessage, LinkMessageBody } from '../../protocol/link.js'
import { eventfdSignal } from '../../shm/libc.js'
import type { Clock, Timer } from '../control/clock.js'
import type { BrokerPage } from '../observe/broker-page.js'
import type { NodeFile } from '../observe/node-file.js'
import type { Observer } from '../observe/observer.js'
import type { Job, JobIdentity } from '../sessions/job.js'
import { tableFull } from '../sessions/object-services.js'
import { Domains } from './domains.js'
import { Handshake, type HandshakeOptions } from './handshake.js'
import { heartbeatTimes, judge } from './heartbeat.js'
import type { Hello, LinkIdentity, Refusal } from './hello.js'
import { LinkConnection } from './link-connection.js'
import { dialLink } from './link-dialler.js'
import { LinkServer, type LinkServerOptions } from './link-server.js'
import { type Link, Peer, peerState } from './peer.js'
import { PeerAddresses, parseAddress, printAddress } from './peer-addresses.js'

export interface PeersOptions {
  /** The port is known when the link port is open. */
  readonly identity: Omit<LinkIdentity, 'port'>
  readonly clusterKey: string
  readonly host: string
  readonly port: number
  readonly peers: Readonly<Record<string, string>>
  readonly peersFile: string | null
  readonly clock: Clock
  readonly random: () => number
  readonly observer: Observer
  readonly nodeFile: NodeFile
  readonly page: BrokerPage
  /** The engine's doorbell: rung before each heartbeat. */
  readonly doorbell: number
  findJob(identity: JobIdentity): Job | undefined
  /** An earlier broker of this node left the job, and whether it goes on is not known yet. */
  isAwaited(identity: JobIdentity): boolean
}

/** What the lanes need to hear. */
export interface PeersListener {
  /** A link to the peer was established. */
  onLink(peer: Peer): void
  /** The link is gone; it may come back. */
  onLinkLost(peer: Peer): void
  /** The peer as it was is gone, with `forGood` also what it had: settles when nothing of it is left. */
  onPeerLost(peer: Peer, reason: string, forGood: boolean): Promise<void>
  onMessage(peer: Peer, message: LinkMessage): void
  /** A job was opened, or refused: lanes may come, also where no connect waits for them. */
  onDomainChanged(peer: Peer): void
  onDomainClosed(peer: Peer, job: Job): void
  isNeeded(peer: Peer): boolean
}

/** How long the deciding side waits for its own call before it takes the peer's. */
const HOLD_MS = 1000
const PORT_ATTEMPTS = 100
const PORT_PAUSE_MS = 20

export class Peers {
  readonly #options: PeersOptions
  readonly #listener: PeersListener
  readonly #addresses: PeerAddresses
  readonly #byName = new Map<string, Peer>()
  readonly #handshakes = new Set<Handshake>()
  #server: LinkServer | null = null
  #timer: Timer | null = null
  #stopped = false
  #port = 0

  constructor(options: PeersOptions, listener: PeersListener) {
    this.#options = options
    this.#listener = listener
    this.#addresses = new PeerAddresses(options.peers, options.peersFile)
    const { nodeFile, page, identity } = options
    nodeFile.peers.hold(0)
    nodeFile.peers.fill(0, { ...emptyRow, state: peerState.connected, epoch: identity.epoch, node: identity.node })
    page.nameNode(0, identity.node)
    this.#adopt()
  }

  /** Peers that an earlier broker of this node knew keep their numbers, which clients hold. */
  #adopt(): void {
    const { nodeFile } = this.#options
    for (const row of nodeFile.peers.inUse()) {
      if (row === 0) continue
      const { node, address } = nodeFile.peers.read(row)
      const peer = this.#make(row, node)
      peer.wasConnected = true
      nodeFile.peers.write(row, { state: peerState.lost })
      if (address !== '') this.#addresses.learn(node, parseAddress(address, node))
    }
  }

  /** Opens the link port; without a cluster key there is none, and 0 is returned. */
  async listen(): Promise<number> {
    const { host, port, clusterKey, observer, clock } = this.#options
    this.#timer = clock.every(heartbeatTimes.periodMs, () => this.#beat())
    if (clusterKey === '') return 0
    this.#server = await this.#listen({
      host,
      port,
      clusterKey,
      onConnection: (socket) => this.#called(socket),
      onRefusal: (error) => {
        observer.count('link-refusals')
        observer.report(error, 'link port')
      },
    })
    this.#port = this.#server.port
    return this.#port
  }

  /** A predecessor that was killed gives up the node file's lock a moment before its port. */
  async #listen(options: LinkServerOptions): Promise<LinkServer> {
    const { nodeFile, clock } = this.#options
    for (let attempt = 0; ; attempt++) {
      try {
        return await LinkServer.listen(options)
      } catch (error) {
        const inUse = error instanceof SharedVerbsError && error.code === 'port-in-use'
        if (!inUse || !nodeFile.adopted || attempt >= PORT_ATTEMPTS) throw error
      }
      await new Promise<void>((resolve) => clock.after(PORT_PAUSE_MS, resolve))
    }
  }

  get all(): Peer[] {
    return [...this.#byName.values()]
  }

  byRow(row: number): Peer | undefined {
    return this.all.find((peer) => peer.row === row)
  }

  setAddress(name: string, address: string): void {
    this.#addresses.set(name, address)
  }

  /** The peer of that name, known from now on. Throws `invalid-argument` without a cluster key, `limit-exceeded`. */
  get(node: string): Peer {
    if (this.#options.clusterKey === '') {
      const message = `this broker was started without a cluster key, so it cannot reach node ${node}; give it the key of the cluster`
      throw new SharedVerbsError('invalid-argument', message, { node })
    }
    const known = this.#byName.get(node)
    if (known) return known
    const { nodeFile } = this.#options
    const row = nodeFile.peers.reserve()
    if (row === undefined) throw tableFull('peers', nodeFile.peers.rows)
    nodeFile.peers.fill(row, { ...emptyRow, state: peerState.lost, node })
    return this.#make(row, node)
  }

  #make(row: number, node: string): Peer {
    const { page, clock, random } = this.#options
    const peer = new Peer(row, node, {
      clock,
      random,
      dial: (of) => this.#dial(of),
      isNeeded: (of) => !this.#stopped && this.#listener.isNeeded(of),
      show: (of, state) => this.#show(of, state),
    })
    page.nameNode(row, node)
    this.#byName.set(node, peer)
    return peer
  }

  /** A name that somebody asked for in vain takes no row. */
  forgetStranger(peer: Peer): void {
    if (peer.wasConnected || peer.link || peer.held || this.#listener.isNeeded(peer)) return
    if (this.#byName.get(peer.node) !== peer) return
    this.#byName.delete(peer.node)
    if (peer.dialled) this.#handshakes.delete(peer.dialled)
    peer.close()
    this.#options.nodeFile.peers.free(peer.row)
  }

  /** A job got its first member. */
  jobAppeared(job: Job): void {
    for (const peer of this.all) peer.link?.domains.appeared(job)
  }

  /** What becomes of a job that an earlier broker left is known: whoever asked for it is answered. */
  jobSettled(identity: JobIdentity): void {
    for (const peer of this.all) peer.link?.domains.settled(identity)
  }

  jobEnded(job: Job): void {
    for (const peer of this.all) peer.link?.domains.ended(job)
  }

  /** The last words to everybody; links stay open until `close`. */
  sayGoodbye(kind: 'stop' | 'handover', reason: string): void {
    this.#stopped = true
    this.#server?.stopListening()
    for (const peer of this.all) peer.send('goodbye', { kind, reason })
  }

  /** May be repeated. */
  close(): void {
    this.#stopped = true
    this.#timer?.cancel()
    for (const peer of this.all) peer.close()
    for (const handshake of [...this.#handshakes]) handshake.close()
    this.#server?.stopListening()
  }

  #called(socket: TLSSocket): void {
    const connection = new LinkConnection(socket, false)
    if (this.#stopped) connection.close()
    else this.#shake(connection, null)
  }

  #dial(peer: Peer): void {
    try {
      const address = this.#addresses.find(peer.node)
      this.#options.nodeFile.peers.write(peer.row, { address: printAddress(address) })
      const connection = new LinkConnection(dialLink(address, this.#options.clusterKey), true)
      peer.dialled = this.#shake(connection, peer)
    } catch (error) {
      this.#dialFailed(peer, error instanceof SharedVerbsError ? error : null)
    }
  }

  /** `dialled` is the peer that was called; who called us says so in its hello. */
  #shake(connection: LinkConnection, dialled: Peer | null): Handshake {
    let peer = dialled
    const options: HandshakeOptions = {
      connection,
      identity: { ...this.#options.identity, port: this.#port },
      clusterKey: this.#options.clusterKey,
      clock: this.#options.clock,
      expected: dialled?.node ?? null,
      onHello: (hello) => {
        const found = this.#identify(hello)
        if (found instanceof Peer) peer = found
        return found instanceof Peer ? this.#objection(found, hello) : found
      },
      fence: (hello) => (peer ? this.#fence(peer, hello) : Promise.resolve()),
      onDecision: () => peer && this.#decide(peer, handshake),
      onEstablished: () => peer && this.#established(peer, handshake),
      onFailed: (failure) => this.#handshakeFailed(peer, handshake, failure),
      onMessage: (message) => peer?.link?.handshake === handshake && this.#receive(peer, peer.link, message),
      onEnd: (failure) => peer && this.#linkEnded(peer, handshake, failure),
    }
    const handshake = new Handshake(options)
    this.#handshakes.add(handshake)
    return handshake
  }

  #identify(hello: Hello): Peer | Refusal {
    try {
      return this.get(hello.node)
    } catch (error) {
      const mine = error instanceof Error ? error.message.slice(0, 256) : ''
      return { code: 'peer-refused', field: 'node', mine, yours: hello.node }
    }
  }

  /** An older life of a node, or a stranger with the name of a node that lives, is not let in. */
  #objection(peer: Peer, hello: Hello): Refusal | null {
    const { life } = peer
    if (!life) return null
    const refuse = (field: string, mine: string | number, yours: string | number): Refusal => ({
      code: 'peer-refused',
      field,
      mine: String(mine),
      yours: String(yours),
    })
    if (life.nodeId === hello.nodeId) {
      return hello.epoch < life.epoch ? refuse('epoch', life.epoch, hello.epoch) : null
    }
    const lives = peer.link !== null && judge(peer.heardMs, this.#options.clock.nowMs()) === 'alive'
    return lives ? refuse('nodeId', life.nodeId, hello.nodeId) : null
  }

  /** Nothing of an older life may be left when a new one is let in. */
  #fence(peer: Peer, hello: Hello): Promise<void> {
    if (peer.life && !peer.isLife(hello)) {
      this.#options.observer.note('peer-restarted', `node ${peer.node} has a new life, epoch ${hello.epoch}`)
      // Another identity of the node: what the old one kept is not there any more.
      this.#endLife(peer, 'the peer has started again', peer.life.nodeId !== hello.nodeId)
    }
    return peer.fence
  }

  /** Only on the side with the lower node id. */
  #decide(peer: Peer, handshake: Handshake): void {
    const mayReplace = peer.link === null && (handshake === peer.dialled || peer.dialled === null)
    if (mayReplace) return void handshake.accept()
    // Either my own call is still under way, or the peer does not know of a link that I believe in.
    this.#dropHeld(peer)
    const take = (): void => {
      peer.held = null
      void handshake.accept()
    }
    peer.held = { handshake, timer: this.#options.clock.after(HOLD_MS, take) }
  }

  #established(peer: Peer, handshake: Handshake): void {
    const { observer, nodeFile, findJob, isAwaited } = this.#options
    this.#handshakes.delete(handshake)
    const before = peer.link
    const own = peer.dialled
    peer.dialled = null
    peer.link = null
    before?.handshake.close()
    if (before) this.#listener.onLinkLost(peer)
    if (own && own !== handshake) this.#abandon(own)
    this.#dropHeld(peer)
    const { nodeId, epoch } = handshake.yours
    peer.life = { nodeId, epoch }
    peer.wasConnected = true
    const domains = new Domains({
      link: handshake,
      node: peer.node,
      find: findJob,
      isAwaited,
      onChange: () => {
        peer.condition.notify()
        this.#listener.onDomainChanged(peer)
      },
      onClosed: (job) => this.#listener.onDomainClosed(peer, job),
    })
    peer.connected({ handshake, domains, lanes: handshake.lanes })
    const times = { connectedTimeMs: this.#options.clock.wallTimeMs(), heardTimeMs: this.#options.clock.wallTimeMs() }
    const address = this.#learnAddress(peer, handshake)
    nodeFile.peers.write(peer.row, { epoch, lanes: handshake.lanes, ...times, ...address })
    observer.count('link-connects')
    observer.note('link-up', `node ${peer.node}, epoch ${epoch}, ${handshake.lanes} lanes`)
    this.#listener.onLink(peer)
  }

  /** The port from which a peer calls is nowhere to call it: where it listens it says itself. */
  #learnAddress(peer: Peer, { connection, yours }: Handshake): { readonly address?: string } {
    const address = { host: connection.remoteHost, port: yours.port }
    if (connection.dialled || address.port === 0 || address.host === '') return {}
    this.#addresses.learn(peer.node, address)
    return { address: printAddress(address) }
  }

  #handshakeFailed(peer: Peer | null, handshake: Handshake, failure: SharedVerbsError | null): void {
    this.#handshakes.delete(handshake)
    if (failure) this.#countFailure(failure, peer?.node ?? handshake.connection.remoteAddress)
    if (!peer) return
    if (peer.held?.handshake === handshake) {
      peer.held.timer.cancel()
      peer.held = null
    }
    if (peer.dialled === handshake) this.#dialFailed(peer, failure)
    else this.forgetStranger(peer)
  }

  #dialFailed(peer: Peer, failure: SharedVerbsError | null): void {
    peer.dialled = null
    const { held } = peer
    if (held) {
      // My own way is not passable: the peer's is taken at once.
      held.timer.cancel()
      peer.held = null
      peer.dialling = false
      void held.handshake.accept()
      return
    }
    const closed = new SharedVerbsError('peer-unreachable', `node ${peer.node} ended the call`, { node: peer.node })
    peer.failed(unreachable(peer, failure ?? closed, this.#addresses))
  }

  #linkEnded(peer: Peer, handshake: Handshake, failure: SharedVerbsError | null): void {
    if (peer.link?.handshake !== handshake) return
    peer.link = null
    const { observer } = this.#options
    observer.note('link-down', `node ${peer.node}: ${failure?.message ?? 'closed by the peer'}`)
    if (failure) this.#countFailure(failure, peer.node)
    this.#listener.onLinkLost(peer)
    peer.failed(failure)
  }

  #receive(peer: Peer, link: Link, message: LinkMessage): void {
    switch (message.name) {
      case 'domain-open':
        link.domains.asked(message.body)
        break
      case 'domain-opened':
        link.domains.opened(message.body)
        break
      case 'domain-refused':
        link.domains.refused(message.body)
        break
      case 'domain-closed':
        link.domains.closed(message.body)
        break
      case 'heartbeat':
        this.#heard(peer, message.body.engineTurns)
        break
      case 'goodbye':
        this.#saidGoodbye(peer, message.body)
        break
      case 'hello':
      case 'welcome':
      case 'refused':
        this.#nonsense(peer, message.name)
        break
      default:
        this.#listener.onMessage(peer, message)
    }
  }

  #nonsense(peer: Peer, name: string): void {
    const message = `node ${peer.node} sent ${name} on an established link`
    this.#options.observer.report(new SharedVerbsError('protocol-violation', message, { node: peer.node }), peer.node)
    peer.link?.handshake.connection.close()
  }

  #saidGoodbye(peer: Peer, { kind, reason }: LinkMessageBody<'goodbye'>): void {
    this.#options.observer.note(kind === 'stop' ? 'peer-stopped' : 'peer-handed-over', `node ${peer.node}: ${reason}`)
    this.#endLife(peer, kind === 'stop' ? 'the peer has stopped' : 'the peer hands over', kind === 'stop')
  }

  #heard(peer: Peer, engineTurns: number): void {
    peer.heard(engineTurns)
    this.#options.nodeFile.peers.write(peer.row, { heardTimeMs: this.#options.clock.wallTimeMs() })
  }

  #beat(): void {
    const { doorbell, observer } = this.#options
    // The turns told are those until now; the ring makes sure that there will be another before the next beat.
    const engineTurns = observer.counters.value('engine-turns')
    if (this.all.some((peer) => peer.link)) eventfdSignal(doorbell)
    for (const peer of this.all) {
      peer.send('heartbeat', { engineTurns, echo: Math.max(0, peer.peerTurns) })
      this.#judge(peer)
    }
  }

  #judge(peer: Peer): void {
    if (!peer.life) return
    const verdict = judge(peer.heardMs, this.#options.clock.nowMs())
    if (verdict === 'suspect' && !peer.suspected) {
      peer.suspected = true
      this.#options.observer.note(
        'peer-suspected',
        `node ${peer.node} was not heard for ${heartbeatTimes.suspectMs} ms`,
      )
    }
    if (verdict !== 'dead') return
    this.#options.observer.note('peer-dead', `node ${peer.node} was not heard for ${heartbeatTimes.deadMs} ms`)
    this.#endLife(peer, `no heartbeat for ${heartbeatTimes.deadMs} ms`, false)
  }

  /** The link, if there is one, and everything that hung on this life of the peer. */
  #endLife(peer: Peer, reason: string, forGood: boolean): void {
    const { link } = peer
    peer.link = null
    peer.life = null
    link?.handshake.close()
    if (link) this.#listener.onLinkLost(peer)
    peer.fence = Promise.all([peer.fence, this.#listener.onPeerLost(peer, reason, forGood)]).then(
      () => undefined,
      (error) => this.#options.observer.report(error, `the end of node ${peer.node}`),
    )
    peer.failed(null)
  }

  #abandon(handshake: Handshake): void {
    this.#handshakes.delete(handshake)
    handshake.close()
  }

  #dropHeld(peer: Peer): void {
    if (!peer.held) return
    peer.held.timer.cancel()
    this.#abandon(peer.held.handshake)
    peer.held = null
  }

  #countFailure(failure: SharedVerbsError, subject: string): void {
    const refused = failure.code === 'peer-refused' || failure.code === 'wrong-cluster-key'
    this.#options.observer.count(refused ? 'link-refusals' : 'link-failures')
    this.#options.observer.report(failure, subject)
  }

  #show(peer: Peer, state: number): void {
    // One that was forgotten meanwhile has no row any more.
    if (this.#byName.get(peer.node) !== peer) return
    this.#options.nodeFile.peers.write(peer.row, { state, failures: peer.failures })
  }
}

const emptyRow = {
  state: 0,
  epoch: 0,
  lanes: 0,
  failures: 0,
  connectedTimeMs: 0,
  heardTimeMs: 0,
  node: '',
  address: '',
}

/** Says who was called and where, and what would help. */
function unreachable(peer: Peer, failure: SharedVerbsError, addresses: PeerAddresses): SharedVerbsError {
  if (failure.code !== 'peer-unreachable') return failure
  const address = printAddress(addresses.find(peer.node))
  const { reason } = failure.context
  if (reason === 'ENOTFOUND' || reason === 'EAI_AGAIN') {
    const message = `node ${peer.node} is in no list of peers and no resolver knows it; add it to the broker's peers`
    return new SharedVerbsError('peer-unknown', message, { node: peer.node, reason })
  }
  const message = `node ${peer.node} at ${address} cannot be reached (${reason ?? failure.message}); is its broker running there?`
  return new SharedVerbsError('peer-unreachable', message, { node: peer.node, address, reason })
}
