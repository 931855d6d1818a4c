/**
 * What must hold of every program, whatever the engine does in between: order of each flow, bytes of each message, one verdict for each
 * request, `success` exactly for what was delivered. The oracle is told what is posted and what completes; it knows no frames and no
 * credit.
 */
import type { TestCompletion } from './engine-node.js'
import { type End, pattern } from './engine-stage.js'

const TWO_SIDED = new Set(['send', 'send-with-immediate', 'write-with-immediate'])

export interface Posted {
  readonly id: number
  readonly from: Actor
  readonly to: Actor
  readonly opcode: string
  readonly length: number
  readonly signaled: boolean
  /** Where the bytes go or come from at the other end, for one-sided requests. */
  readonly remote: { readonly end: { readonly u8: Uint8Array }; readonly offset: number } | null
  /** Where the bytes lie at this end. */
  readonly offset: number
  verdict: string | null
  /** A receive was told of it: with success, or because it was too long for it. */
  delivered: 'success' | 'failed' | null
}

export interface PostedReceive {
  readonly id: number
  readonly offset: number
  readonly length: number
}

/** One queue pair with what it posted. */
export class Actor {
  readonly end: End
  readonly connected: boolean
  readonly peers: Actor[] = []
  readonly receives = new Map<number, PostedReceive>()
  /** Posted requests to each destination, in order; entries before `settled` have their verdict. */
  readonly sent = new Map<Actor, { list: Posted[]; settled: number; delivered: number }>()
  readonly byId = new Map<number, Posted>()
  closed = false

  constructor(end: End, connected: boolean) {
    this.end = end
    this.connected = connected
  }

  to(actor: Actor): { list: Posted[]; settled: number; delivered: number } {
    let flow = this.sent.get(actor)
    if (!flow) {
      flow = { list: [], settled: 0, delivered: 0 }
      this.sent.set(actor, flow)
    }
    return flow
  }
}

export class Oracle {
  readonly actors: Actor[]
  /** Something was closed: messages may be missing, if their verdict says so. */
  disturbed = false
  readonly problems: string[] = []
  completions = 0

  constructor(actors: Actor[]) {
    this.actors = actors
  }

  posted(request: Posted): void {
    request.from.to(request.to).list.push(request)
    request.from.byId.set(request.id, request)
  }

  /** A completion of `actor`'s queue pair. */
  completed(actor: Actor, completion: TestCompletion): void {
    this.completions++
    if (completion.opcode.startsWith('receive') || actor.receives.has(completion.id)) this.#received(actor, completion)
    else this.#sent(actor, completion)
  }

  #sent(actor: Actor, completion: TestCompletion): void {
    const request = actor.byId.get(completion.id)
    if (!request || request.verdict !== null) {
      this.#problem(`a second or unknown completion ${JSON.stringify(completion)}`)
      return
    }
    request.verdict = completion.status
    if (completion.status === 'success') this.#checkBytes(request)
    const flow = actor.to(request.to)
    const at = flow.list.indexOf(request)
    for (let index = flow.settled; index < at; index++) {
      const earlier = flow.list[index]!
      if (earlier.verdict !== null) continue
      // An earlier one that says nothing has succeeded; one that must speak has not spoken.
      if (earlier.signaled) this.#problem(`request ${request.id} was told before ${earlier.id}`)
      earlier.verdict = 'success'
    }
    flow.settled = at + 1
  }

  #checkBytes(request: Posted): void {
    const { remote, length, id, offset } = request
    if (!remote || request.opcode === 'fetch-and-add') return
    const reads = request.opcode === 'read'
    const bytes = reads ? request.from.end.u8.subarray(offset) : remote.end.u8.subarray(remote.offset)
    for (let index = 0; index < length; index++) {
      const expected = reads ? pattern(1, remote.offset + index) : pattern(id, index)
      if (bytes[index] === expected) continue
      this.#problem(`byte ${index} of ${request.opcode} ${id} is wrong`)
      return
    }
  }

  #received(actor: Actor, completion: TestCompletion): void {
    const receive = actor.receives.get(completion.id)
    if (!receive) {
      this.#problem(`an unknown receive ${JSON.stringify(completion)}`)
      return
    }
    actor.receives.delete(completion.id)
    if (completion.status === 'flushed') return
    const from = this.#sender(actor, completion)
    const flow = from?.to(actor)
    if (!from || !flow) {
      this.#problem(`a message from nobody ${JSON.stringify(completion)}`)
      return
    }
    for (; flow.delivered < flow.list.length; flow.delivered++) {
      const message = flow.list[flow.delivered]!
      if (!TWO_SIDED.has(message.opcode)) continue
      if (this.#matches(actor, message, receive, completion)) {
        flow.delivered++
        message.delivered = completion.status === 'success' ? 'success' : 'failed'
        return
      }
      if (!this.disturbed)
        this.#problem(`message ${message.id} is missing or changed before ${JSON.stringify(completion)}`)
    }
    this.#problem(`no message matches ${JSON.stringify(completion)}`)
  }

  #sender(actor: Actor, completion: TestCompletion): Actor | undefined {
    const { node } = actor.end
    return this.actors.find(({ end }) => {
      return end.queuePair.number === completion.source && node.peerOf(end.node) === completion.sourceNode
    })
  }

  #matches(actor: Actor, message: Posted, receive: PostedReceive, completion: TestCompletion): boolean {
    const notice = message.opcode === 'write-with-immediate'
    if (completion.status === 'local-length-error') return !notice && message.length > receive.length
    if (completion.status !== 'success' || completion.byteLength !== message.length) return false
    if (message.opcode !== 'send' && completion.immediate !== (message.id | 0)) return false
    if ((message.opcode === 'send') !== (completion.opcode === 'receive')) return false
    if (notice) return true
    const { u8 } = actor.end
    for (let index = 0; index < message.length; index++) {
      if (u8[receive.offset + index] !== pattern(message.id, index)) return false
    }
    return true
  }

  /** At the end: verdicts and deliveries agree, and nobody waits for a verdict. */
  conclude(): void {
    for (const actor of this.actors) {
      for (const { list } of actor.sent.values()) for (const request of list) this.#judge(request)
    }
  }

  #judge(request: Posted): void {
    // Its slot was given back in silence: success.
    if (request.verdict === null && !request.signaled) request.verdict = 'success'
    const { verdict, delivered, id, opcode } = request
    if (verdict === null) this.#problem(`request ${id} (${opcode}) has no verdict`)
    if (!TWO_SIDED.has(opcode)) return
    if (verdict === 'success' && delivered !== 'success')
      this.#problem(`${opcode} ${id} says success and never arrived`)
    if (verdict !== 'success' && verdict !== 'unknown' && delivered === 'success') {
      this.#problem(`${opcode} ${id} says ${verdict} and arrived`)
    }
    if (verdict === 'remote-invalid-request' && !this.disturbed && delivered !== 'failed') {
      this.#problem(`${opcode} ${id} was refused by nobody`)
    }
  }

  #problem(text: string): void {
    if (this.problems.length < 10) this.problems.push(text)
  }
}
