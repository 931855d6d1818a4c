/**
 * Another node: how to reach it, the link to it, and whether it lives. Lanes do not end with a link: a link may come back within
 * seconds. They end when the peer was not heard for ten seconds, said goodbye, or turned out to have a new life.
 *
 *   (nothing) ─ dial ─► dialling ─► connected ─┬─ link lost ─► lost ─ dial again while somebody needs it, with back-off
 *                          └─ refused          └─ goodbye, dead, new epoch ─► its lanes are destroyed
 */
import type { SharedVerbsError } from '../../protocol/errors.js'
import type { LinkMessage } from '../../protocol/link.js'
import type { Clock, Timer } from '../control/clock.js'
import { Condition } from '../control/condition.js'
import type { Domains } from './domains.js'
import type { Handshake } from './handshake.js'
import type { Hello } from './hello.js'

export const peerState = { free: 0, dialling: 1, connected: 2, lost: 3, refused: 4 } as const

/** An established link with what was agreed on it. */
export interface Link {
  readonly handshake: Handshake
  readonly domains: Domains
  readonly lanes: number
}

/** A life of a node. */
export interface PeerLife {
  readonly nodeId: string
  readonly epoch: number
}

export interface PeerPorts {
  readonly clock: Clock
  readonly random: () => number
  /** Starts one attempt; the outcome comes by `dialEnded`. */
  dial(peer: Peer): void
  /** Does anybody need a link to this peer now? */
  isNeeded(peer: Peer): boolean
  /** The row of the peer is to show this. */
  show(peer: Peer, state: number): void
}

const FIRST_BACKOFF_MS = 100
const LONGEST_BACKOFF_MS = 5000

export class Peer {
  readonly row: number
  readonly node: string
  readonly condition: Condition
  link: Link | null = null
  life: PeerLife | null = null
  /** Its index may have been handed out, so its row is its own for ever. */
  wasConnected = false
  /** My own attempt, until it is established or over. */
  dialled: Handshake | null = null
  /** An attempt of the peer that waits for the outcome of mine. */
  held: { readonly handshake: Handshake; readonly timer: Timer } | null = null
  dialling = false
  /** Why the last attempt failed, with a number that only grows, so that waiters see only what happened since they began. */
  failure: { readonly error: SharedVerbsError; readonly serial: number } | null = null
  failures = 0
  /** Settles when everything of the last life is gone. */
  fence: Promise<void> = Promise.resolve()
  /** When the peer's engine was last seen to move, monotonic. */
  heardMs = 0
  suspected = false
  peerTurns = -1
  #backoffMs = FIRST_BACKOFF_MS
  #retry: Timer | null = null
  readonly #ports: PeerPorts

  constructor(row: number, node: string, ports: PeerPorts) {
    this.row = row
    this.node = node
    this.#ports = ports
    this.condition = new Condition(ports.clock)
  }

  get failureSerial(): number {
    return this.failure?.serial ?? 0
  }

  isLife(hello: Hello): boolean {
    return this.life !== null && this.life.nodeId === hello.nodeId && this.life.epoch === hello.epoch
  }

  /** Sees to it that a link comes, unless it is coming already or the back-off forbids to try. */
  pursue(): void {
    if (this.link || this.dialling || this.held || this.#retry) return
    this.dialling = true
    this.#ports.show(this, peerState.dialling)
    this.#ports.dial(this)
  }

  /** A link was established, by whomever. */
  connected(link: Link): void {
    this.link = link
    this.dialling = false
    this.#backoffMs = FIRST_BACKOFF_MS
    this.#retry?.cancel()
    this.#retry = null
    this.heardMs = this.#ports.clock.nowMs()
    this.suspected = false
    this.peerTurns = -1
    this.#ports.show(this, peerState.connected)
    this.condition.notify()
  }

  /** An attempt or a link ended. Tries again after the back-off, if somebody still needs it. */
  failed(error: SharedVerbsError | null): void {
    this.dialling = false
    if (error) {
      this.failures++
      this.failure = { error, serial: this.failureSerial + 1 }
    }
    if (this.link) return
    const refused = error?.code === 'peer-refused' || error?.code === 'wrong-cluster-key'
    this.#ports.show(this, refused ? peerState.refused : peerState.lost)
    this.#retryLater()
    this.condition.notify()
  }

  /** A beat of the peer's heart: only an engine that moves counts as life. */
  heard(engineTurns: number): void {
    if (engineTurns === this.peerTurns) return
    this.peerTurns = engineTurns
    this.heardMs = this.#ports.clock.nowMs()
    this.suspected = false
  }

  /** No attempt is made any more. May be repeated. */
  close(): void {
    this.#retry?.cancel()
    this.#retry = null
    this.held?.timer.cancel()
    this.held?.handshake.close()
    this.held = null
    this.dialled?.close()
    this.dialled = null
    this.link?.handshake.close()
    this.link = null
    this.condition.notify()
  }

  send(...[name, body]: SendArguments): void {
    this.link?.handshake.connection.send(name, body as never)
  }

  #retryLater(): void {
    if (this.#retry) return
    // Half of the delay is left to chance, so that many brokers do not knock together.
    const delayMs = this.#backoffMs * (0.5 + this.#ports.random() / 2)
    this.#backoffMs = Math.min(LONGEST_BACKOFF_MS, this.#backoffMs * 2)
    this.#retry = this.#ports.clock.after(delayMs, () => {
      this.#retry = null
      if (this.#ports.isNeeded(this)) this.pursue()
    })
  }
}

type SendArguments = {
  [Message in LinkMessage as Message['name']]: [Message['name'], Message['body']]
}[LinkMessage['name']]
