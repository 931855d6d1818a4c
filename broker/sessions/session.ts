/**
 * One attached client process or worker thread. Its end has three independent facts, in any order: the socket closed (it is no longer
 * served), the process died or gave up its liveness token (its locks and slots may be swept), its objects are gone.
 */

import { encodeEvent } from '../../protocol/codec.js'
import type { EventBody, EventName } from '../../protocol/control.js'
import { closeDescriptor, eventfdCreate, type PeerCredentials } from '../../shm/libc.js'
import type { ProcessWatch } from '../../shm/liveness.js'
import type { SeqpacketConnection } from '../../shm/seqpacket.js'
import type { Job } from './job.js'

export class Session {
  readonly member: number
  readonly generation: number
  readonly job: Job
  readonly name: string
  readonly peer: PeerCredentials
  /** The eventfd on which the client sleeps; the engine rings it. */
  readonly doorbell: number
  /** False from the first sign of the end: nothing new is begun for it. */
  served = true
  /** The kernel said so. */
  processDied = false
  watch: ProcessWatch | null = null
  /** Told at the first sign of its end; for whoever counts on it. */
  onEnd: (() => void) | null = null
  /** What it made and what still lives of it; shown in its row. */
  readonly usage = { queuePairs: 0, regions: 0, registeredByteLength: 0 }
  /** Each step of the end happens once and is awaited by whoever needs it. */
  readonly end: { objects: Promise<void> | null; sweep: Promise<void> | null; row: Promise<void> | null } = {
    objects: null,
    sweep: null,
    row: null,
  }
  readonly #connection: SeqpacketConnection
  #doorbellOpen = true

  constructor(identity: {
    readonly member: number
    readonly generation: number
    readonly job: Job
    readonly name: string
    readonly connection: SeqpacketConnection
    /** Of a session that comes back: its own, this one's from here on. */
    readonly doorbell?: number
  }) {
    this.member = identity.member
    this.generation = identity.generation
    this.job = identity.job
    this.name = identity.name
    this.doorbell = identity.doorbell ?? eventfdCreate()
    this.#connection = identity.connection
    this.peer = identity.connection.peer
  }

  get connected(): boolean {
    return this.#connection.open
  }

  /** Tells the client something unasked; one that does not read is cut off by its connection's bound. */
  send<Name extends EventName>(name: Name, body: EventBody<Name>): void {
    if (this.served) this.#connection.send(encodeEvent(name, body))
  }

  hangUp(): void {
    this.#connection.close()
  }

  /** Only after the engine has forgotten the member. May be repeated. */
  close(): void {
    this.watch?.close()
    this.watch = null
    if (!this.#doorbellOpen) return
    this.#doorbellOpen = false
    closeDescriptor(this.doorbell)
  }
}
