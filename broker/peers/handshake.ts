/**
 * The start of a link, the same on both ends:
 *
 *   both   ── hello ──►        version, features, identity are compared; a mismatch ends it, named on both sides
 *   higher ── welcome ──►      proves the cluster key over both nonces
 *   lower  ── welcome ──►      proves it too, and decides: the broker with the lower node id says which link lives
 *
 * One side decides, so when both dial at once, both cannot keep different links. A side sends its welcome only after it has fenced
 * an older life of the other (`fence`), so a link never starts beside lanes of a broker that is gone.
 */
import { SharedVerbsError } from '../../protocol/errors.js'
import type { LinkMessage } from '../../protocol/link.js'
import type { Clock, Timer } from '../control/clock.js'
import { findMismatch, type Hello, type LinkIdentity, makeHello, type Refusal, refusalError } from './hello.js'
import type { LinkConnection } from './link-connection.js'
import { createNonce, linkProof, sameProof } from './link-security.js'

export interface HandshakeOptions {
  readonly connection: LinkConnection
  readonly identity: LinkIdentity
  readonly clusterKey: string
  /** The node that was dialled, null for somebody who dialled us. */
  readonly expected: string | null
  readonly clock: Clock
  /** The other side said who it is. Returns why it is not wanted, or null. */
  onHello(hello: Hello): Refusal | null
  /** Settles when nothing of an older life of this peer is left. */
  fence(hello: Hello): Promise<void>
  /** This side decides, and the other has proven itself: answer by `accept` or `close`, now or later. */
  onDecision(): void
  onEstablished(): void
  /** Once, if it comes to nothing; null = the other side simply went. */
  onFailed(failure: SharedVerbsError | null): void
  /** Messages after the handshake. */
  onMessage(message: LinkMessage): void
  /** The end of an established link. */
  onEnd(failure: SharedVerbsError | null): void
}

const HANDSHAKE_TIMEOUT_MS = 5000

type Stage = 'hello' | 'welcome' | 'deciding' | 'established' | 'over'

export class Handshake {
  readonly connection: LinkConnection
  readonly mine: Hello
  #yours: Hello | null = null
  #stage: Stage = 'hello'
  readonly #options: HandshakeOptions
  readonly #timer: Timer

  constructor(options: HandshakeOptions) {
    this.#options = options
    this.connection = options.connection
    this.mine = makeHello(options.identity, createNonce())
    const late = (): void => this.#fail(new SharedVerbsError('peer-unreachable', 'the other broker did not answer'))
    this.#timer = options.clock.after(HANDSHAKE_TIMEOUT_MS, late)
    options.connection.start({
      onMessage: (message) => this.#receive(message),
      onEnd: (failure) => this.#ended(failure),
    })
    options.connection.send('hello', this.mine)
  }

  /** Throws before the other side's hello has come. */
  get yours(): Hello {
    if (!this.#yours) throw new Error('the other broker has not said hello')
    return this.#yours
  }

  get pending(): boolean {
    return this.#stage !== 'established' && this.#stage !== 'over'
  }

  /** Lanes that both sides want. */
  get lanes(): number {
    return Math.min(this.mine.lanes, this.yours.lanes)
  }

  /** The lower node id decides, and opens lanes. */
  get decides(): boolean {
    return this.mine.nodeId < this.yours.nodeId
  }

  /** The decision for this link; the side that does not decide hears it as the last welcome. */
  async accept(): Promise<void> {
    if (this.#stage !== 'deciding') return
    await this.#options.fence(this.yours)
    if (this.#stage !== 'deciding') return
    this.#sendWelcome()
    this.#establish()
  }

  /** Ends it without blame, before or after it was established. */
  close(): void {
    this.#timer.cancel()
    this.#stage = 'over'
    this.connection.close()
  }

  #receive(message: LinkMessage): void {
    if (this.#stage === 'over') return
    if (this.#stage === 'established') this.#options.onMessage(message)
    else if (message.name === 'refused') this.#refused(message.body)
    else if (message.name === 'goodbye') this.#fail(null)
    else if (message.name === 'hello' && this.#stage === 'hello') this.#hello(message.body)
    else if (message.name === 'welcome' && this.#stage === 'welcome') this.#welcome(message.body.proof)
    else this.#violated(message.name)
  }

  #violated(name: string): void {
    this.#fail(new SharedVerbsError('protocol-violation', `${name} came in the middle of a handshake`))
  }

  #hello(hello: Hello): void {
    this.#yours = hello
    const refusal = findMismatch(this.mine, hello, this.#options.expected) ?? this.#options.onHello(hello)
    if (refusal) {
      this.#refuse(refusal)
      return
    }
    this.#stage = 'welcome'
    if (this.decides) return
    void this.#options.fence(hello).then(() => {
      if (this.#stage === 'welcome') this.#sendWelcome()
    })
  }

  #welcome(proof: string): void {
    const nonces = { prover: this.yours.nonce, verifier: this.mine.nonce }
    const expected = linkProof(this.#options.clusterKey, nonces, this.yours.nodeId)
    if (!sameProof(expected, proof)) {
      this.#refuse({ code: 'wrong-cluster-key', field: 'proof', mine: 'another key', yours: 'another key' })
    } else if (this.decides) {
      this.#stage = 'deciding'
      this.#options.onDecision()
    } else this.#establish()
  }

  #sendWelcome(): void {
    const nonces = { prover: this.mine.nonce, verifier: this.yours.nonce }
    this.connection.send('welcome', { proof: linkProof(this.#options.clusterKey, nonces, this.mine.nodeId) })
  }

  #establish(): void {
    this.#timer.cancel()
    this.#stage = 'established'
    this.#options.onEstablished()
  }

  #refuse(refusal: Refusal): void {
    this.connection.send('refused', refusal)
    this.#fail(refusalError(refusal, this.yours.node, true))
  }

  #refused(refusal: Refusal): void {
    this.#fail(refusalError(refusal, this.#yours?.node ?? this.#options.expected ?? 'unknown', false))
  }

  #fail(failure: SharedVerbsError | null): void {
    if (this.#stage === 'over') return
    this.#timer.cancel()
    this.#stage = 'over'
    this.connection.close()
    this.#options.onFailed(failure)
  }

  #ended(failure: SharedVerbsError | null): void {
    const before = this.#stage
    this.#timer.cancel()
    this.#stage = 'over'
    if (before === 'established') this.#options.onEnd(failure)
    else if (before !== 'over') this.#options.onFailed(failure)
  }
}
