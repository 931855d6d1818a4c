/**
 * Which jobs are open on one link: both sides have members of the job and have proven its key to each other. The key never travels,
 * and a side without members of a job says so and remembers who asked, so that it can open the job itself when it gets one.
 *
 *   mine ── domain-open (proof) ──►                    ◄── domain-open (proof) ── yours
 *   mine ◄── domain-opened ──       (accepted)          ── domain-opened ──►        (proven)
 */
import { type ErrorCode, isErrorCode } from '../../protocol/error-codes.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import { limits } from '../../protocol/limits.js'
import type { LinkMessageBody } from '../../protocol/link.js'
import type { Job, JobIdentity } from '../sessions/job.js'
import type { Handshake } from './handshake.js'
import { domainProof, sameProof } from './link-security.js'

export interface DomainsOptions {
  readonly link: Handshake
  readonly node: string
  /** A job that is known here, with members or with a memory of them. */
  find(identity: JobIdentity): Job | undefined
  /** The job was left by an earlier broker of this node and may go on: who asks for it waits. */
  isAwaited(identity: JobIdentity): boolean
  /** Something changed that waiters may want to see. */
  onChange(): void
  /** The peer has no members of the job any more. */
  onClosed(job: Job): void
}

interface Domain {
  /** What the peer thinks of my proof. 'waiting': it has no such job yet, and will ask me when it has. */
  mine: 'unsent' | 'asked' | 'waiting' | 'accepted' | 'refused'
  /** The peer gave a good proof. */
  proven: boolean
  refusal: SharedVerbsError | null
}

const identityKey = ({ userId, name }: JobIdentity): string => `${userId} ${name}`

export class Domains {
  readonly #options: DomainsOptions
  readonly #domains = new Map<string, Domain>()
  /** Jobs that the peer has and we have not, as many as there can be. */
  readonly #interests = new Set<string>()
  /** Questions for jobs that are awaited here. */
  readonly #unanswered = new Map<string, LinkMessageBody<'domain-open'>>()

  constructor(options: DomainsOptions) {
    this.#options = options
  }

  isOpen(job: Job): boolean {
    const domain = this.#domains.get(identityKey(job))
    return domain?.mine === 'accepted' && domain.proven
  }

  /** The peer said that it has no member of the job. */
  isMissing(job: Job): boolean {
    return this.#domains.get(identityKey(job))?.mine === 'waiting'
  }

  /** Opens the job if it is not being opened; true when it is open. Throws the peer's refusal, once. */
  want(job: Job): boolean {
    const domain = this.#domain(job)
    if (domain.mine === 'refused') {
      domain.mine = 'unsent'
      throw domain.refusal ?? new SharedVerbsError('peer-refused', `node ${this.#options.node} refused job ${job.name}`)
    }
    if (domain.mine === 'unsent') this.#ask(job, domain)
    return this.isOpen(job)
  }

  /** A job got its first member here: whoever asked for it before hears of it. */
  appeared(job: Job): void {
    if (this.#interests.delete(identityKey(job))) this.#ask(job, this.#domain(job))
  }

  /** An awaited job goes on, or is gone. */
  settled(identity: JobIdentity): void {
    const question = this.#unanswered.get(identityKey(identity))
    this.#unanswered.delete(identityKey(identity))
    if (question) this.asked(question)
  }

  /** The last trace of a job leaves this node. */
  ended(job: Job): void {
    const key = identityKey(job)
    if (!this.#domains.delete(key)) return
    this.#remember(key)
    this.#options.link.connection.send('domain-closed', { job: job.name, userId: job.userId })
  }

  /** The peer wants to open a job. */
  asked(question: LinkMessageBody<'domain-open'>): void {
    const { job: name, userId, proof } = question
    const { link, find, isAwaited, onChange } = this.#options
    if (isAwaited({ name, userId })) {
      this.#unanswered.set(identityKey({ name, userId }), question)
      return
    }
    const job = find({ name, userId })
    if (!job || job.sessions.length === 0) {
      this.#remember(identityKey({ name, userId }))
      this.#refuse({ name, userId }, 'no-such-object', `no member of job ${name} has attached here yet`)
      return
    }
    const nonces = { prover: link.yours.nonce, verifier: link.mine.nonce }
    if (!sameProof(domainProof(job.proofKey, nonces, job), proof)) {
      this.#refuse(job, 'wrong-job-key', `job ${name} has another key there`)
      return
    }
    const domain = this.#domain(job)
    domain.proven = true
    link.connection.send('domain-opened', { job: name, userId })
    if (domain.mine !== 'asked' && domain.mine !== 'accepted') this.#ask(job, domain)
    onChange()
  }

  opened({ job: name, userId }: LinkMessageBody<'domain-opened'>): void {
    const domain = this.#domains.get(identityKey({ name, userId }))
    if (domain?.mine !== 'asked') return
    domain.mine = 'accepted'
    this.#options.onChange()
  }

  refused({ job: name, userId, code, message }: LinkMessageBody<'domain-refused'>): void {
    const domain = this.#domains.get(identityKey({ name, userId }))
    if (domain?.mine !== 'asked') return
    domain.mine = code === 'no-such-object' ? 'waiting' : 'refused'
    const known: ErrorCode = isErrorCode(code) ? code : 'peer-refused'
    const text = `node ${this.#options.node} refused job ${name}: ${message}; use the same key on all nodes`
    domain.refusal = new SharedVerbsError(known, text, { job: name, node: this.#options.node })
    const job = this.#options.find({ name, userId })
    // What was connected to members of the job there has lost them.
    if (job && domain.mine === 'waiting') this.#options.onClosed(job)
    this.#options.onChange()
  }

  /** The peer has no members of the job any more; it will ask when it gets one again. */
  closed({ job: name, userId }: LinkMessageBody<'domain-closed'>): void {
    const domain = this.#domains.get(identityKey({ name, userId }))
    const job = this.#options.find({ name, userId })
    if (!domain || !job) return
    domain.mine = 'waiting'
    domain.proven = false
    this.#options.onClosed(job)
    this.#options.onChange()
  }

  #domain(job: JobIdentity): Domain {
    const key = identityKey(job)
    const known = this.#domains.get(key) ?? { mine: 'unsent', proven: false, refusal: null }
    this.#domains.set(key, known)
    return known
  }

  #ask(job: Job, domain: Domain): void {
    const { link } = this.#options
    const nonces = { prover: link.mine.nonce, verifier: link.yours.nonce }
    domain.mine = 'asked'
    const proof = domainProof(job.proofKey, nonces, job)
    link.connection.send('domain-open', { job: job.name, userId: job.userId, proof })
  }

  #refuse(job: JobIdentity, code: ErrorCode, message: string): void {
    const body = { job: job.name, userId: job.userId, code, message }
    this.#options.link.connection.send('domain-refused', body)
  }

  #remember(key: string): void {
    if (this.#interests.size < limits.jobs) this.#interests.add(key)
  }
}
