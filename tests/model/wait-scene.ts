/**
 * Processes that wait for completions: arm, look again, sleep on a bell; the engine publishes and rings whoever is armed. Each waiter
 * takes one completion after another, by the real `waitSync`, until it has as many as it wants, and leaves. Nobody's deadline ends a sleep.
 *
 *   I11  each completion is taken once
 *   I13  nobody sleeps while there is something to take
 */
import { opcode, packOperation, workRequestFlag } from '../../protocol/opcodes.js'
import { sendSlot } from '../../protocol/queue-pair-segment.js'
import { status as verdict } from '../../protocol/statuses.js'
import type { Bounds, Scenario, Scene } from '../support/explorer.js'
import { type ActorSpec, type ActorState, type Operation, type Self, status } from '../support/explorer-actor.js'
import { check } from '../support/explorer-runner.js'
import { MEMBERS, World } from '../support/explorer-world.js'
import { boot, turnUntilIdle } from './broker-process.js'
import type { Code } from './load.js'
import { attach, NUMBER, openCompletionQueue, openSegment, Segments } from './segments.js'

const ID = sendSlot.offset.id / 8
const SIGNALED_WRITE = packOperation(opcode.write, workRequestFlag.signaled, 0)

export interface WaitOptions {
  /** How many completions each waiter wants. */
  readonly wants: readonly number[]
  /** Completions that the engine publishes together, one number a turn. */
  readonly turns: readonly number[]
  /** All waiters sleep on one bell, which is wrong. */
  readonly oneBell?: boolean
}

export function waitScenario(code: Code, name: string, options: WaitOptions, bounds: Bounds): Scenario {
  return { name, bounds, begin: (runner) => void (code.explored.bells = runner), scene: () => waitScene(code, options) }
}

type Attachment = InstanceType<Code['Attachment']>

function waitScene(code: Code, { wants, turns, oneBell = false }: WaitOptions): Scene {
  const requests = turns.reduce((sum, count) => sum + count, 0)
  const completions = 2 ** Math.ceil(Math.log2(requests + 1))
  const segments = new Segments({ sendSlots: requests, receiveSlots: 1, completions }, ({ bells }, member) =>
    oneBell ? bells + 1 : bells + member,
  )
  const world = new World(segments.words, requests + MEMBERS)
  const taken = world.reserve(requests)
  const swept = world.reserve(MEMBERS)
  const bellOf = (member: number): number => segments.doorbells[member]!
  const stateWord = (slot: number): number => segments.sendSlot(slot) + sendSlot.word.state

  for (let slot = 0; slot < requests; slot++) {
    world.writeWide(segments.sendSlot(slot) / 2 + ID, slot + 1)
    world.write(segments.sendSlot(slot) + sendSlot.word.operation, SIGNALED_WRITE)
    world.write(stateWord(slot), code.packState(code.SLOT_POSTED, 0))
    world.watches.set(stateWord(slot), (_, value) => {
      if (code.stateOf(value) !== code.SLOT_FREE) return
      check(world.read(taken + slot) === 0, 'I11', `request ${slot} is taken twice`)
      world.write(taken + slot, 1)
    })
  }

  const publish = (turn: number): Operation => ({
    name: 'publish',
    run(self) {
      const { engine, queuePair } = boot(code, segments, self)
      const first = turns.slice(0, turn).reduce((sum, count) => sum + count, 0)
      for (let slot = first; slot < first + turns[turn]!; slot++) {
        const request = code.recordSend(engine, queuePair, slot, 0, slot)
        request.exposed = true
        code.completeUnsent(engine, request, verdict.success)
      }
      turnUntilIdle(engine)
      return undefined
    },
  })
  const dying = (): number =>
    wants.findIndex((_, at) => world.read(world.dead(at + 1)) === 1 && world.read(swept + at + 1) === 0) + 1
  const sweep: Operation = {
    name: 'sweep',
    when: () => dying() !== 0,
    run(self) {
      const member = self.note(dying)
      // What the dead one was rung for, and did not take, is everybody's to look at again.
      for (let other = 1; other <= wants.length; other++) if (other !== member) code.explored.bells?.ring(bellOf(other))
      self.note(() => world.write(swept + member, 1) ?? 0)
      return turns.length
    },
  }

  const attachments: Attachment[] = []
  const attachmentOf = (self: Self): Attachment => {
    const known = attachments[self.member]
    if (known) return known
    const attachment = attach(code, segments, self, bellOf(self.member))
    attachment.segments.set(NUMBER, openSegment(code, segments, self))
    attachments[self.member] = attachment
    return attachment
  }
  const rows = new code.CompletionBatch(1)
  const takeOne: Operation = {
    name: 'take',
    run(self) {
      const attachment = attachmentOf(self)
      const queue = openCompletionQueue(code, segments, self, attachment)
      attachment.completionQueues.delete(queue)
      while (queue.pollInto(rows, 1) === 0) queue.waitSync()
      return undefined
    },
  }
  const actors: ActorSpec[] = [
    ...wants.map((count, index) => ({
      name: `waiter${index + 1}`,
      role: 'waiter',
      member: index + 1,
      operations: Array.from({ length: count }, () => takeOne),
    })),
    { name: 'broker', role: 'broker', member: -1, operations: [...turns.map((_, turn) => publish(turn)), sweep] },
  ]
  const atRest = (states: readonly ActorState[]): void => {
    const waiting = wants.findIndex((_, index) => states[index]!.status === status.running)
    if (waiting < 0) return
    for (let request = 0; request < requests; request++) {
      check(
        world.read(taken + request) === 1,
        'I13',
        `waiter ${waiting + 1} sleeps, and request ${request} can be taken`,
      )
    }
  }
  const writtenBy = (index: number): string | undefined => {
    if (index >= segments.bells) return undefined
    if (index >= segments.activity || index === segments.queuePairStateWord) return 'nobody'
    const published = index === segments.completionTail || index >= segments.completionEntries
    return published && index >= segments.completionQueue ? 'broker' : undefined
  }
  return { world, actors, writtenBy, atRest, nameOf: (index) => segments.nameOf(index) }
}
