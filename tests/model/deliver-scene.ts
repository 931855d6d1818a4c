/**
 * A message from a queue pair to itself through the real engine: posted receives, sends, the commit of each delivery, and what a
 * successor makes of it when the broker dies in between. Nobody polls; what was published is looked at where it lies.
 *
 *   I14  every message is delivered once, in order
 *   I15  a send succeeds only after its message was delivered
 *   W5   the order of a delivery: slot done(sequence), then `last`, then the completion ring
 *   I9   every send and every used receive has one verdict at rest
 */
import { referenceSide, referenceSlot, side } from '../../protocol/completion-queue-segment.js'
import { queuePairHeader, receiveSlot, sendSlot } from '../../protocol/queue-pair-segment.js'
import { status as verdict } from '../../protocol/statuses.js'
import type { Bounds, Scenario, Scene } from '../support/explorer.js'
import { type ActorSpec, type ActorState, type Operation, REST, type Self, status } from '../support/explorer-actor.js'
import { check } from '../support/explorer-runner.js'
import { World } from '../support/explorer-world.js'
import { type BrokerProcess, boot, REGION, turnUntilIdle } from './broker-process.js'
import type { Code } from './load.js'
import { attach, openSegment, Segments } from './segments.js'

const SERVE = 3

export interface DeliverOptions {
  readonly messages: number
  /** A successor recovers `last` from the slots; a mutant does not. */
  readonly recoversLast?: boolean
  /** Messages have one entry at both ends: they go straight from the ring to the receive. */
  readonly hasEntries?: boolean
}

export function deliverScenario(code: Code, name: string, options: DeliverOptions, bounds: Bounds): Scenario {
  return {
    name,
    bounds,
    begin: (runner) => void (code.explored.bells = runner),
    scene: () => deliverScene(code, options),
  }
}

function deliverScene(code: Code, { messages, recoversLast = true, hasEntries = false }: DeliverOptions): Scene {
  const segments = new Segments({ sendSlots: messages, receiveSlots: messages, completions: 8 })
  const world = new World(segments.words, 2 * messages + 1)
  const delivered = world.reserve(messages)
  const succeeded = world.reserve(messages)
  const deliveredCount = world.reserve(1)
  const LAST = queuePairHeader.word.last
  const sendState = (slot: number): number => segments.sendSlot(slot) + sendSlot.word.state
  const receiveState = (slot: number): number => segments.receiveSlot(slot) + receiveSlot.word.state
  const sequenceIn = (slot: number): number => world.read(segments.receiveSlot(slot) + receiveSlot.word.sequence)

  for (let slot = 0; slot < messages; slot++) {
    world.watches.set(receiveState(slot), (_, value) => {
      if (code.stateOf(value) !== code.SLOT_DONE) return
      const sequence = sequenceIn(slot)
      check(
        sequence === world.read(deliveredCount) + 1,
        'I14',
        `message ${sequence} is delivered after ${world.read(deliveredCount)}`,
      )
      check(world.read(delivered + sequence - 1) === 0, 'I14', `message ${sequence} is delivered twice`)
      world.write(delivered + sequence - 1, 1)
      world.write(deliveredCount, sequence)
    })
    world.watches.set(sendState(slot), (found, value) => {
      if (code.stateOf(found) === code.SLOT_CLAIMED || code.stateOf(value) !== code.SLOT_FREE) return
      const sequence = world.read(segments.sendSlot(slot) + sendSlot.word.position) + 1
      check(world.read(delivered + sequence - 1) === 1, 'I15', `message ${sequence} succeeds before it is delivered`)
      check(world.read(succeeded + sequence - 1) === 0, 'I9', `message ${sequence} succeeds twice`)
      world.write(succeeded + sequence - 1, 1)
    })
  }
  world.watches.set(LAST, (found, value) => {
    check(((value - found) | 0) > 0, 'W5', `last goes from ${found} to ${value}`)
    check(world.read(deliveredCount) >= value, 'W5', `last says ${value} before that slot is done`)
  })
  world.watches.set(segments.completionTail, (found, value) => {
    for (let position = found; position !== value; position++) {
      const reference = world.read(segments.completionEntries + (position & 7) * 2)
      if (referenceSide(reference) !== side.receive) continue
      const sequence = sequenceIn(referenceSlot(reference))
      check(((world.read(LAST) - sequence) | 0) >= 0, 'W5', `message ${sequence} is published before last says so`)
    }
  })

  let attachment: InstanceType<Code['Attachment']> | undefined
  const openQueuePair = (self: Self): InstanceType<Code['QueuePair']> => {
    attachment ??= attach(code, segments, self)
    const none = {} as unknown as InstanceType<Code['CompletionQueue']>
    const opened = new code.QueuePair(attachment, openSegment(code, segments, self), none, none)
    attachment.queuePairs.delete(opened)
    return opened
  }
  const all = Array.from({ length: messages }, (_, message) => message + 1)
  const local = hasEntries ? [{ key: REGION, offset: 0, length: 8 }] : []
  const postReceives: Operation = {
    name: 'receives',
    run(self) {
      const accepted = openQueuePair(self).postReceive(all.map((id) => ({ id, local })))
      check(accepted === messages, 'I10', 'receives do not fit')
      return undefined
    },
  }
  const postSends: Operation = {
    name: 'sends',
    run(self) {
      const list = all.map((id) => ({ id, opcode: 'send' as const, signaled: false, local }))
      const accepted = openQueuePair(self).postSend(list)
      check(accepted === messages, 'I10', 'sends do not fit')
      return undefined
    },
  }

  const conclude: Operation = {
    name: 'conclude',
    run(self) {
      const { queuePair } = boot(code, segments, self)
      check(code.finishVisits(queuePair), 'I14', 'an honest ring was taken for corrupt')
      const receives = code.leftInReceiveSlots(queuePair)
      check(receives !== undefined, 'I14', 'an honest slot was taken for corrupt')
      if (recoversLast) code.recoverLast(queuePair, receives!.done)
      return undefined
    },
  }
  const clear: Operation = {
    name: 'clear',
    run: (self) => code.clearAll(self.words(segments.activity), 0) ?? undefined,
  }
  /** What a broker knows privately between its turns, read back from the slots. */
  const remember = ({ queuePair }: BrokerProcess, last: number): void => {
    const flow = queuePair.flow!
    flow.delivered = last
    flow.accepted = last
    flow.lastDelivered = last
    code.retakeReceives(queuePair, code.leftInReceiveSlots(queuePair)!)
  }
  const resume: Operation = {
    name: 'resume',
    run(self) {
      const broker = boot(code, segments, self)
      const { engine, queuePair } = broker
      code.republish(engine, queuePair, side.receive, code.leftInReceiveSlots(queuePair)!.done)
      const last = self.words(segments.queuePair).load(LAST)
      remember(broker, last)
      reconcile(broker, last)
      while (code.drainReceives(engine, queuePair, 4096));
      while (code.drainSends(engine, queuePair, 4096));
      turnUntilIdle(engine)
      return undefined
    },
  }
  /** Both ends of the flow are here: what `last` covers was delivered, the rest certainly was not, and goes again. */
  const reconcile = ({ engine, queuePair }: BrokerProcess, last: number): void => {
    const sends = code.leftInSendSlots(queuePair)!
    const lost = []
    for (const left of sends.posted) {
      if (((left.position + 1 - last) | 0) > 0) {
        code.postedToQueued(queuePair.words, queuePair.sendSlotWord(left.slot), left.generation)
        lost.push(left)
        continue
      }
      const request = code.recordSend(engine, queuePair, left.slot, left.generation, left.position)
      request.exposed = true
      code.completeUnsent(engine, request, verdict.success)
    }
    code.retakeSends(engine, queuePair, [...lost, ...sends.queued])
  }
  const serve: Operation = {
    name: 'serve',
    looksAt: (index) => index >= segments.activity && index < segments.page,
    run(self) {
      const broker = boot(code, segments, self)
      remember(broker, self.words(segments.queuePair).load(LAST))
      return turnUntilIdle(broker.engine) > 0 ? SERVE : REST
    },
  }
  const actors: ActorSpec[] = [
    { name: 'client', role: 'client', member: 1, operations: [postReceives, postSends] },
    {
      name: 'broker',
      role: 'broker',
      member: -1,
      operations: [conclude, clear, resume, serve],
      startsAt: SERVE,
      restartsAt: 0,
    },
  ]
  const atRest = (states: readonly ActorState[]): void => {
    check(states[0]!.status !== status.running, 'I10', 'the client cannot post')
    for (let message = 0; message < messages; message++) {
      check(world.read(delivered + message) === 1, 'I14', `message ${message + 1} is not delivered`)
      check(world.read(succeeded + message) === 1, 'I9', `message ${message + 1} has no verdict`)
    }
    check(world.read(LAST) === messages, 'W5', `at rest last says ${world.read(LAST)}`)
  }
  const privateTo = (index: number): string | undefined =>
    index >= segments.completionQueue && index < segments.activity ? 'broker' : undefined
  const writtenBy = (index: number): string | undefined => {
    if (index >= segments.page || index === queuePairHeader.word.state) return 'nobody'
    return index === segments.sendHead || index === segments.receiveHead ? 'broker' : undefined
  }
  return { world, actors, privateTo, writtenBy, atRest, nameOf: (index) => segments.nameOf(index) }
}
