/**
 * Clients that take a robust lock, change a structure of two words under it and give it back; a broker that sweeps after each death and
 * may die itself. The structure is consistent when both words are equal; repairing it makes them so.
 *
 *   I1  at most one living holder; who releases finds his own name
 *   I2  the structure is never used unrepaired, and repaired by one at a time
 *   I3  nobody who lives sleeps for ever
 *   I4  a stopped holder is never replaced: it lives, so I1 says it
 *   I5  at rest no word names a dead member
 */
import type { Bounds, Scenario, Scene } from '../support/explorer.js'
import { type ActorSpec, type ActorState, access, type Operation, type Self, status } from '../support/explorer-actor.js'
import { check } from '../support/explorer-runner.js'
import { MEMBERS, World } from '../support/explorer-world.js'
import type { Code } from './load.js'

const LOCK = 0
const LEFT = 1
const RIGHT = 2

export interface LockOptions {
  readonly clients: number
  /** How often each takes the lock. */
  readonly rounds: number
  readonly sweeper: boolean
  /** How long a client waits for a living holder. */
  readonly patienceMs?: number
  /** A new broker looks for locks in the name of its predecessor. */
  readonly adopts?: boolean
}

export function lockScenario(code: Code, name: string, options: LockOptions, bounds: Bounds): Scenario {
  return { name, bounds, begin: (runner) => void (code.explored.bells = runner), scene: () => lockScene(code, options) }
}

function lockScene(code: Code, { clients, rounds, sweeper, patienceMs = 1e9, adopts = true }: LockOptions): Scene {
  const world = new World(4, 2 * MEMBERS + 2)
  const holding = world.reserve(MEMBERS)
  const swept = world.reserve(MEMBERS)
  const epoch = world.reserve(1)

  const enter = (member: number): number => {
    world.write(holding + member, 1)
    for (let other = 0; other < MEMBERS; other++) {
      const alone = other === member || world.read(holding + other) === 0
      check(alone, member === 0 ? 'I2' : 'I1', `member ${member} has the lock and so has ${other}`)
    }
    return 0
  }
  const leave = (member: number): number => {
    world.write(holding + member, 0)
    return 0
  }
  const repair = (self: Self): void => {
    const words = self.words(0)
    words.store(RIGHT, words.load(LEFT))
  }

  const use = (self: Self): undefined => {
    const { member } = self
    const words = self.words(0)
    const lock = new code.RobustLock(words, LOCK, self.liveness, { spins: 0, nowMs: code.explorerClock.now })
    const owner = code.ownerWord(member, 1)
    const result = lock.acquire(owner, patienceMs)
    if (result === 'busy') return undefined
    self.note(() => enter(member))
    if (result === 'owner-died') repair(self)
    const left = words.load(LEFT)
    check(left === words.load(RIGHT), 'I2', 'the structure is used before it is repaired')
    words.store(LEFT, 1 - left)
    words.store(RIGHT, 1 - left)
    self.note(() => leave(member))
    check(lock.release(owner), 'I1', `the lock does not name its holder ${member}`)
    return undefined
  }

  const dying = (): number => {
    for (let member = 1; member <= clients; member++) {
      if (world.read(world.dead(member)) === 1 && world.read(swept + member) === 0) return member
    }
    return 0
  }
  const sweepOf = (self: Self, member: number): void => {
    const owner = code.ownerWord(0, 1 + self.note(() => world.read(epoch)))
    code.sweepLock(self.words(0), LOCK, member, owner, () => {
      self.note(() => enter(0))
      repair(self)
      self.note(() => leave(0))
    })
  }
  const adopt: Operation = {
    name: 'adopt',
    run(self) {
      // The new broker holds the token of member 0, so nobody else takes over what its predecessor held.
      self.note(() => {
        world.write(world.dead(0), 0)
        return 0
      })
      if (adopts) sweepOf(self, 0)
      return undefined
    },
  }
  const sweep: Operation = {
    name: 'sweep',
    when: () => dying() !== 0,
    run(self) {
      const member = self.note(dying)
      sweepOf(self, member)
      self.note(() => {
        world.write(swept + member, 1)
        return 0
      })
      return 1
    },
  }

  const once: Operation = {
    name: 'use',
    // The only load of the lock's word is at the head of the waiting loop, which keeps nothing but the deadline.
    loopsAt: (kind, index) => kind === access.load && index === LOCK,
    run: use,
  }
  const actors: ActorSpec[] = Array.from({ length: clients }, (_, index) => ({
    name: `client${index + 1}`,
    role: 'client',
    member: index + 1,
    operations: Array.from({ length: rounds }, () => once),
    died: () => void leave(index + 1),
  }))
  const broker: ActorSpec = {
    name: 'broker',
    role: 'broker',
    member: 0,
    operations: [adopt, sweep],
    startsAt: 1,
    restartsAt: 0,
    died: () => {
      leave(0)
      world.write(epoch, world.read(epoch) + 1)
    },
  }

  const atRest = (states: readonly ActorState[]): void => {
    const stopped = states.some((state) => state.status === status.stopped)
    for (let client = 0; client < clients; client++) {
      check(states[client]!.status !== status.running || stopped, 'I3', `client ${client + 1} waits and nobody will wake it`)
    }
    if (!sweeper || stopped) return
    const word = world.read(LOCK)
    check(word === 0, 'I5', `at rest the lock names member ${code.ownerMember(word)}`)
    check(world.read(LEFT) === world.read(RIGHT), 'I2', 'at rest the structure is not repaired')
  }
  return { world, actors: sweeper ? [...actors, broker] : actors, atRest }
}
