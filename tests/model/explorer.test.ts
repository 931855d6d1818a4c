/** The explorer itself: what it counts on worlds so small that the numbers are known, and that what it finds can be done again. */
import test from 'ava'
import { type Bounds, explore, replay, type Scenario } from '../support/explorer.js'
import { type ActorState, type Operation, type Self, status } from '../support/explorer-actor.js'
import { check } from '../support/explorer-runner.js'
import { World } from '../support/explorer-world.js'

interface Toy {
  readonly operations: (actor: number) => readonly Operation[]
  readonly bounds?: Bounds
  readonly atRest?: (world: World, actors: readonly ActorState[]) => void
}

/** Two processes over eight words. */
function toy({ operations, bounds = {}, atRest = () => {} }: Toy): Scenario {
  return {
    name: 'toy',
    bounds,
    scene: () => {
      const world = new World(8, 1)
      const actors = [0, 1].map((actor) => ({
        name: `actor${actor}`,
        role: 'actor',
        member: actor,
        operations: operations(actor),
      }))
      return { world, actors, atRest: (states) => atRest(world, states) }
    },
  }
}

const operation = (run: (self: Self) => number | undefined): Operation => ({ name: 'operation', run })

test('every order of the steps of two processes is one state each', (t) => {
  for (const steps of [1, 2, 5]) {
    const store = (actor: number) => [
      operation((self) => {
        for (let step = 1; step <= steps; step++) self.words(0).store(actor, step)
        return undefined
      }),
    ]
    const report = explore(toy({ operations: store }))
    t.is(report.failure, undefined)
    t.is(report.states, (steps + 1) ** 2)
    t.is(report.steps, 2 * steps * (steps + 1), 'the edges of that grid')
    t.is(report.ends, 1)
  }
})

test('a process may die before each of its writes and after the last', (t) => {
  const store = (actor: number) => [
    operation((self) => {
      self.words(0).store(actor, 1)
      self.words(0).store(actor, 2)
      return undefined
    }),
  ]
  const report = explore(toy({ operations: store, bounds: { crashes: { actor: 1 } } }))
  // Nobody dies: a grid of 3 by 3. Either dies, at each of 3 places, while the other is at each of 3.
  t.is(report.states, 9 + 2 * 9)
  t.is(report.deaths, 2 * 9)
})

const lostUpdate = (): readonly Operation[] => [
  operation((self) => {
    const words = self.words(0)
    words.store(0, words.load(0) + 1)
    return undefined
  }),
]
const both = (world: World): void => check(world.read(0) === 2, 'sum', `both added one, and it is ${world.read(0)}`)

test('a lost update is found; its schedule is short, can be printed and done again', (t) => {
  const scenario = toy({ operations: lostUpdate, atRest: both })
  const { failure } = explore(scenario)
  t.is(failure?.invariant, 'sum')
  const schedule = failure?.schedule ?? ''
  t.is(schedule, 'actor0 actor1 actor0 actor1')
  const again = replay(scenario, schedule)
  t.deepEqual(again.trace, failure?.trace)
  t.true(again.failure instanceof Error && again.failure.message === failure?.message)
  t.deepEqual(again.trace, [
    'actor0 load 0 (0, 0) gives 0',
    'actor1 load 0 (0, 0) gives 0',
    'actor0 store 0 (1, 0) gives 0',
    'actor1 store 0 (1, 0) gives 0',
  ])
  t.is(replay(scenario, 'actor0*2 actor1*2').failure, undefined, 'one after the other it is right')
  t.throws(() => replay(scenario, 'actor7'), { message: /cannot say 'actor7'/ })
})

test('a preemption less, and the lost update is not found', (t) => {
  t.is(explore(toy({ operations: lostUpdate, atRest: both, bounds: { preemptions: 0 } })).failure, undefined)
  t.not(explore(toy({ operations: lostUpdate, atRest: both, bounds: { preemptions: 1 } })).failure, undefined)
})

test('a sleeper that nobody wakes is found', (t) => {
  const sleepOrWake =
    (wakes: boolean) =>
    (actor: number): readonly Operation[] => [
      operation((self) => {
        const words = self.words(0)
        if (actor === 0) {
          while (words.load(0) === 0) words.wait(0, 0, 1)
        } else {
          words.store(0, 1)
          if (wakes) words.wake(0, 1)
        }
        return undefined
      }),
    ]
  const ends = (_: World, [sleeper]: readonly ActorState[]): void =>
    check(sleeper?.status === status.finished, 'sleeper', 'it sleeps for ever')
  t.is(explore(toy({ operations: sleepOrWake(true), atRest: ends })).failure, undefined)
  t.is(explore(toy({ operations: sleepOrWake(false), atRest: ends })).failure?.invariant, 'sleeper')
})

test('code that does something else with the same past is refused, not explored', (t) => {
  let run = 0
  const whim = () => [
    operation((self) => {
      self.words(0).store(run++ % 3, 1)
      self.words(0).load(7)
      return undefined
    }),
  ]
  t.regex(explore(toy({ operations: whim })).failure?.message ?? '', /is not deterministic/)
})
