/**
 * Several processes post lists to one queue pair; the broker takes, executes and completes them, and sweeps after deaths. The queue pair
 * is connected to itself and requests are writes of no bytes: executed at once, successes unsignalled, so slots are free again at once.
 *
 *   I6   executed = published, in the published order, with whole bodies; nothing twice
 *   I7   at rest every slot is free
 *   I8   each process's requests in the order in which it posted them
 *   I9   every published request gets one verdict: success, or unknown when its broker died while it was posted
 *   I10  whoever lives gets everything posted, whoever dies or stops
 *   I5   at rest no lock names a dead member
 *   I11  with pollers, requests are signalled: each completion is taken once, none stays while a poller lives
 *   I12  one poller sees the requests in the published order
 *   I21  the number of a dead member is given away only when nothing in shared memory is its
 *   I23  recovery may die and be repeated: the broker's deaths count there too
 */

import type { LeftInSlots } from '../../broker/engine/recovery.js'
import { sendSlot } from '../../protocol/queue-pair-segment.js'
import { status as verdict } from '../../protocol/statuses.js'
import type { Bounds, Scenario, Scene } from '../support/explorer.js'
import {
  type ActorSpec,
  type ActorState,
  access,
  type Operation,
  type Pending,
  REST,
  type Self,
  status,
} from '../support/explorer-actor.js'
import { check } from '../support/explorer-runner.js'
import { MEMBERS, World } from '../support/explorer-world.js'
import { type BrokerProcess, boot, turnUntilIdle } from './broker-process.js'
import type { Code } from './load.js'
import { attach, mappingAt, NUMBER, openSegment, Segments } from './segments.js'

const ID = sendSlot.offset.id / 8
const SERVE = 4

export interface PostOptions {
  /** For each client the lengths of the lists it posts, one after another. */
  readonly lists: readonly (readonly number[])[]
  readonly slots: number
  /** The engine sleeps when it has nothing to do, and clients ring it. */
  readonly sleeps?: boolean
  /** Processes that poll for the completions of all. */
  readonly pollers?: number
  /** The last list's client has the number of the first, once that died: when its sweep is done, or, wrongly, at once. */
  readonly reuse?: 'after-sweep' | 'at-once'
  /** What a successor does; a mutant leaves something out. */
  readonly recovery?: Partial<RecoverySteps>
}

export interface RecoverySteps {
  /** Drains the ring whatever the activity bits say. */
  readonly drains: boolean
  /** Clears the activity bits before it drains, not after. */
  readonly clearsFirst: boolean
}

export function postScenario(code: Code, name: string, options: PostOptions, bounds: Bounds): Scenario {
  return { name, bounds, begin: (runner) => void (code.explored.bells = runner), scene: () => postScene(code, options) }
}

type Attachment = InstanceType<Code['Attachment']>

function postScene(code: Code, options: PostOptions): Scene {
  const { lists, slots, sleeps = false, pollers = 0, reuse, recovery = {} } = options
  const { drains = true, clearsFirst = true } = recovery
  const segments = new Segments({ sendSlots: slots, receiveSlots: 1, completions: pollers > 0 ? 16 : 8 })
  const total = lists.flat().reduce((sum, length) => sum + length, 0)
  const world = new World(segments.words, 5 * total + 4 * MEMBERS + 4)
  /** Requests are numbered from 0 by client and order; their id is one more. */
  const published = world.reserve(total)
  const executed = world.reserve(total)
  const verdicts = world.reserve(total)
  /** How often a poller has taken it, and the order of the last that each has got. */
  const taken = world.reserve(total)
  const lastSeen = world.reserve(MEMBERS)
  const publishedCount = world.reserve(1)
  const executedUpTo = world.reserve(1)
  const epoch = world.reserve(1)
  const progress = world.reserve(MEMBERS)
  /** Deaths that the broker has noted and not finished to sweep; kept in the node file, so a new broker knows them. */
  const owed = world.reserve(MEMBERS)
  const stateWord = (slot: number): number => segments.sendSlot(slot) + sendSlot.word.state
  const requestIn = (slot: number): number => world.f64[segments.sendSlot(slot) / 2 + ID]! - 1
  /** The engine whose step is under way, for looking at its private record of a request. */
  let serving: BrokerProcess | undefined

  // ---- what is observed ---------------------------------------------------------------------------------------------------

  const orderOf = (request: number): number => {
    for (let at = 0; at < world.read(publishedCount); at++) if (world.read(published + at) === request) return at
    return -1
  }
  world.watches.set(segments.sendTail, (found, tail) => {
    for (let position = found; position !== tail; position++) {
      const slot = world.read(segments.sendEntry(position)) - 1
      const request = requestIn(slot)
      const count = world.read(publishedCount)
      check(count < total && request >= 0, 'I6', `position ${position} publishes more than was posted`)
      check(orderOf(request) < 0, 'I6', `request ${request} is published twice`)
      world.write(published + count, request)
      world.write(publishedCount, count + 1)
    }
  })
  const execute = (slot: number): void => {
    const request = requestIn(slot)
    const record = serving!.queuePair.flow!.waiting.head!
    check(
      record.slot === slot && record.remoteOffset === request,
      'I6',
      `request ${request} is executed as ${record.remoteOffset}`,
    )
    const order = orderOf(request)
    check(order >= 0, 'I6', `request ${request} is executed and was not published`)
    check(world.read(executed + request) === 0, 'I6', `request ${request} is executed twice`)
    check(order >= world.read(executedUpTo), 'I6', `request ${request} is executed after a later one`)
    world.write(executed + request, 1)
    world.write(executedUpTo, order + 1)
  }
  const settle = (slot: number): void => {
    const request = requestIn(slot)
    check(world.read(executed + request) === 1, 'I9', `request ${request} has a verdict and was not executed`)
    check(world.read(verdicts + request) === 0, 'I9', `request ${request} has two verdicts`)
    world.write(verdicts + request, 1)
  }
  const take = (slot: number): void => {
    const request = requestIn(slot)
    check(world.read(taken + request) === 0, 'I11', `request ${request} is taken twice`)
    world.write(taken + request, 1)
  }
  for (let slot = 0; slot < slots; slot++) {
    world.watches.set(stateWord(slot), (found, value) => {
      if (code.stateOf(value) === code.SLOT_POSTED) execute(slot)
      else if (code.stateOf(found) === code.SLOT_POSTED) settle(slot)
      else if (code.stateOf(found) === code.SLOT_DONE) take(slot)
      else if (code.stateOf(value) === code.SLOT_DONE) check(false, 'I9', 'a request was refused')
    })
  }

  // ---- clients ------------------------------------------------------------------------------------------------------------

  const attachments: Attachment[] = []
  const attachmentOf = (self: Self, actor: number, generation = 1): Attachment => {
    const known = attachments[actor]
    if (known) return known
    const attachment = attach(code, segments, self, segments.bells + self.member, generation)
    attachment.segments.set(NUMBER, openSegment(code, segments, self))
    attachments[actor] = attachment
    return attachment
  }
  const isSecond = (client: number): boolean => reuse !== undefined && client === lists.length - 1
  const memberOf = (client: number): number => (isSecond(client) ? 1 : client + 1)
  const openQueuePair = (self: Self, client: number): InstanceType<Code['QueuePair']> => {
    const attachment = attachmentOf(self, client, isSecond(client) ? 2 : 1)
    const queues = { share: () => null } as unknown as InstanceType<Code['CompletionQueue']>
    const opened = new code.QueuePair(attachment, openSegment(code, segments, self), queues, queues)
    attachment.queuePairs.delete(opened)
    return opened
  }
  const firstOf = (client: number, list: number): number =>
    lists
      .slice(0, client)
      .flat()
      .concat(lists[client]!.slice(0, list))
      .reduce((sum, length) => sum + length, 0)
  const clientOf = (request: number): number =>
    lists.findIndex(
      (_, client) => request < firstOf(client, 0) + lists[client]!.reduce((sum, length) => sum + length, 0),
    )
  const postList = (client: number, list: number): Operation => ({
    name: 'post',
    looksAt: (index) => slotStates.has(index),
    run(self) {
      const done = self.note(() => world.read(progress + client))
      const first = firstOf(client, list)
      const requests = []
      for (let request = first + done; request < first + lists[client]![list]!; request++) {
        requests.push({
          opcode: 'write' as const,
          id: request + 1,
          remote: { key: 1, offset: request },
          signaled: pollers > 0,
        })
      }
      const queuePair = openQueuePair(self, client)
      const accepted = queuePair.postSend(requests)
      // Busy: a stopped process holds the lock, and this list is given up.
      const ends = accepted === requests.length || queuePair.lastRefusal === 'busy'
      self.note(() => world.write(progress + client, ends ? 0 : done + accepted) ?? 0)
      return ends ? undefined : REST
    },
  })
  const slotStates = new Set(Array.from({ length: slots }, (_, slot) => stateWord(slot)))
  const attachAgain: Operation = {
    name: 'attach',
    when: () => world.read(world.dead(1)) === 1 && (reuse === 'at-once' || world.read(owed + 1) === 0),
    run: (self) => self.note(() => world.write(world.dead(1), 0) ?? 1),
  }
  const clients: ActorSpec[] = lists.map((lengths, client) => ({
    name: isSecond(client) ? 'again' : `client${client + 1}`,
    role: isSecond(client) ? 'again' : 'client',
    member: memberOf(client),
    operations: [...(isSecond(client) ? [attachAgain] : []), ...lengths.map((_, list) => postList(client, list))],
    livesFrom: isSecond(client) ? 1 : 0,
    died: () => {
      world.write(owed + memberOf(client), 1)
      world.write(segments.bells, 1)
    },
  }))

  // ---- the broker ---------------------------------------------------------------------------------------------------------

  const activityWords = segments.page - segments.activity
  const locks = [segments.sendLock]
  const sweepLocks = (self: Self, member: number): void => {
    const owner = code.ownerWord(0, 1 + self.note(() => world.read(epoch)))
    for (const lock of locks) code.sweepLock(self.words(segments.queuePair), lock, member, owner, () => {})
  }
  const dying = (): number => {
    for (let member = 1; member <= lists.length; member++) if (world.read(owed + member) === 1) return member
    return 0
  }
  /** `execute` looks at the engine's private record. */
  const executes = ({ index, second }: Pending): boolean =>
    slotStates.has(index) && code.stateOf(second) === code.SLOT_POSTED
  // One operation for each step of recovery whose outcome lies in the segments alone.
  const adopt: Operation = {
    name: 'adopt',
    run(self) {
      // The successor holds the token of member 0 from here on.
      self.note(() => world.write(world.dead(0), 0) ?? 0)
      sweepLocks(self, 0)
      return undefined
    },
  }
  const conclude: Operation = {
    name: 'conclude',
    liveAt: executes,
    run(self) {
      const { engine, queuePair } = (serving = boot(code, segments, self))
      check(code.finishVisits(queuePair), 'I6', 'an honest ring was taken for corrupt')
      const { done, posted } = leftInSendSlots(queuePair)
      code.republish(engine, queuePair, 0, done)
      for (const { slot, generation, position } of posted) {
        const request = code.recordSend(engine, queuePair, slot, generation, position)
        request.exposed = true
        code.completeUnsent(engine, request, verdict.unknown)
      }
      // As its first turn would, which comes later here, in an engine that knows nothing of these.
      queuePair.sendQueue.publish()
      return undefined
    },
  }
  const clear: Operation = {
    name: 'clear',
    run(self) {
      code.clearAll(self.words(segments.activity), 0)
      return undefined
    },
  }
  const drain: Operation = {
    name: 'drain',
    liveAt: executes,
    run(self) {
      const { engine, queuePair } = (serving = boot(code, segments, self))
      code.retakeSends(engine, queuePair, leftInSendSlots(queuePair).queued)
      if (drains) while (code.drainSends(engine, queuePair, 4096));
      turnUntilIdle(engine)
      return undefined
    },
  }
  const leftInSendSlots = (queuePair: BrokerProcess['queuePair']): LeftInSlots => {
    const left = code.leftInSendSlots(queuePair)
    check(left !== undefined, 'I6', 'an honest slot was taken for corrupt')
    return left!
  }
  const serve: Operation = {
    name: 'serve',
    liveAt: executes,
    looksAt: (index) => index >= segments.activity && index < segments.activity + activityWords,
    run(self) {
      const member = self.note(dying)
      const { engine, queuePair } = (serving = boot(code, segments, self))
      if (member === 0) {
        const work = turnUntilIdle(engine)
        if (sleeps) pause(self, engine)
        return sleeps || work > 0 ? SERVE : REST
      }
      sweepLocks(self, member)
      code.sweepQueuePair(engine, queuePair, member)
      turnUntilIdle(engine)
      self.note(() => world.write(owed + member, 0) ?? 0)
      return SERVE
    },
  }
  const pause = (self: Self, engine: BrokerProcess['engine']): void => {
    const idle = new code.Idle('block', segments.bells, self.words(segments.page), [])
    // The control plane learns of a death, sends its command and rings, in this order.
    idle.pause(
      0,
      () => self.note(dying) !== 0 || engine.restless,
      () => 1e9,
      () => 0,
    )
  }
  const broker: ActorSpec = {
    name: 'broker',
    role: 'broker',
    member: 0,
    operations: [adopt, conclude, ...(clearsFirst ? [clear, drain] : [drain, clear]), serve],
    startsAt: SERVE,
    restartsAt: 0,
    died: () => world.write(epoch, world.read(epoch) + 1),
  }

  /** Takes what a successor could only call unknown, so that its slot serves again. */
  const firstDone = (): number => {
    for (const word of slotStates) if (code.stateOf(world.read(word)) === code.SLOT_DONE) return word
    return -1
  }
  const poll: Operation = {
    name: 'poll',
    when: () => firstDone() >= 0,
    run(self) {
      const word = self.note(firstDone)
      code.doneToFree(self.words(0), word, code.generationOf(self.note(() => world.read(word))))
      return 0
    },
  }
  const poller: ActorSpec = { name: 'poller', role: 'poller', member: -1, operations: [poll] }

  const rows = new code.CompletionBatch(1)
  const pollReally: Operation = {
    name: 'poll',
    when: () => world.read(segments.completionHead) !== world.read(segments.completionTail),
    run(self) {
      const mapping = mappingAt(self, segments.completionQueue)
      const real = new code.Poller(attachmentOf(self, self.member), mapping, segments.completionGeometry)
      rows.count = 0
      real.poll(rows, 1)
      if (rows.count === 0) return 0
      const request = rows.id[0]! - 1
      return self.note(() => seen(self.member, request))
    },
  }
  const seen = (member: number, request: number): number => {
    const order = orderOf(request)
    check(world.read(taken + request) === 1, 'I11', `poller ${member} gets request ${request}, which it did not take`)
    check(world.read(lastSeen + member) <= order, 'I12', `poller ${member} gets request ${request} after a later one`)
    world.write(lastSeen + member, order)
    return 0
  }
  const realPollers: ActorSpec[] = Array.from({ length: pollers }, (_, index) => ({
    name: `poller${index + 1}`,
    role: 'poller',
    member: lists.length + 1 + index,
    operations: [pollReally],
  }))

  const atRest = (states: readonly ActorState[]): void => {
    const polled = states.slice(lists.length + 1).some((state) => state.status === status.running)
    for (let client = 0; client < lists.length; client++) {
      const absent = isSecond(client) && states[client]!.operation === 0
      check(
        absent || states[client]!.status !== status.running,
        'I10',
        `client ${client + 1} lives and its requests are not posted`,
      )
    }
    const isStopped = (member: number): boolean => states[member - 1]?.status === status.stopped
    const asleep = sleeps && states[lists.length]!.pending?.kind === access.hear
    for (let at = 0; at < world.read(publishedCount); at++) {
      const request = world.read(published + at)
      // Who stopped between the commit and the activity bits says it when it goes on, or the next poster does.
      if (isStopped(clientOf(request) + 1)) continue
      check(!asleep || world.read(verdicts + request) === 1, 'I13', `the engine sleeps and request ${request} waits`)
      check(world.read(verdicts + request) === 1, 'I9', `request ${request} was published and has no verdict`)
      const waits = pollers > 0 && polled && world.read(taken + request) === 0
      check(!waits, 'I11', `request ${request} is not taken, and a poller lives`)
    }
    for (let slot = 0; slot < slots; slot++) {
      const word = world.read(stateWord(slot))
      const state = code.stateOf(word)
      const kept = state === code.SLOT_CLAIMED && isStopped(code.claimerOf(word))
      const unread = state === code.SLOT_DONE && !polled
      check(kept || unread || state === code.SLOT_FREE, 'I7', `at rest slot ${slot} is in state ${state}`)
    }
    const lock = world.read(segments.sendLock)
    check(
      lock === 0 || isStopped(code.ownerMember(lock)),
      'I5',
      `at rest the lock names member ${code.ownerMember(lock)}`,
    )
  }
  const privateTo = (index: number): string | undefined => {
    if (index >= segments.completionQueue && index < segments.activity) return pollers > 0 ? undefined : 'broker'
    return index >= segments.receiveSlot(0) && index < segments.completionQueue ? 'broker' : undefined
  }
  const writtenBy = (index: number): string | undefined => {
    if (index === segments.sendHead || index === segments.queuePairStateWord) return 'broker'
    const published = index === segments.completionTail || index >= segments.completionEntries
    if (published && index >= segments.completionQueue && index < segments.activity) return 'broker'
    if (sleeps && index === segments.sleeping) return 'broker'
    if (sleeps && index >= segments.bells) return undefined
    return index >= segments.page ? 'nobody' : undefined
  }
  // Who holds the lock alone moves the tail, and nobody reads entries beyond it.
  const commutes = (member: number, kind: number, index: number): boolean => {
    if (member === 0 || code.ownerMember(world.read(segments.sendLock)) !== member) return false
    const tail = world.read(segments.sendTail)
    if (kind === access.load) return index === segments.sendTail
    if (kind !== access.store) return false
    for (let position = world.read(segments.sendHead); position !== tail; position++) {
      if (index === segments.sendEntry(position)) return false
    }
    return index >= segments.sendEntry(0) && index < segments.sendEntry(0) + slots
  }
  const digest = (member: number, kind: number, index: number, result: number): number => {
    // Nobody looks at what an OR found.
    if (kind === access.or) return 0
    if (member === 0 || member > lists.length) return result
    // A client looks for free slots, and at whether the lock is free; what else they are is the same to it.
    if (kind === access.load && slotStates.has(index)) return code.stateOf(result) === code.SLOT_FREE ? result : 1
    if (kind === access.compareExchange && index === segments.sendLock) return result === 0 ? 0 : 1
    // There is room, or the ring is corrupt.
    return index === segments.sendHead ? 0 : result
  }
  return {
    world,
    actors: [...clients, broker, ...(pollers > 0 ? realPollers : [poller])],
    privateTo,
    writtenBy,
    commutes,
    digest,
    atRest,
    nameOf: (index) => segments.nameOf(index),
  }
}
