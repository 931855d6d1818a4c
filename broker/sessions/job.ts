/**
 * A job on this node: the trust domain of its members. It is made by its first member and outlives its last one by the reap time,
 * so that a churn of short processes does not rebuild lanes each time.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { ACTIVITY_BITS, activityLayout } from '../../shm/activity.js'
import { closeDescriptor } from '../../shm/libc.js'
import { createLivenessFile, LivenessMonitor, LivenessToken } from '../../shm/liveness.js'
import { Mapping } from '../../shm/mapping.js'
import type { Session } from './session.js'

export interface JobIdentity {
  readonly userId: number
  readonly name: string
}

/** Two rings a queue pair: see protocol/limits.ts. */
export const activityByteLength = activityLayout.byteLength
export const activityBits = ACTIVITY_BITS

/** Only compared and used as a key of HMACs: the secret itself is not kept. */
const digestKey = randomBytes(32)
const digest = (secret: string): Buffer => createHmac('sha256', digestKey).update(secret).digest()

const SALT_DIGITS = 16
const PROOF_DIGITS = 64

/** Salt and salted hash: recognises the key in the node file, from which it cannot be read. */
export function keyProofOf(key: string, salt = randomBytes(SALT_DIGITS / 2).toString('hex')): string {
  return (salt + createHmac('sha256', salt).update(key).digest('hex')).slice(0, PROOF_DIGITS)
}

/** Compares in constant time. */
export function provesKey(proof: string, key: string): boolean {
  const expected = Buffer.from(keyProofOf(key, proof.slice(0, SALT_DIGITS)))
  const found = Buffer.from(proof)
  return found.byteLength === PROOF_DIGITS && timingSafeEqual(expected, found)
}

/** What all members of a job share from its first to its last. */
export interface JobFiles {
  readonly activity: Mapping
  readonly livenessDescriptor: number
}

const createFiles = (): JobFiles => ({
  activity: Mapping.create('activity', activityByteLength),
  livenessDescriptor: createLivenessFile(),
})

export class Job implements JobIdentity {
  readonly number: number
  readonly userId: number
  readonly name: string
  readonly activity: Mapping
  readonly livenessDescriptor: number
  readonly monitor: LivenessMonitor
  readonly keyProof: string
  /** Every session whose member row is not free yet, also those that left and may still hold a lock. */
  readonly members = new Map<number, Session>()
  /** What proves to other brokers that this one knows the job's key. */
  readonly proofKey: Buffer
  /** Settles when the engine knows the job. */
  ready: Promise<void> = Promise.resolve()
  /** Of a job that an earlier broker left: settles when its sessions are back and it goes on. Until then nothing of it runs. */
  resumption: Promise<void> | null = null
  /** Set when the job is being taken down; a new one of the same name waits for it. */
  removal: Promise<void> | null = null
  readonly #keyDigest: Buffer
  readonly #brokerToken: LivenessToken
  #open = true

  /** `files` and their descriptors are the job's from here on, also when this fails. */
  constructor(number: number, identity: JobIdentity, key: string, files: JobFiles = createFiles()) {
    this.number = number
    this.userId = identity.userId
    this.name = identity.name
    this.#keyDigest = digest(key)
    this.keyProof = keyProofOf(key)
    this.proofKey = createHmac('sha256', 'shared-verbs job').update(key).digest()
    this.activity = files.activity
    this.livenessDescriptor = files.livenessDescriptor
    try {
      this.#brokerToken = LivenessToken.hold(this.livenessDescriptor, 0)
      this.monitor = new LivenessMonitor(this.livenessDescriptor)
    } catch (error) {
      this.activity.close()
      closeDescriptor(this.livenessDescriptor)
      throw error
    }
  }

  /** Compares in constant time. */
  hasKey(key: string): boolean {
    return timingSafeEqual(this.#keyDigest, digest(key))
  }

  /** Sessions that are served. */
  get sessions(): Session[] {
    return [...this.members.values()].filter((session) => session.served)
  }

  /** Only after the engine has forgotten the job. May be repeated. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#brokerToken.release()
    this.monitor.close()
    closeDescriptor(this.livenessDescriptor)
    this.activity.close()
  }
}
