/**
 * Finding the next broker after one was lost, and coming back to it.
 *
 *   lost ─► connect, again and again (5 ms, doubling to 100 ms) ─► ask, answer, ask … (reattachment.ts) ─► back
 *             └─ deadline, or refused ─► the session ends
 *
 * No step blocks and none needs the event loop: `advance` does what can be done now, and says by `descriptor` and `dueMs` what for to
 * call it again. The event loop calls it, and so does a thread that is blocked in `waitSync`; whichever comes next goes on where the
 * other stopped.
 */
import { check, decodeBrokerMessage, encodeRequest } from '../protocol/codec.js'
import { type EventBody, type EventName, type RequestName, type RequestResult, requests } from '../protocol/control.js'
import { SharedVerbsError } from '../protocol/errors.js'
import { DescriptorPoll } from '../shm/descriptor-poll.js'
import {
  closeDescriptor,
  MAX_MESSAGE_BYTES,
  pollDescriptors,
  receiveMessage,
  SystemCallError,
  sendMessage,
  seqpacketConnect,
} from '../shm/libc.js'
import { closeAll } from './control-client.js'
import type { Question, Reattached, ReattachSteps } from './reattachment.js'

/** A connection on which the session is at home again. */
export interface RecoveredConnection {
  readonly descriptor: number
  /** Requests before it were made. */
  readonly nextId: number
  readonly reattached: Reattached
  /** What came unasked meanwhile. */
  readonly events: readonly { readonly name: EventName; readonly body: EventBody<EventName> }[]
}

export interface RecoveryOptions {
  readonly path: string
  readonly timeoutMs: number
  /** A new round of questions, for each broker that answers. */
  readonly steps: () => ReattachSteps
  readonly onBack: (connection: RecoveredConnection) => void
  /** `refusal`: what the next broker said, if it was that. */
  readonly onFailed: (refusal: SharedVerbsError | undefined) => void
}

const FIRST_PAUSE_MS = 5
const LONGEST_PAUSE_MS = 100
const MOST_DESCRIPTORS = 8
/** What passes, unlike a refusal. */
const passingCodes = new Set<string>(['draining', 'timeout'])

const buffer = new Uint8Array(MAX_MESSAGE_BYTES)

export class Recovery {
  readonly #options: RecoveryOptions
  #deadlineMs = 0
  #active = false
  #descriptor = -1
  #attemptMs = 0
  #pauseMs = FIRST_PAUSE_MS
  #steps: ReattachSteps | undefined
  #asked: RequestName = 'reattach'
  #id = 0
  readonly #events: { name: EventName; body: EventBody<EventName> }[] = []
  #poll: DescriptorPoll | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(options: RecoveryOptions) {
    this.#options = options
  }

  get active(): boolean {
    return this.#active
  }

  begin(): void {
    this.#active = true
    this.#deadlineMs = performance.now() + this.#options.timeoutMs
    this.#pauseMs = FIRST_PAUSE_MS
    this.#attemptMs = 0
    this.#arm()
  }

  /** Gives up silently. May be called again. */
  stop(): void {
    this.#active = false
    this.#hangUp()
    this.#disarm()
  }

  /** Sleeps at most so long, or until a bell is rung, and then does what can be done: for a blocked thread. */
  sleep(bell: number, timeoutMs: number): void {
    const dueMs = Math.max(0, this.#dueMs() - performance.now())
    const fds = this.#descriptor < 0 ? [bell] : [bell, this.#descriptor]
    pollDescriptors(fds, Math.min(timeoutMs, dueMs))
    this.advance()
  }

  advance(): void {
    if (!this.#active) return
    try {
      if (this.#descriptor < 0 && performance.now() >= this.#attemptMs) this.#connect()
      while (this.#descriptor >= 0 && this.#receive());
    } catch (error) {
      this.#failed(error)
    }
    if (this.#active && performance.now() >= this.#deadlineMs) this.#end(undefined)
    this.#arm()
  }

  #dueMs(): number {
    return this.#descriptor < 0 ? Math.min(this.#attemptMs, this.#deadlineMs) : this.#deadlineMs
  }

  #connect(): void {
    this.#descriptor = seqpacketConnect(this.#options.path)
    this.#id = 0
    this.#steps = this.#options.steps()
    this.#go(this.#steps.next())
  }

  /** False when there is nothing to receive now. */
  #receive(): boolean {
    const received = receiveMessage(this.#descriptor, buffer, MOST_DESCRIPTORS)
    if (received === null) return false
    if (received.byteLength === 0 || received.truncated) {
      closeAll(received.fds)
      this.#again()
      return false
    }
    const message = decodeBrokerMessage(buffer.slice(0, received.byteLength))
    if (message.kind === 'event') {
      closeAll(received.fds)
      this.#events.push({ name: message.name, body: message.body })
    } else if (message.kind === 'reply' && message.id === this.#id) this.#reply(message.result, received.fds)
    else {
      closeAll(received.fds)
      if (message.kind === 'failure') this.#go(this.#current.throw(SharedVerbsError.fromWire(message.error)))
    }
    return true
  }

  #reply(result: unknown, descriptors: readonly number[]): void {
    const definition = requests[this.#asked]
    if (descriptors.length !== definition.descriptors.length) {
      closeAll(descriptors)
      const message = `reply to ${definition.name} has ${descriptors.length} descriptors`
      throw new SharedVerbsError('protocol-violation', message)
    }
    const checked = check(definition.result, result, `reply to ${definition.name}`) as RequestResult<RequestName>
    this.#go(this.#current.next({ result: checked, descriptors }))
  }

  get #current(): ReattachSteps {
    if (!this.#steps) throw new Error('nothing was asked')
    return this.#steps
  }

  #go(step: IteratorResult<Question, Reattached>): void {
    if (step.done) this.#back(step.value)
    else this.#ask(step.value)
  }

  #ask({ name, body, descriptors }: Question): void {
    this.#asked = name
    const message = encodeRequest(++this.#id, name, requests[name].body.parse(body))
    const sent = sendMessage(this.#descriptor, message, descriptors)
    // One small message at a time always fits; anything else is the end of this broker too.
    if (sent < 0) this.#again()
  }

  #back(reattached: Reattached): void {
    const descriptor = this.#descriptor
    this.#descriptor = -1
    this.#active = false
    this.#disarm()
    const events = this.#events.splice(0)
    this.#options.onBack({ descriptor, nextId: this.#id + 1, reattached, events })
  }

  #failed(error: unknown): void {
    if (error instanceof SystemCallError) this.#again()
    else if (!(error instanceof SharedVerbsError)) throw error
    else if (passingCodes.has(error.code)) this.#again()
    else this.#end(error)
  }

  /** This broker did not work out: another attempt after a pause. */
  #again(): void {
    this.#hangUp()
    this.#attemptMs = performance.now() + this.#pauseMs
    this.#pauseMs = Math.min(LONGEST_PAUSE_MS, this.#pauseMs * 2)
  }

  #end(refusal: SharedVerbsError | undefined): void {
    this.stop()
    this.#options.onFailed(refusal)
  }

  #hangUp(): void {
    this.#poll?.close()
    this.#poll = undefined
    if (this.#descriptor >= 0) closeDescriptor(this.#descriptor)
    this.#descriptor = -1
    this.#events.length = 0
    const steps = this.#steps
    this.#steps = undefined
    // What the questions had opened is closed.
    try {
      steps?.throw(new SharedVerbsError('broker-lost', 'the next broker was lost as well'))
    } catch {}
  }

  #arm(): void {
    if (!this.#active) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.advance(), Math.max(0, this.#dueMs() - performance.now()))
    // A session that nobody waits for keeps no process alive, with or without a broker.
    this.#timer.unref()
    if (this.#descriptor < 0 || this.#poll) return
    this.#poll = new DescriptorPoll(this.#descriptor, () => this.advance())
    this.#poll.unref()
    this.#poll.start({ readable: true })
  }

  #disarm(): void {
    clearTimeout(this.#timer)
    this.#poll?.close()
    this.#poll = undefined
  }
}
