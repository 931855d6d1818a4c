/**
 * Completions of one queue pair, published by the real engine and polled by several processes at once. Slots are used again as soon as
 * they are free: the next request is posted in them, as if a client and the drain had done it in one step, and the device has finished
 * it at once.
 *
 *   I11  each completion is taken once, by whoever returns it; none stays while a poller lives
 *   I12  one poller sees the requests in posting order
 *   I23  a broker that dies anywhere, and a successor that publishes everything done again, change neither
 */
import { side } from '../../protocol/completion-queue-segment.js'
import { opcode, packOperation, workRequestFlag } from '../../protocol/opcodes.js'
import { sendSlot } from '../../protocol/queue-pair-segment.js'
import { status as verdict } from '../../protocol/statuses.js'
import type { Bounds, Scenario, Scene } from '../support/explorer.js'
import { type ActorSpec, type ActorState, type Operation, REST, type Self, status } from '../support/explorer-actor.js'
import { check } from '../support/explorer-runner.js'
import { MEMBERS, World } from '../support/explorer-world.js'
import { type BrokerProcess, boot } from './broker-process.js'
import type { Code } from './load.js'
import { attach, mappingAt, NUMBER, openSegment, Segments } from './segments.js'

const ID = sendSlot.offset.id / 8
const SIGNALED_WRITE = packOperation(opcode.write, workRequestFlag.signaled, 0)
const SERVE = 1

export interface PollOptions {
  readonly pollers: number
  readonly requests: number
  readonly slots: number
  /** Completions that one poll takes at most. */
  readonly batch: number
}

export function pollScenario(code: Code, name: string, options: PollOptions, bounds: Bounds): Scenario {
  return { name, bounds, begin: (runner) => void (code.explored.bells = runner), scene: () => pollScene(code, options) }
}

type Attachment = InstanceType<Code['Attachment']>

function pollScene(code: Code, { pollers, requests, slots, batch }: PollOptions): Scene {
  const segments = new Segments({ sendSlots: slots, receiveSlots: 1, completions: 2 })
  const world = new World(segments.words, 2 * requests + MEMBERS + 1)
  /** By request: whether its slot was taken, and whether a poll has returned it. */
  const taken = world.reserve(requests)
  const returned = world.reserve(requests)
  const lastSeen = world.reserve(MEMBERS)
  const posted = world.reserve(1)
  const slotWords = Array.from({ length: slots }, (_, slot) => segments.sendSlot(slot) + sendSlot.word.state)
  const slotStates = new Set(slotWords)

  slotWords.forEach((word, slot) => {
    world.watches.set(word, (found, value) => {
      if (code.stateOf(found) !== code.SLOT_DONE || code.stateOf(value) !== code.SLOT_FREE) return
      const request = world.f64[segments.sendSlot(slot) / 2 + ID]! - 1
      check(world.read(taken + request) === 0, 'I11', `request ${request} is taken twice`)
      world.write(taken + request, 1)
    })
  })

  /** Posts the next request in its slot, if that is free. Returns its number, or -1. */
  const post = (): number => {
    const request = world.read(posted)
    const found = world.read(slotWords[request % slots]!)
    if (request === requests || code.stateOf(found) !== code.SLOT_FREE) return -1
    const at = segments.sendSlot(request % slots)
    world.writeWide(at / 2 + ID, request + 1)
    world.write(at + sendSlot.word.operation, SIGNALED_WRITE)
    world.write(at + sendSlot.word.position, request)
    world.write(at + sendSlot.word.state, code.packState(code.SLOT_POSTED, code.generationOf(found)))
    world.write(segments.sendTail, request + 1)
    world.write(segments.sendHead, request + 1)
    return world.write(posted, request + 1) ?? request
  }
  const succeed = ({ engine, queuePair }: BrokerProcess, slot: number, generation: number, position: number): void => {
    const request = code.recordSend(engine, queuePair, slot, generation, position)
    request.exposed = true
    code.completeUnsent(engine, request, verdict.success)
  }
  const looksAt = (index: number): boolean => index === segments.completionHead || slotStates.has(index)
  const recover: Operation = {
    name: 'recover',
    looksAt,
    run(self) {
      const broker = boot(code, segments, self)
      check(code.finishVisits(broker.queuePair), 'I11', 'an honest ring was taken for corrupt')
      const left = code.leftInSendSlots(broker.queuePair)
      check(left !== undefined, 'I11', 'an honest slot was taken for corrupt')
      code.republish(broker.engine, broker.queuePair, side.send, left!.done)
      for (const { slot, generation, position } of left!.posted) succeed(broker, slot, generation, position)
      return serveOn(self, broker)
    },
  }
  const serveOn = (self: Self, broker: BrokerProcess): number => {
    for (;;) {
      const mark = self.mark()
      const request = self.note(post)
      if (request >= 0) {
        const generation = self.note(() => code.generationOf(world.read(slotWords[request % slots]!)))
        succeed(broker, request % slots, generation, request)
      }
      const work = broker.engine.turn(0, 0)
      const busy = request >= 0 || work > 0
      if (broker.queuePair.sendQueue.backlog === 0) return busy ? SERVE : REST
      if (busy) continue
      self.untilChanged()
      self.forget(mark)
    }
  }
  const serve: Operation = {
    name: 'serve',
    looksAt,
    run: (self) => serveOn(self, boot(code, segments, self)),
  }

  const rows = new code.CompletionBatch(batch)
  const attachments: Attachment[] = []
  const attachmentOf = (self: Self): Attachment => {
    const known = attachments[self.member]
    if (known) return known
    const attachment = attach(code, segments, self)
    attachment.segments.set(NUMBER, openSegment(code, segments, self))
    attachments[self.member] = attachment
    return attachment
  }
  const poll: Operation = {
    name: 'poll',
    // A poll of an empty ring does nothing but look.
    when: () => world.read(segments.completionHead) !== world.read(segments.completionTail),
    run(self) {
      const mapping = mappingAt(self, segments.completionQueue)
      const poller = new code.Poller(attachmentOf(self), mapping, segments.completionGeometry)
      rows.count = 0
      poller.poll(rows, batch)
      for (let row = 0; row < rows.count; row++) {
        const request = rows.id[row]! - 1
        self.note(() => take(self.member, request))
      }
      return 0
    },
  }
  const take = (member: number, request: number): number => {
    check(
      world.read(taken + request) === 1,
      'I11',
      `poller ${member} returns request ${request}, which it did not take`,
    )
    check(world.read(returned + request) === 0, 'I11', `request ${request} is returned twice`)
    check(world.read(lastSeen + member) <= request, 'I12', `poller ${member} gets request ${request} after a later one`)
    world.write(returned + request, 1)
    world.write(lastSeen + member, request)
    return 0
  }

  const actors: ActorSpec[] = [
    { name: 'broker', role: 'broker', member: -1, operations: [recover, serve], startsAt: SERVE, restartsAt: 0 },
    ...Array.from({ length: pollers }, (_, index) => ({
      name: `poller${index + 1}`,
      role: 'poller',
      member: index + 1,
      operations: [poll],
    })),
  ]
  const atRest = (states: readonly ActorState[]): void => {
    if (!states.some((state, actor) => actor > 0 && state.status === status.running)) return
    for (let request = 0; request < requests; request++) {
      check(world.read(taken + request) === 1, 'I11', `request ${request} is not taken, and a poller lives`)
    }
  }
  const writtenBy = (index: number): string | undefined => {
    const published = index === segments.completionTail || index >= segments.completionEntries
    if (index >= segments.activity || index === segments.queuePairStateWord) return 'nobody'
    if (index >= segments.armedRoot && index < segments.completionEntries) return 'nobody'
    return published && index >= segments.completionQueue ? 'broker' : undefined
  }
  return { world, actors, writtenBy, atRest, nameOf: (index) => segments.nameOf(index) }
}
