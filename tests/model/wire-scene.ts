/**
 * One connected flow between two brokers, each with its own segment: the sender's requests, the receiver's receives. They talk over a
 * lane that can be lost at any point, with what is in flight or without, and over a link on which the sender asks and the receiver answers.
 * Either broker may be killed at any access, also while it recovers. What is done to the segments is the real code; the lane and the order
 * of the reconciliation (crash-consistency §2.5) are this scene's, and the rules that are decided by are given, so that a mistake can be.
 *
 *   I14  the application sees 1, 2, 3 …
 *   I15  success: done in the receiver's slot, or consumed
 *   I16  flushed: never delivered, not even later
 *   I17  unknown only when the peer never comes back, and only for what had left
 *   I19  an answer for incarnation n is used only by n
 *   I9   at rest every message has one verdict
 */
import { referenceSlot, side } from '../../protocol/completion-queue-segment.js'
import { opcode, packOperation } from '../../protocol/opcodes.js'
import { queuePairHeader, receiveSlot, sendSlot } from '../../protocol/queue-pair-segment.js'
import { type Status, status as verdict } from '../../protocol/statuses.js'
import type { Bounds, Scenario, Scene } from '../support/explorer.js'
import { type ActorSpec, type ActorState, type Operation, REST, type Self } from '../support/explorer-actor.js'
import { check } from '../support/explorer-runner.js'
import { World } from '../support/explorer-world.js'
import { type BrokerProcess, boot } from './broker-process.js'
import type { Code } from './load.js'
import { Segments } from './segments.js'
import { type Rules, rulesOf } from './wire-rules.js'

export interface WireOptions {
  readonly messages: number
  /** A receiver's broker that was killed stays away, and its node is given up. */
  readonly peerReturns?: boolean
  readonly rules?: (code: Code) => Partial<Rules>
}

export function wireScenario(code: Code, name: string, options: WireOptions, bounds: Bounds): Scenario {
  return { name, bounds, begin: (runner) => void (code.explored.bells = runner), scene: () => wireScene(code, options) }
}

/** The lane and the link, one word each; numbers are packed as incarnation × 16 + sequence. */
const wire = { broken: 0, incarnation: 1, request: 2, answer: 3, acknowledged: 4, lostUpTo: 5, lostFrom: 6 } as const
const TAIL = 7
const FRAMES = 8
/** Room for what successors publish again: a backlog would lie in private memory between two turns. */
const COMPLETIONS = 32
const FRAME_COUNT = 16
const WIRE_WORDS = FRAMES + FRAME_COUNT
/** The application and the peer's end, as the sender's control plane tells them. */
const CLOSING = WIRE_WORDS
const GONE = WIRE_WORDS + 1
const ALL_WORDS = WIRE_WORDS + 8
const pack = (incarnation: number, sequence: number): number => incarnation * 16 + sequence
const incarnationOf = (packed: number): number => packed >> 4
const sequenceOf = (packed: number): number => packed & 15
/** What the sender's broker is at. */
const phase = { down: 0, asking: 1, up: 2 } as const
const RECOVER = 0
const SERVE = 1
const LAST = queuePairHeader.word.last
const SEND = packOperation(opcode.send, 0, 0)

function wireScene(code: Code, options: WireOptions): Scene {
  const { messages, peerReturns = true } = options
  const rules: Rules = { ...rulesOf(code), ...options.rules?.(code) }
  const sender = new Segments({ sendSlots: messages, receiveSlots: 1, completions: 2 })
  const receiver = new Segments(
    { sendSlots: 1, receiveSlots: messages, completions: COMPLETIONS },
    undefined,
    sender.words,
  )
  const between = receiver.words
  const world = new World(between + ALL_WORDS, 3 * messages + 8)
  /** By message: delivered in the receiver's slot, and what its sender was told. */
  const delivered = world.reserve(messages)
  const told = world.reserve(messages)
  const seen = world.reserve(1)
  /** What the brokers know privately: the sender's phase and incarnation, the receiver's, and how far it has read the lane. */
  const mine = world.reserve(4)
  const [PHASE, OURS, THEIRS, HEAD] = [mine, mine + 1, mine + 2, mine + 3]
  const stateOfSend = (slot: number): number => sender.sendSlot(slot) + sendSlot.word.state
  const stateOfReceive = (slot: number): number => receiver.receiveSlot(slot) + receiveSlot.word.state
  const at = (word: number): number => between + word

  layOut()
  watch()

  // ---- the sender's broker ------------------------------------------------------------------------------------------------

  const recoverSender: Operation = {
    name: 'recover',
    run(self) {
      check(code.finishVisits(boot(code, sender, self).queuePair), 'I14', 'an honest ring was taken for corrupt')
      return undefined
    },
  }
  const become = (self: Self, now: number, incarnation: number): void => {
    self.note(() => {
      world.write(PHASE, now)
      world.write(OURS, incarnation)
      return 0
    })
  }
  /** A new incarnation, and nothing of an old one is believed any more. */
  const ask = (self: Self): number => {
    const words = self.words(between)
    words.exchange(wire.broken, 0)
    const incarnation = words.add(wire.incarnation, 1) + 1
    become(self, phase.asking, incarnation)
    words.store(wire.request, incarnation)
    return SERVE
  }
  const finish = ({ engine, queuePair }: BrokerProcess, left: Left, outcome: Status): void => {
    const request = code.recordSend(engine, queuePair, left.slot, left.generation, left.position)
    request.exposed = left.exposed
    code.completeUnsent(engine, request, outcome)
  }
  const leftIn = ({ queuePair }: BrokerProcess) => {
    const { posted, queued } = code.leftInSendSlots(queuePair)!
    const tell = (exposed: boolean) => (one: (typeof posted)[number]) => ({ ...one, exposed })
    return { posted: posted.map(tell(true)), queued: queued.map(tell(false)) }
  }
  const reconcile = (self: Self, broker: BrokerProcess, last: number | undefined): void => {
    const closing = last === undefined || self.words(between).load(CLOSING) !== 0
    const { posted, queued } = leftIn(broker)
    for (const left of posted) {
      const decision = rules.decide(left.position + 1, last)
      if (decision === 'success') finish(broker, left, verdict.success)
      else if (closing) finish(broker, left, rules.withoutReplay(left.position + 1, last))
      else code.postedToQueued(broker.queuePair.words, broker.queuePair.sendSlotWord(left.slot), left.generation)
    }
    if (last === undefined) for (const left of queued) finish(broker, left, verdict.flushed)
  }
  const takeAnswer = (self: Self, broker: BrokerProcess, incarnation: number): number => {
    const words = self.words(between)
    if (words.load(GONE) !== 0) {
      while (code.drainSends(broker.engine, broker.queuePair, 4096));
      reconcile(self, broker, undefined)
      return REST
    }
    const answer = words.load(wire.answer)
    if (answer === 0 || !rules.echoes(incarnationOf(answer), incarnation)) return REST
    reconcile(self, broker, sequenceOf(answer))
    become(self, phase.up, incarnation)
    return SERVE
  }
  const send = (self: Self, broker: BrokerProcess, incarnation: number, left: Left): void => {
    const words = self.words(between)
    const { engine, queuePair } = broker
    const request = code.recordSend(engine, queuePair, left.slot, left.generation, left.position)
    const frame = (): void => {
      const tail = words.load(TAIL)
      words.store(FRAMES + (tail % FRAME_COUNT), pack(incarnation, left.position + 1))
      words.store(TAIL, tail + 1)
    }
    rules.post(() => code.markPosted(engine, request, incarnation, 0), frame)
  }
  const sendAndSettle = (self: Self, broker: BrokerProcess, incarnation: number): number => {
    const words = self.words(between)
    const acknowledged = words.load(wire.acknowledged)
    const closing = words.load(CLOSING) !== 0
    while (code.drainSends(broker.engine, broker.queuePair, 4096));
    const { posted, queued } = leftIn(broker)
    let work = 0
    for (const left of posted) {
      const covered = incarnationOf(acknowledged) === incarnation && left.position + 1 <= sequenceOf(acknowledged)
      if (!rules.settles(covered)) continue
      finish(broker, left, verdict.success)
      work++
    }
    for (const left of queued) {
      if (closing) finish(broker, left, verdict.flushed)
      else send(self, broker, incarnation, left)
      work++
    }
    return work > 0 ? SERVE : REST
  }
  const serveSender: Operation = {
    name: 'serve',
    looksAt: (index) => index >= between && index < between + ALL_WORDS,
    run(self) {
      const now = self.note(() => world.read(PHASE))
      const incarnation = self.note(() => world.read(OURS))
      if (self.words(between).load(wire.broken) !== 0 || now === phase.down) return ask(self)
      const broker = boot(code, sender, self)
      return now === phase.asking ? takeAnswer(self, broker, incarnation) : sendAndSettle(self, broker, incarnation)
    },
  }

  // ---- the receiver's broker ----------------------------------------------------------------------------------------------

  const recoverReceiver: Operation = {
    name: 'recover',
    run(self) {
      const { engine, queuePair } = boot(code, receiver, self)
      check(code.finishVisits(queuePair), 'I14', 'an honest ring was taken for corrupt')
      const { done } = code.leftInReceiveSlots(queuePair)!
      rules.recover(queuePair, done)
      code.republish(engine, queuePair, side.receive, done)
      queuePair.receiveQueue.publish()
      return undefined
    },
  }
  /** Its end of the old incarnation is destroyed, then it says what was delivered. */
  const answer = (self: Self, incarnation: number): number => {
    self.note(() => {
      if (rules.fences) world.write(HEAD, world.read(at(TAIL)))
      return world.write(THEIRS, incarnation) ?? 0
    })
    self.words(between).store(wire.answer, pack(incarnation, self.words(receiver.queuePair).load(LAST)))
    return SERVE
  }
  const deliver = (self: Self, incarnation: number, sequence: number): void => {
    const words = self.words(between)
    const broker = boot(code, receiver, self)
    const { engine, queuePair } = broker
    const flow = queuePair.flow!
    flow.twin = null
    flow.inboundStarted = true
    flow.accepted = flow.lastDelivered = self.words(receiver.queuePair).load(LAST)
    code.retakeReceives(queuePair, code.leftInReceiveSlots(queuePair)!)
    const take = (): void => {
      if (rules.repeated(flow, sequence)) return
      const receive = code.bindReceive(engine, flow, sequence)
      check(receive !== null, 'I14', `message ${sequence} finds no receive`)
      code.finishReceive(engine, flow, receive!, verdict.success)
      queuePair.receiveQueue.publish()
    }
    rules.commit(take, () => words.store(wire.acknowledged, pack(incarnation, Math.max(sequence, flow.lastDelivered))))
  }
  const serveReceiver: Operation = {
    name: 'serve',
    looksAt: (index) => index >= between && index < between + ALL_WORDS,
    run(self) {
      const words = self.words(between)
      const asked = words.load(wire.request)
      const theirs = self.note(() => world.read(THEIRS))
      if (asked > theirs) return answer(self, asked)
      const head = self.note(() => world.read(HEAD))
      if (words.load(TAIL) === head) return REST
      const frame = words.load(FRAMES + (head % FRAME_COUNT))
      // What was in flight when the lane was lost never arrives, nor does anything behind it.
      if (incarnationOf(frame) <= words.load(wire.lostUpTo) && head >= words.load(wire.lostFrom)) return REST
      if (incarnationOf(frame) === theirs || !rules.fences) deliver(self, theirs, sequenceOf(frame))
      self.note(() => world.write(HEAD, head + 1) ?? 0)
      return SERVE
    },
  }

  // ---- everybody else -----------------------------------------------------------------------------------------------------

  /** The application at the receiver takes one completion, as a poller does. */
  const consume: Operation = {
    name: 'consume',
    when: () => world.read(receiver.completionHead) !== world.read(receiver.completionTail),
    run: (self) => self.note(consumeOne),
  }
  const consumeOne = (): number => {
    const head = world.read(receiver.completionHead)
    const entry = receiver.completionEntries + (head & (COMPLETIONS - 1)) * 2
    const slot = referenceSlot(world.read(entry))
    const generation = world.read(entry + 1)
    world.write(receiver.completionHead, head + 1)
    if (world.read(stateOfReceive(slot)) !== code.packState(code.SLOT_DONE, generation)) return 0
    const sequence = world.read(receiver.receiveSlot(slot) + receiveSlot.word.sequence)
    check(sequence === world.read(seen) + 1, 'I14', `the application sees ${sequence} after ${world.read(seen)}`)
    world.write(seen, sequence)
    world.write(stateOfReceive(slot), code.packState(code.SLOT_FREE, generation + 1))
    return 0
  }
  /** What is in flight is lost; `keeps`: it arrives late. */
  const lose = (keeps: boolean): void => {
    world.write(at(wire.lostUpTo), world.read(at(wire.incarnation)))
    world.write(at(wire.lostFrom), keeps ? world.read(at(TAIL)) : world.read(HEAD))
    world.write(at(wire.broken), 1)
  }
  const never: Operation = { name: 'is there', when: () => false, run: () => undefined }
  const event = (name: string, died: () => void, again: boolean): ActorSpec => ({
    name,
    role: name,
    member: -1,
    operations: [never],
    died,
    ...(again ? { restartsAt: 0 } : {}),
  })
  const senderDied = (): void => {
    world.write(PHASE, phase.down)
    world.write(OURS, 0)
  }
  const receiverDied = (): void => {
    lose(false)
    world.write(at(wire.request), 0)
    world.write(THEIRS, 0)
    world.write(HEAD, world.read(at(TAIL)))
    if (!peerReturns) world.write(at(GONE), 1)
  }
  const brokerSpec = (name: string, operations: readonly Operation[], died: () => void, returns: boolean) => ({
    name,
    role: name,
    member: -1,
    operations,
    startsAt: SERVE,
    died,
    ...(returns ? { restartsAt: RECOVER } : {}),
  })
  const actors: ActorSpec[] = [
    brokerSpec('sender', [recoverSender, serveSender], senderDied, true),
    brokerSpec('receiver', [recoverReceiver, serveReceiver], receiverDied, peerReturns),
    { name: 'application', role: 'application', member: -1, operations: [consume] },
    event('loss', () => lose(false), true),
    event('late-loss', () => lose(true), true),
    event('close', () => world.write(at(CLOSING), 1), false),
  ]

  // ---- what is observed ---------------------------------------------------------------------------------------------------

  function watch(): void {
    for (let slot = 0; slot < messages; slot++) {
      world.watches.set(stateOfReceive(slot), (_, value) => {
        if (code.stateOf(value) !== code.SLOT_DONE) return
        const sequence = world.read(receiver.receiveSlot(slot) + receiveSlot.word.sequence)
        check(world.read(delivered + sequence - 1) === 0, 'I14', `message ${sequence} is delivered twice`)
        check(
          world.read(told + sequence - 1) !== verdict.flushed + 1,
          'I16',
          `message ${sequence} was flushed, and arrives`,
        )
        world.write(delivered + sequence - 1, 1)
      })
      world.watches.set(stateOfSend(slot), (found, value) => settle(slot, code.stateOf(found), code.stateOf(value)))
    }
  }
  function settle(slot: number, found: number, state: number): void {
    if (state !== code.SLOT_DONE && state !== code.SLOT_FREE) return
    const at = sender.sendSlot(slot)
    const sequence = world.read(at + sendSlot.word.position) + 1
    const outcome = state === code.SLOT_FREE ? verdict.success : world.read(at + sendSlot.word.status)
    const isDelivered = world.read(delivered + sequence - 1) === 1
    check(world.read(told + sequence - 1) === 0, 'I9', `message ${sequence} has two verdicts`)
    if (outcome === verdict.success) check(isDelivered, 'I15', `message ${sequence} succeeds and is not delivered`)
    else if (outcome === verdict.flushed) check(!isDelivered, 'I16', `message ${sequence} is flushed and was delivered`)
    else {
      const may = world.read(between + GONE) === 1 && found === code.SLOT_POSTED
      check(outcome === verdict.unknown && may, 'I17', `message ${sequence} gets status ${outcome}`)
    }
    world.write(told + sequence - 1, outcome + 1)
  }
  const atRest = (_: readonly ActorState[]): void => {
    for (let message = 0; message < messages; message++) {
      const outcome = world.read(told + message) - 1
      check(outcome >= 0, 'I9', `message ${message + 1} has no verdict`)
      const needed = world.read(at(CLOSING)) === 0 && world.read(at(GONE)) === 0
      check(!needed || outcome === verdict.success, 'I9', `message ${message + 1} has status ${outcome}`)
      if (outcome === verdict.success) check(world.read(seen) > message, 'I14', `nobody sees message ${message + 1}`)
    }
  }

  /** Every message is posted, every receive is taken; the lane is up. */
  function layOut(): void {
    for (let slot = 0; slot < messages; slot++) {
      world.write(sender.sendSlot(slot) + sendSlot.word.operation, SEND)
      world.write(stateOfSend(slot), code.packClaimed(1, 0))
      world.write(sender.sendEntry(slot), slot + 1)
      world.write(receiver.receiveSlot(slot) + receiveSlot.word.position, slot)
      world.write(stateOfReceive(slot), code.packState(code.SLOT_POSTED, 0))
    }
    world.write(sender.sendTail, messages)
    world.write(receiver.receiveTail, messages)
    world.write(receiver.receiveHead, messages)
    world.write(at(wire.incarnation), 1)
    world.write(PHASE, phase.up)
    world.write(OURS, 1)
    world.write(THEIRS, 1)
  }

  const privateTo = (index: number): string | undefined => {
    if (index < sender.words) return 'sender'
    if (index >= receiver.completionQueue) return undefined
    return index < receiver.receiveSlot(0) || index >= receiver.receiveSlot(messages) ? 'receiver' : undefined
  }
  const nameOf = (index: number): string => {
    if (index < sender.words) return `sender's ${sender.nameOf(index)}`
    if (index < between) return `receiver's ${receiver.nameOf(index)}`
    return Object.keys(wire)[index - between] ?? `wire+${index - between}`
  }
  return { world, actors, privateTo, atRest, nameOf }
}

interface Left {
  readonly slot: number
  readonly generation: number
  readonly position: number
  readonly exposed: boolean
}
