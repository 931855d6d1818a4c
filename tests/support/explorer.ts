/**
 * Exhaustive exploration of real code over `Words`: every order in which the accesses of several processes can happen, with deaths,
 * stops and deadlines wherever the bounds allow them. Depth first; a state that was met before is not entered again.
 *
 *   const report = explore(scenario)
 *   report.failure === undefined          every state of the bounded space was visited, and every check held
 *   replay(scenario, report.failure.schedule)     the same steps again
 *
 * tests/model/README.md tells what a state is and which reductions are made.
 */
import { type ActorSpec, type ActorState, access, accessNames, status } from './explorer-actor.js'
import { type Granularity, Runner, Violation, type WordRights } from './explorer-runner.js'
import { formatSchedule, type Move, move, parseSchedule, shorten } from './explorer-schedule.js'
import { mix, Seen } from './explorer-seen.js'
import type { World } from './explorer-world.js'

/** never: a sleep ends only by a wake, so a lost one is found. always: by its deadline at any time. idle: when nothing else can move. */
export type Timeouts = 'never' | 'always' | 'idle'

export interface Bounds {
  /** How many deaths of each role, and how many in all. */
  readonly crashes?: Readonly<Record<string, number>>
  readonly crashesInAll?: number
  /** Processes that stop and never go on. */
  readonly stops?: Readonly<Record<string, number>>
  readonly timeouts?: Timeouts
  /** How often a process that could go on gives way; without it, as often as there is. */
  readonly preemptions?: number
  readonly granularity?: Granularity
  readonly maxStates?: number
}

/** A fresh world with its actors, made anew for each exploration and replay. */
export interface Scene extends WordRights {
  readonly world: World
  readonly actors: readonly ActorSpec[]
  /** The checks of a state in which nobody can move. */
  readonly atRest: (actors: readonly ActorState[]) => void
  /** For traces. */
  readonly nameOf?: (index: number) => string
}

export interface Scenario {
  readonly name: string
  readonly bounds: Bounds
  scene(): Scene
  /** Called before the first step, for code that reaches the runner by other ways than its arguments. */
  readonly begin?: (runner: Runner) => void
}

export interface Failure {
  readonly invariant: string
  readonly message: string
  readonly schedule: string
  readonly trace: readonly string[]
}

export interface Report {
  readonly name: string
  /** In words. */
  readonly bounds: string
  readonly states: number
  readonly steps: number
  /** States in which nobody could move. */
  readonly ends: number
  /** Steps that were deaths. */
  readonly deaths: number
  readonly deepest: number
  readonly elapsedMs: number
  /** False: `maxStates` cut it. */
  readonly complete: boolean
  readonly failure?: Failure
}

export function explore(scenario: Scenario): Report {
  const search = new Search(scenario)
  const startMs = performance.now()
  let failure: Failure | undefined
  try {
    search.run()
  } catch (error) {
    failure = explain(scenario, search.path, error)
  }
  return {
    name: scenario.name,
    bounds: boundsInWords(scenario.bounds),
    states: search.seen.size,
    steps: search.steps,
    ends: search.ends,
    deaths: search.deaths,
    deepest: search.deepest,
    elapsedMs: performance.now() - startMs,
    complete: search.complete && failure === undefined,
    ...(failure ? { failure } : {}),
  }
}

/** Runs one schedule. Returns what it violated, if anything, and what each step did. */
export function replay(scenario: Scenario, schedule: string): { failure: unknown; trace: string[] } {
  const names = scenario.scene().actors.map((actor) => actor.name)
  return follow(new Search(scenario), parseSchedule(schedule, names))
}

export const describe = (report: Report): string => {
  const { name, bounds, states, steps, ends, deaths, deepest } = report
  const cut = report.complete ? '' : report.failure ? ', failed' : ', cut'
  const counts = `${states} states, ${steps} steps, ${deaths} of them deaths, ${ends} ends, depth ${deepest}`
  return `${name} (${bounds}): ${counts}, ${report.elapsedMs.toFixed(0)} ms${cut}`
}

function boundsInWords({ crashes = {}, crashesInAll, stops = {}, timeouts = 'never', preemptions }: Bounds): string {
  const deaths = Object.entries(crashes).map(([role, count]) => `${role} ${count}`)
  const stopped = Object.entries(stops).map(([role, count]) => `${role} ${count}`)
  return [
    deaths.length > 0
      ? `deaths: ${deaths.join(' ')}${crashesInAll === undefined ? '' : `, ${crashesInAll} in all`}`
      : '',
    stopped.length > 0 ? `stops: ${stopped.join(' ')}` : '',
    timeouts === 'never' ? '' : `deadlines: ${timeouts}`,
    preemptions === undefined ? 'every order' : `preemptions: ${preemptions}`,
  ]
    .filter((part) => part !== '')
    .join('; ')
}

function explain(scenario: Scenario, path: readonly Move[], error: unknown): Failure {
  const names = scenario.scene().actors.map((actor) => actor.name)
  const told = tell(error)
  // One search for all candidates: it knows already what the code does.
  const search = new Search(scenario)
  const short = shorten(path, (candidate) => tell(follow(search, candidate).failure).invariant === told.invariant)
  return { ...told, schedule: formatSchedule(short, names), trace: follow(search, short).trace }
}

function tell(error: unknown): { invariant: string; message: string } {
  if (error instanceof Violation) return { invariant: error.invariant, message: error.message }
  if (error === undefined) return { invariant: '', message: '' }
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error)
  return { invariant: 'exception', message }
}

/** Moves that are not possible any more, because earlier ones were left out, are passed over. */
function follow(search: Search, moves: readonly Move[]): { failure: unknown; trace: string[] } {
  search.begin()
  const trace: string[] = []
  try {
    for (const one of moves) {
      if (!search.possible().some(({ actor, kind }) => actor === one.actor && kind === one.kind)) continue
      search.apply(one)
      trace.push(search.describeLast(one))
    }
    if (search.possible().every(({ kind }) => kind >= move.dies)) search.atRest()
  } catch (error) {
    return { failure: error, trace }
  }
  return { failure: undefined, trace }
}

class Search {
  readonly scene: Scene
  readonly runner: Runner
  readonly seen = new Seen()
  readonly path: Move[] = []
  steps = 0
  ends = 0
  deaths = 0
  deepest = 0
  complete = true
  readonly #bounds: Bounds
  readonly #timeouts: Timeouts
  /** Deaths and stops so far, by actor's role: crashes first, stops behind them. */
  readonly #used: number[]
  readonly #roleOf: readonly number[]
  readonly #allowed: readonly number[]
  readonly #roles: number
  readonly #beginning: { readonly past: number; readonly actors: readonly ActorState[] }
  #crashes = 0
  #preemptions = 0
  #last = -1

  constructor(scenario: Scenario) {
    this.#bounds = scenario.bounds
    this.#timeouts = scenario.bounds.timeouts ?? 'never'
    this.scene = scenario.scene()
    const { world, actors } = this.scene
    this.runner = new Runner(world, actors, scenario.bounds.granularity ?? 'writes', this.scene)
    scenario.begin?.(this.runner)
    const roles = [...new Set(actors.map((actor) => actor.role))]
    this.#roles = roles.length
    this.#roleOf = actors.map((actor) => roles.indexOf(actor.role))
    this.#allowed = [
      ...roles.map((role) => scenario.bounds.crashes?.[role] ?? 0),
      ...roles.map((role) => scenario.bounds.stops?.[role] ?? 0),
    ]
    this.#used = this.#allowed.map(() => 0)
    this.runner.mayDie = (actor) => this.#deathsLeft(actor)
    this.#beginning = { past: world.past, actors: this.runner.actors.slice() }
  }

  run(): void {
    this.#visit()
  }

  /** Back to where nothing has happened. */
  begin(): void {
    this.runner.world.rewind(this.#beginning.past)
    this.runner.actors = this.#beginning.actors.slice()
    this.#used.fill(0)
    this.#crashes = 0
    this.#preemptions = 0
    this.#last = -1
  }

  #visit(): void {
    if (!this.#enter()) return
    this.deepest = Math.max(this.deepest, this.path.length)
    const moves = this.possible()
    if (!moves.some(({ kind }) => kind < move.dies)) {
      this.ends++
      this.atRest()
    }
    const { world } = this.runner
    const { past } = world
    const { actors } = this.runner
    const before = [this.#crashes, this.#preemptions, this.#last] as const
    for (const one of moves) {
      if (!this.complete) return
      this.path.push(one)
      this.runner.actors = actors.slice()
      this.apply(one)
      this.steps++
      this.#visit()
      this.path.pop()
      world.rewind(past)
      this.runner.actors = actors
      if (one.kind === move.dies) this.#used[this.#roleOf[one.actor]!]!--
      if (one.kind === move.stops) this.#used[this.#roles + this.#roleOf[one.actor]!]!--
      ;[this.#crashes, this.#preemptions, this.#last] = before
    }
  }

  atRest(): void {
    this.scene.atRest(this.runner.actors)
  }

  #enter(): boolean {
    const { world, actors } = this.runner
    let { low, high } = world
    for (let actor = 0; actor < actors.length; actor++) {
      const state = actors[actor]!
      low ^= mix(state.low, actor)
      high ^= mix(state.high, ~actor)
    }
    let budget = this.#crashes
    for (const used of this.#used) budget = budget * 8 + used
    if (this.#bounds.preemptions !== undefined) budget = (budget * 64 + this.#preemptions) * 16 + this.#last + 1
    if (!this.seen.add(mix(low, budget), mix(high, ~budget))) return false
    if (this.seen.size >= (this.#bounds.maxStates ?? Number.POSITIVE_INFINITY)) this.complete = false
    return true
  }

  possible(): Move[] {
    const { actors } = this.runner
    const moves: Move[] = []
    for (let actor = 0; actor < actors.length; actor++) {
      if (!this.runner.enabled(actor)) continue
      // What only this role touches commutes with the steps of all others: theirs can follow later.
      if (this.runner.isPrivate(actor)) return this.#alone(actor)
      if (this.#mayGo(actor)) moves.push({ actor, kind: move.step })
    }
    if (this.#timeouts === 'always' || (this.#timeouts === 'idle' && moves.length === 0)) {
      for (let actor = 0; actor < actors.length; actor++) {
        if (this.runner.sleeps(actor) && this.#mayGo(actor)) moves.push({ actor, kind: move.timesOut })
      }
    }
    for (let actor = 0; actor < actors.length; actor++) {
      if (this.#mayDie(actor)) moves.push({ actor, kind: move.dies })
      if (this.#mayStop(actor)) moves.push({ actor, kind: move.stops })
    }
    return moves
  }

  #alone(actor: number): Move[] {
    const moves: Move[] = [{ actor, kind: move.step }]
    if (this.#mayDie(actor)) moves.push({ actor, kind: move.dies })
    return moves
  }

  #mayGo(actor: number): boolean {
    const { preemptions } = this.#bounds
    if (preemptions === undefined || this.#last < 0 || actor === this.#last) return true
    return this.#preemptions < preemptions || !this.runner.enabled(this.#last)
  }

  /** A death before a mere look is the same as the death after it. */
  #mayDie(actor: number): boolean {
    if (!this.#deathsLeft(actor)) return false
    const state = this.runner.actors[actor]!
    if (state.operation < (this.scene.actors[actor]!.livesFrom ?? 0)) return false
    if (state.status > status.finished) return false
    if (state.status === status.finished || state.pending === null) return true
    const { kind } = state.pending
    return kind !== access.load && kind !== access.alive && kind !== access.readPlain && kind !== access.readWide
  }

  #deathsLeft(actor: number): boolean {
    const role = this.#roleOf[actor]!
    if (this.#used[role]! >= this.#allowed[role]!) return false
    return this.#crashes < (this.#bounds.crashesInAll ?? Number.POSITIVE_INFINITY)
  }

  #mayStop(actor: number): boolean {
    const role = this.#roleOf[actor]!
    if (this.#used[this.#roles + role]! >= this.#allowed[this.#roles + role]!) return false
    const state = this.runner.actors[actor]!
    return state.status === status.running && (state.pending === null || state.pending.kind !== access.load)
  }

  apply({ actor, kind }: Move): void {
    const { runner } = this
    if (kind <= move.timesOut) {
      if (this.#last >= 0 && actor !== this.#last && runner.enabled(this.#last)) this.#preemptions++
      this.#last = actor
      runner.step(actor, kind === move.timesOut)
      return
    }
    const role = this.#roleOf[actor]!
    if (kind === move.stops) {
      this.#used[this.#roles + role]!++
      runner.stop(actor)
      return
    }
    this.#used[role]!++
    this.#crashes++
    this.deaths++
    runner.crash(actor)
  }

  describeLast({ actor, kind }: Move): string {
    const name = this.scene.actors[actor]!.name
    if (kind === move.dies) return `${name} dies`
    if (kind === move.stops) return `${name} stops`
    const { done, doneResult } = this.runner
    if (!done) return `${name} goes on`
    const where = this.scene.nameOf?.(done.index) ?? String(done.index)
    return `${name} ${accessNames[done.kind]} ${where} (${done.first}, ${done.second}) gives ${doneResult}`
  }
}
