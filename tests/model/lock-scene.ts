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
import {
  type ActorSpec,
  type ActorState,
  access,
  type Operation,
  type Self,
  status,
} from '../support/explorer-actor.js'
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
  /** A new broker looks for locks in the name of its predecessor; a mutant does not. */
  readonly adopts?: boolean
  /** Another session gets the number of a dead one: when its sweep is done, or, wrongly, at once. */
  readonly reuse?: 'after-sweep' | 'at-once'
}

export function lockScenario(code: Code, name: string, options: LockOptions, bounds: Bounds): Scenario {
  return { name, bounds, begin: (runner) => void (code.explored.bells = runner), scene: () => lockScene(code, options) }
}

function lockScene(code: Code, options: LockOptions): Scene {
  const { clients, rounds, sweeper, patienceMs = 1e9, adopts = true, reuse } = options
  const world = new World(4, 2 * MEMBERS + 2)
  const holding = world.reserve(MEMBERS)
  /** Deaths that the broker has noted and not finished to sweep; kept in the node file, so a new broker knows them. */
  const owed = world.reserve(MEMBERS)
  const epoch = world.reserve(1)

  const enter = (member: number): number => {
    world.write(holding + member, 1)
    for (let other = 0; other < MEMBERS; other++) {
      const alone = other === member || world.read(holding + other) === 0
      check(alone, member * other === 0 ? 'I2' : 'I1', `member ${member} has the lock and so has ${other}`)
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

  const use = (self: Self, generation: number): undefined => {
    const { member } = self
    const words = self.words(0)
    const lock = new code.RobustLock(words, LOCK, self.liveness, { spins: 0, nowMs: code.explorerClock.now })
    const owner = code.ownerWord(member, generation)
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
    for (let member = 1; member <= clients; member++) if (world.read(owed + member) === 1) return member
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
      self.note(() => world.write(world.dead(0), 0) ?? 0)
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
      self.note(() => world.write(owed + member, 0) ?? 0)
      return 1
    },
  }

  const once = (generation: number): Operation => ({
    name: 'use',
    // The only load of the lock's word is at the head of the waiting loop, which keeps nothing but the deadline.
    loopsAt: (kind, index) => kind === access.load && index === LOCK,
    run: (self) => use(self, generation),
  })
  const died = (member: number): void => {
    leave(member)
    world.write(owed + member, 1)
  }
  const actors: ActorSpec[] = Array.from({ length: clients }, (_, index) => ({
    name: `client${index + 1}`,
    role: 'client',
    member: index + 1,
    operations: Array.from({ length: rounds }, () => once(1)),
    died: () => died(index + 1),
  }))
  const attachAgain: Operation = {
    name: 'attach',
    when: () => world.read(world.dead(1)) === 1 && (reuse === 'at-once' || world.read(owed + 1) === 0),
    run: (self) => self.note(() => world.write(world.dead(1), 0) ?? 1),
  }
  if (reuse) {
    const operations = [attachAgain, once(2)]
    actors.push({ name: 'again', role: 'again', member: 1, operations, livesFrom: 1, died: () => died(1) })
  }
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
    if (reuse && states[clients]!.status === status.running && states[clients]!.operation === 1) {
      check(stopped, 'I3', 'the second session of member 1 waits and nobody will wake it')
    }
    for (let client = 0; client < clients; client++) {
      check(
        states[client]!.status !== status.running || stopped,
        'I3',
        `client ${client + 1} waits and nobody will wake it`,
      )
    }
    if (!sweeper || stopped) return
    const word = world.read(LOCK)
    check(word === 0, 'I5', `at rest the lock names member ${code.ownerMember(word)}`)
    check(world.read(LEFT) === world.read(RIGHT), 'I2', 'at rest the structure is not repaired')
  }
  return { world, actors: sweeper ? [...actors, broker] : actors, atRest }
}
