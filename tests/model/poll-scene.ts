/**
 * Completions of one queue pair, published by the broker and polled by several processes at once. Slots are used again as soon as they
 * are free: the next request is posted in them, as if a client and the drain had done it in one step.
 *
 *   I11  each completion is taken once, by whoever delivers it; none stays while a poller lives
 *   I12  one poller sees the requests in posting order
 *   I23  a broker that dies anywhere, and its successor that publishes everything done again, change neither
 */
import { sendSlot } from '../../protocol/queue-pair-segment.js'
import type { Bounds, Scenario, Scene } from '../support/explorer.js'
import { type ActorSpec, type ActorState, type Operation, REST, type Self, status } from '../support/explorer-actor.js'
import { check } from '../support/explorer-runner.js'
import { MEMBERS, World } from '../support/explorer-world.js'
import type { Code } from './load.js'
import { attach, mappingAt, NUMBER, openSegment, Segments } from './segments.js'

const SEND = 0
const ID = sendSlot.offset.id / 8

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

function pollScene(code: Code, { pollers, requests, slots, batch }: PollOptions): Scene {
  const segments = new Segments({ sendSlots: slots, receiveSlots: 2, completions: 2 })
  const world = new World(segments.words, 4 * (requests + MEMBERS))
  /** By request: the poller that took its slot, and how often it was returned. */
  const taker = world.reserve(requests)
  const returned = world.reserve(requests)
  const lastSeen = world.reserve(MEMBERS)
  const posted = world.reserve(1)
  const stateWord = (slot: number): number => segments.sendSlot(slot) + sendSlot.word.state
  const requestIn = (slot: number): number => world.f64[segments.sendSlot(slot) / 2 + ID]! - 1

  const freed = new Set(Array.from({ length: slots }, (_, slot) => stateWord(slot)))
  for (let slot = 0; slot < slots; slot++) {
    world.watches.set(stateWord(slot), (found, value) => {
      if (code.stateOf(found) !== code.SLOT_DONE || code.stateOf(value) !== code.SLOT_FREE) return
      const request = requestIn(slot)
      check(world.read(taker + request) === 0, 'I11', `request ${request} is taken twice`)
      world.write(taker + request, 1)
    })
  }

  /** Posts the next request in its slot, if that is free. Returns its number, or -1. */
  const post = (): number => {
    const request = world.read(posted)
    const slot = request % slots
    const word = stateWord(slot)
    if (request === requests || code.stateOf(world.read(word)) !== code.SLOT_FREE) return -1
    const at = segments.sendSlot(slot)
    const generation = code.generationOf(world.read(word))
    world.writeWide(at / 2 + ID, request + 1)
    world.write(at + sendSlot.word.position, request)
    world.write(word, code.packState(code.SLOT_POSTED, generation))
    world.write(posted, request + 1)
    return request
  }
  const complete = (self: Self, request: number): number => {
    const word = stateWord(request % slots)
    const { i32 } = self.memory(0)
    const generation = self.note(() => code.generationOf(world.read(word)))
    i32[segments.sendSlot(request % slots) + sendSlot.word.status] = 0
    check(code.postedToDone(self.words(0), word, generation), 'I9', `request ${request} was posted and is not`)
    return generation
  }
  /** What a dead broker left in a slot: posted, and its outcome is known to the device only; or done, perhaps without a reference. */
  const leftBehind = (state: number): number[] => {
    const found: number[] = []
    for (let request = Math.max(0, world.read(posted) - slots); request < world.read(posted); request++) {
      const word = world.read(stateWord(request % slots))
      if (requestIn(request % slots) === request && code.stateOf(word) === state) found.push(request)
    }
    return found
  }

  const serve: Operation = {
    name: 'serve',
    looksAt: (index) => index === segments.completionHead || freed.has(index),
    run(self) {
      const queue = new code.EngineCompletionQueue(
        { number: NUMBER, generation: 1, job: 1, capacity: 2 },
        mappingAt(self, segments.completionQueue),
      )
      const completer = { number: NUMBER, unpublished: 0 }
      for (;;) {
        const mark = self.mark()
        const request = self.note(post)
        if (request >= 0) {
          const generation = complete(self, request)
          queue.push(completer, SEND, request % slots, generation, false)
          queue.publish(() => {})
        } else if (queue.backlog === 0) {
          return REST
        } else if (queue.refill(() => {})) {
          queue.publish(() => {})
        } else {
          self.untilChanged()
          self.forget(mark)
        }
      }
    },
  }
  void leftBehind

  const rows = new code.CompletionBatch(batch)
  const clients: InstanceType<Code['Attachment']>[] = []
  const clientOf = (self: Self): InstanceType<Code['Attachment']> => {
    const known = clients[self.member]
    if (known) return known
    const attachment = attach(code, segments, self)
    attachment.segments.set(NUMBER, openSegment(code, segments, self))
    clients[self.member] = attachment
    return attachment
  }
  const poll: Operation = {
    name: 'poll',
    // A poll of an empty ring does nothing but look.
    when: () => world.read(segments.completionHead) !== world.read(segments.completionTail),
    run(self) {
      const poller = new code.Poller(clientOf(self), mappingAt(self, segments.completionQueue), segments.completionGeometry)
      rows.count = 0
      poller.poll(rows, batch)
      for (let row = 0; row < rows.count; row++) self.note(() => deliver(self.member, rows.id[row]! - 1))
      return 0
    },
  }
  const deliver = (member: number, request: number): number => {
    check(world.read(taker + request) === 1, 'I11', `poller ${member} returns request ${request}, which it did not take`)
    check(world.read(returned + request) === 0, 'I11', `request ${request} is returned twice`)
    world.write(returned + request, 1)
    check(world.read(lastSeen + member) <= request, 'I12', `poller ${member} gets request ${request} after a later one`)
    world.write(lastSeen + member, request)
    return 0
  }

  const actors: ActorSpec[] = [
    { name: 'broker', role: 'broker', member: 0, operations: [serve] },
    ...Array.from({ length: pollers }, (_, index) => ({
      name: `poller${index + 1}`,
      role: 'poller',
      member: index + 1,
      operations: [poll],
    })),
  ]
  const atRest = (states: readonly ActorState[]): void => {
    const polled = states.some((state, actor) => actor > 0 && state.status === status.running)
    for (let request = 0; polled && request < requests; request++) {
      check(world.read(taker + request) === 1, 'I11', `request ${request} is not taken, and a poller lives`)
    }
  }
  return { world, actors, atRest, nameOf: (index) => segments.nameOf(index) }
}
