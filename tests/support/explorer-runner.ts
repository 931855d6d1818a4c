/**
 * Runs one step of one actor: the operation is started anew, its accesses are answered from the log, the first one that is not in the
 * log is done for real, and the next one after it ends the run by a private signal. Code under test catches nothing around its
 * accesses, so the signal passes through it. Where the code has been with the same log before, the step is done without running it.
 */
import { Memory } from '../../shm/memory.js'
import type { LivenessOracle } from '../../shm/robust-lock.js'
import type { Words } from '../../shm/words.js'
import {
  type ActorSpec,
  ActorState,
  access,
  accessNames,
  type Operation,
  type Pending,
  REST,
  type Self,
  sleep,
  status,
} from './explorer-actor.js'
import { Log } from './explorer-log.js'
import type { World } from './explorer-world.js'

/**
 * Plain memory between two words. A run of plain accesses is a step of its own from its first store on; with `reads`, from its first
 * load on. Otherwise loads happen with the access before them.
 */
export type Granularity = 'writes' | 'reads'

/** Thrown by checks: a promise of the code under test does not hold. */
export class Violation extends Error {
  readonly invariant: string

  constructor(invariant: string, detail: string) {
    super(`${invariant}: ${detail}`)
    this.name = 'Violation'
    this.invariant = invariant
  }
}

export function check(holds: boolean, invariant: string, detail: string): void {
  if (!holds) throw new Violation(invariant, detail)
}

/** What a scenario promises about who uses a word; checked at each access. A promise lets the search leave out orders. */
export interface WordRights {
  /** Role that alone touches it. */
  readonly privateTo?: (index: number) => string | undefined
  /** Role that alone writes it, or 'nobody'. */
  readonly writtenBy?: (index: number) => string | undefined
  /** In this very state nobody else can do anything that an access of this member conflicts with. Not checked: an argument. */
  readonly commutes?: (member: number, kind: number, index: number) => boolean
  /** Results that the code treats alike are told apart by nobody: they are one in the state's hash. Not checked: an argument. */
  readonly digest?: (member: number, kind: number, index: number, result: number) => number
}
const ANYBODY = -1
const NOBODY = -2

class Pause {}
const PAUSE = new Pause()
const WAIT_RESULTS = ['woken', 'changed', 'timeout'] as const
const TIMEOUT = 2
/** Of an access that did not return. No other access returns it where it could be mistaken: only a wait falls asleep. */
const ASLEEP = Number.NEGATIVE_INFINITY
/** Far beyond what an operation does: a loop that never touches shared memory would hang the exploration. */
const LONGEST_LOG = 5000

export class Runner {
  readonly world: World
  readonly specs: readonly ActorSpec[]
  actors: ActorState[]
  /** Whether the bounds allow another death of this actor; set by the search. */
  mayDie: (actor: number) => boolean = () => true
  /** The access that the step did, for traces. */
  done: Pending | null = null
  doneResult = 0
  readonly #granularity: Granularity
  readonly #rights: WordRights
  /** By word: the roles that touch it and that write it, as an index into `#roles`, or one of the two numbers above. */
  readonly #owner: Int8Array
  readonly #writer: Int8Array
  readonly #roles: readonly string[]
  readonly #selves: readonly Self[]
  readonly #memories = new Map<number, Memory>()
  readonly #words = new Map<number, Words>()
  readonly #liveness: LivenessOracle = { alive: (member) => this.#access(access.alive, member, 0, 0) !== 0 }

  /** By actor and operation: the empty logs. */
  readonly #roots: readonly (readonly Log[])[]
  /** The run under way: the log as it stands, and as an array what of it the code is told again. */
  #current = 0
  #log: Log = Log.root()
  #cursor = 0
  #length = 0
  readonly #told: Log[] = []
  #granted = false
  #timesOut = false
  #sleep: number = sleep.awake
  #pending: Pending | null = null

  constructor(world: World, specs: readonly ActorSpec[], granularity: Granularity, rights: WordRights) {
    this.world = world
    this.specs = specs
    this.#granularity = granularity
    this.#roles = [...new Set(specs.map((spec) => spec.role))]
    this.#rights = rights
    const roleOf = (role: string | undefined): number =>
      role === undefined ? ANYBODY : role === 'nobody' ? NOBODY : this.#roles.indexOf(role)
    this.#owner = Int8Array.from({ length: world.knowledge }, (_, index) => roleOf(rights.privateTo?.(index)))
    this.#writer = Int8Array.from({ length: world.knowledge }, (_, index) => roleOf(rights.writtenBy?.(index)))
    this.#roots = specs.map(({ operations }) => Array.from({ length: operations.length + 1 }, () => Log.root()))
    this.actors = specs.map((spec, actor) => this.#beginning(actor, spec.startsAt ?? 0, status.running, false))
    this.#selves = specs.map((spec) => this.#self(spec))
    world.changed = (index) => this.#changed(index)
  }

  /** Time as the running actor knows it: it passes only when its sleeps end by their deadline. */
  get clockMs(): number {
    let log: Log | null = this.#log
    while (log !== null && log.length > this.#cursor) log = log.parent
    return log === null ? 0 : log.clockMs
  }

  ring(bell: number): void {
    this.#access(access.ring, bell, 0, 0)
  }

  /** False: the deadline came first. */
  hear(bell: number): boolean {
    return this.#access(access.hear, bell, 0, 0) !== 0
  }

  drain(bell: number): boolean {
    return this.#access(access.drain, bell, 0, 0) !== 0
  }

  operationOf(actor: number): Operation | undefined {
    return this.specs[actor]!.operations[this.actors[actor]!.operation]
  }

  /** Whether the actor's next access commutes with whatever all others can do before it. */
  isPrivate(actor: number): boolean {
    const { pending } = this.actors[actor]!
    return pending !== null && this.#commutes(this.specs[actor]!, pending.kind, pending.index)
  }

  #commutes({ member, role }: ActorSpec, kind: number, index: number): boolean {
    if (kind > access.and) return false
    if (this.#owner[index]! >= 0) return true
    if (this.#rights.commutes?.(member, kind, index)) return true
    if (kind !== access.load) return false
    const writer = this.#writer[index]!
    return writer === NOBODY || (writer >= 0 && this.#roles[writer] === role)
  }

  /** Whether a step of this actor can happen now. */
  enabled(actor: number): boolean {
    const state = this.actors[actor]!
    if (state.status !== status.running || state.resting || state.sleep === sleep.asleep) return false
    const { pending } = state
    if (pending === null) return this.operationOf(actor)!.when?.() ?? true
    if (pending.kind === access.hear) return this.world.read(pending.index) !== 0
    return pending.kind !== access.change || state.stale
  }

  /** Whether a sleep of this actor can end by its deadline. */
  sleeps(actor: number): boolean {
    const state = this.actors[actor]!
    if (state.status !== status.running || state.pending === null) return false
    if (state.sleep === sleep.asleep) return state.pending.second > 0
    return state.pending.kind === access.hear && this.world.read(state.pending.index) === 0
  }

  step(actor: number, timesOut: boolean): void {
    this.#begin(actor, timesOut)
    const operation = this.operationOf(actor)!
    if (this.#walk(actor, operation)) return
    this.#tellAgain()
    let next: number | undefined
    try {
      next = operation.run(this.#selves[actor]!)
    } catch (signal) {
      if (signal !== PAUSE) throw signal
      this.#suspend(actor, operation)
      return
    }
    this.#log.ends = true
    this.#log.returns = next
    this.#finish(actor, next)
  }

  /** Goes where the code would go, as far as that is known. False: the code must run. */
  #walk(actor: number, operation: Operation): boolean {
    for (;;) {
      const { next, act, ends, returns } = this.#log
      if (ends) {
        this.#finish(actor, returns)
        return true
      }
      if (act !== null) {
        this.#append(access.note, 0, 0, act())
        continue
      }
      if (next === null || operation.liveAt?.(next)) return false
      const { kind, index, first, second } = next
      if (this.#claimTurn(kind, index)) {
        const result = this.#perform(kind, index, first, second)
        if (result !== ASLEEP) {
          this.#append(kind, index, second, result)
          continue
        }
      }
      this.#pending = next
      this.#suspend(actor, operation)
      return true
    }
  }

  /** The log as an array, for the code. */
  #tellAgain(): void {
    this.#cursor = 0
    this.#length = this.#log.length
    let log = this.#log
    for (let at = this.#length; at-- > 0; log = log.parent!) this.#told[at] = log
  }

  /** The process is gone; its token fell with it. */
  crash(actor: number): void {
    const spec = this.specs[actor]!
    if (spec.member >= 0) this.world.write(this.world.dead(spec.member), 1)
    this.actors[actor] =
      spec.restartsAt === undefined
        ? this.#beginning(actor, this.actors[actor]!.operation, status.dead, false)
        : this.#beginning(actor, spec.restartsAt, status.running, false)
    spec.died?.()
    this.#current = actor
    this.#changed(-1)
  }

  stop(actor: number): void {
    const state = this.actors[actor]!
    this.actors[actor] = state.flagged(status.stopped, state.sleep, state.resting, state.stale)
  }

  /** Before the first access of an operation. */
  #beginning(actor: number, operation: number, atStatus: number, resting: boolean): ActorState {
    return new ActorState(operation, atStatus, sleep.awake, resting, false, this.#roots[actor]![operation]!, null)
  }

  #begin(actor: number, timesOut: boolean): void {
    const state = this.actors[actor]!
    this.#current = actor
    this.#log = state.log
    this.#cursor = state.log.length
    this.#length = state.log.length
    this.#granted = true
    this.#timesOut = timesOut
    this.#sleep = state.sleep
    this.#pending = null
    this.done = null
  }

  #suspend(actor: number, operation: Operation): void {
    const pending = this.#pending!
    if (operation.loopsAt?.(pending.kind, pending.index)) this.#foldTo(signatureOf(pending.kind, pending.index))
    const { operation: at, status: atStatus, stale } = this.actors[actor]!
    this.actors[actor] = new ActorState(at, atStatus, this.#sleep, false, stale, this.#log, pending)
  }

  /** Back to the first time that the code was about to do this access. */
  #foldTo(signature: number): void {
    let first: Log | null = null
    for (let log = this.#log; log.parent !== null; log = log.parent) if (log.signature === signature) first = log
    if (first !== null) this.#log = first.parent!
  }

  #finish(actor: number, next: number | undefined): void {
    const { operation, stale } = this.actors[actor]!
    const rests = next === REST
    const at = next === undefined ? operation + 1 : rests ? operation : next
    const ended = at >= this.specs[actor]!.operations.length
    this.actors[actor] = this.#beginning(actor, at, ended ? status.finished : status.running, rests && !stale)
  }

  /** Somebody changed a word: whoever looks at it has something to do. */
  #changed(index: number): void {
    for (let actor = 0; actor < this.actors.length; actor++) {
      const state = this.actors[actor]!
      if (actor === this.#current || (state.stale && !state.resting)) continue
      const looks = this.operationOf(actor)?.looksAt
      if (looks === undefined || state.status !== status.running || (index >= 0 && !looks(index))) continue
      // An operation that has not begun sees the change when it begins.
      const begun = state.log.length > 0 || state.pending !== null
      this.actors[actor] = state.flagged(state.status, state.sleep, false, begun)
    }
  }

  #access(kind: number, index: number, first: number, second: number): number {
    if (this.#cursor < this.#length) return this.#tell(kind, index)
    if (this.#length > LONGEST_LOG) throw new Error('an operation does not end')
    this.#foresee(kind, index, first, second)
    if (!this.#claimTurn(kind, index)) this.#pause(kind, index, first, second)
    const result = this.#perform(kind, index, first, second)
    if (result === ASLEEP) this.#pause(kind, index, first, second)
    this.#append(kind, index, second, result)
    return result
  }

  #tell(kind: number, index: number): number {
    const { signature, result } = this.#told[this.#cursor]!
    if (signature !== signatureOf(kind, index)) this.#diverged(signature, kind, index)
    this.#cursor++
    return result
  }

  /** Remembers what the code does here; what it did another time with the same log is the same. */
  #foresee(kind: number, index: number, first: number, second: number): void {
    const { next } = this.#log
    if (next === null) {
      this.#log.next = { kind, index, first, second }
      return
    }
    if (next.kind === kind && next.index === index && next.first === first && next.second === second) return
    this.#diverged(signatureOf(next.kind, next.index), kind, index)
  }

  /** Whether this access belongs to the step. */
  #claimTurn(kind: number, index: number): boolean {
    if (this.#log.inPlainRun && isPlain(kind)) return true
    if (this.#granularity === 'writes' && (kind === access.readPlain || kind === access.readWide)) return true
    if (this.#joins(kind, index)) return true
    if (!this.#granted) return false
    this.#granted = false
    return true
  }

  /** Runs with the step before it: nobody can tell when it happened, and no death could come between. */
  #joins(kind: number, index: number): boolean {
    if (this.#log.length === 0) return false
    const spec = this.specs[this.#current]!
    return (kind === access.load || !this.mayDie(this.#current)) && this.#commutes(spec, kind, index)
  }

  #pause(kind: number, index: number, first: number, second: number): never {
    this.#pending = { kind, index, first, second }
    throw PAUSE
  }

  #append(kind: number, index: number, second: number, result: number): void {
    if (this.done === null && kind !== access.note) {
      this.done = this.#log.next
      this.doneResult = result
    }
    this.#log = this.#log.after(result) ?? this.#extend(kind, index, second, result)
    this.#length = this.#log.length
    this.#cursor = this.#length
  }

  #extend(kind: number, index: number, timeoutMs: number, result: number): Log {
    const log = this.#log
    const begins = kind === access.writePlain || kind === access.writeWide || this.#granularity === 'reads'
    const plain = kind === access.note ? log.inPlainRun : isPlain(kind) && (log.inPlainRun || begins)
    const passed = kind === access.wait && result === TIMEOUT ? timeoutMs : 0
    const { digest } = this.#rights
    const told =
      digest === undefined || kind === access.note
        ? result
        : digest(this.specs[this.#current]!.member, kind, index, result)
    return log.append(signatureOf(kind, index), result, told, plain, log.clockMs + passed)
  }

  #cut(length: number): void {
    this.#log = this.#log.cut(length)
    this.#length = length
    this.#cursor = length
  }

  #perform(kind: number, index: number, first: number, second: number): number {
    const { world } = this
    if (kind <= access.and) this.#checkRights(index, kind !== access.load)
    switch (kind) {
      case access.load:
      case access.readPlain:
        return world.read(index)
      case access.store:
      case access.writePlain:
        world.write(index, first)
        return 0
      case access.readWide:
        return world.f64[index]!
      case access.writeWide:
        world.writeWide(index, first)
        return 0
      case access.wait:
        return this.#wait(index, first)
      case access.wake:
        return this.#wake(index, first)
      case access.alive:
        return world.read(world.dead(index)) === 0 ? 1 : 0
      case access.ring:
        world.write(index, 1)
        return 0
      case access.hear:
        return world.read(index)
      case access.note:
        return 0
      case access.change:
        this.#refresh()
        return 0
      default:
        return this.#modify(kind, index, first, second)
    }
  }

  #refresh(): void {
    const state = this.actors[this.#current]!
    this.actors[this.#current] = state.flagged(state.status, state.sleep, state.resting, false)
  }

  #modify(kind: number, index: number, first: number, second: number): number {
    const found = this.world.read(index)
    switch (kind) {
      case access.compareExchange:
        if (found === first) this.world.write(index, second)
        break
      case access.exchange:
        this.world.write(index, first)
        break
      case access.add:
        this.world.write(index, found + first)
        break
      case access.or:
        this.world.write(index, found | first)
        break
      case access.and:
        this.world.write(index, found & first)
        break
      default:
        this.world.write(index, 0)
    }
    return found
  }

  /** The comparison and falling asleep are one step, as in the kernel. */
  #wait(index: number, expected: number): number {
    if (this.#sleep === sleep.awake) {
      if (this.world.read(index) !== expected) return 1
      this.#sleep = sleep.asleep
      return ASLEEP
    }
    this.#sleep = sleep.awake
    return this.#timesOut ? TIMEOUT : 0
  }

  #wake(index: number, count: number): number {
    let woken = 0
    for (let actor = 0; actor < this.actors.length && woken < count; actor++) {
      const state = this.actors[actor]!
      if (state.sleep !== sleep.asleep || state.pending?.index !== index || state.status === status.dead) continue
      this.actors[actor] = state.flagged(state.status, sleep.woken, state.resting, state.stale)
      woken++
    }
    return woken
  }

  #checkRights(index: number, writes: boolean): void {
    const allowed = writes && this.#owner[index] === ANYBODY ? this.#writer[index]! : this.#owner[index]!
    const { name, role } = this.specs[this.#current]!
    if (allowed === ANYBODY || this.#roles[allowed] === role) return
    throw new Error(`word ${index} was said to be ${this.#roles[allowed] ?? 'nobody'}'s; ${name} uses it`)
  }

  #diverged(then: number, kind: number, index: number): never {
    throw new Error(
      `${this.specs[this.#current]!.name} is not deterministic: at access ${this.#cursor} of its operation it did ` +
        `${accessNames[then & 31]} ${then >>> 5} and now ${accessNames[kind]} ${index}`,
    )
  }

  #self(spec: ActorSpec): Self {
    return {
      member: spec.member,
      words: (base) => this.#wordsAt(base),
      memory: (base) => this.#memoryAt(base),
      liveness: this.#liveness,
      note: (act) => {
        if (this.#cursor < this.#length) return this.#tell(access.note, 0)
        this.#log.act ??= act
        const result = act()
        this.#append(access.note, 0, 0, result)
        return result
      },
      mark: () => this.#cursor,
      forget: (mark) => this.#cut(mark),
      untilChanged: () => void this.#access(access.change, 0, 0, 0),
    }
  }

  #wordsAt(base: number): Words {
    let words = this.#words.get(base)
    if (words) return words
    const go = (kind: number, index: number, first = 0, second = 0): number =>
      this.#access(kind, base + index, first, second)
    words = {
      load: (index) => go(access.load, index),
      store: (index, value) => void go(access.store, index, value),
      peek: (index) => go(access.load, index),
      put: (index, value) => void go(access.store, index, value),
      compareExchange: (index, expected, replacement) => go(access.compareExchange, index, expected, replacement),
      exchange: (index, value) => go(access.exchange, index, value),
      add: (index, value) => go(access.add, index, value),
      or: (index, mask) => go(access.or, index, mask),
      and: (index, mask) => go(access.and, index, mask),
      wait: (index, expected, timeoutMs) => WAIT_RESULTS[go(access.wait, index, expected, timeoutMs)]!,
      wake: (index, count) => go(access.wake, index, count),
    }
    this.#words.set(base, words)
    return words
  }

  /** Views whose elements are accesses. Only those views that the explored code uses exist; any other use fails loudly. */
  #memoryAt(base: number): Memory {
    let memory = this.#memories.get(base)
    if (memory) return memory
    memory = new Memory(new ArrayBuffer(0))
    const narrow = (fix: (value: number) => number) =>
      this.#elements(
        (index) => fix(this.#access(access.readPlain, base + index, 0, 0)),
        (index, value) => void this.#access(access.writePlain, base + index, value | 0, 0),
      )
    const wide = this.#elements(
      (index) => this.#access(access.readWide, base / 2 + index, 0, 0),
      (index, value) => void this.#access(access.writeWide, base / 2 + index, value, 0),
    )
    const views = { i32: narrow((value) => value), u32: narrow((value) => value >>> 0), f64: wide }
    Object.assign(memory, views)
    this.#memories.set(base, memory)
    return memory
  }

  #elements(read: (index: number) => number, write: (index: number, value: number) => void): object {
    return new Proxy(
      {},
      {
        get: (_, key) => read(elementOf(key)),
        set: (_, key, value) => {
          write(elementOf(key), value as number)
          return true
        },
      },
    )
  }
}

function elementOf(key: string | symbol): number {
  const index = typeof key === 'string' ? Number(key) : Number.NaN
  if (!Number.isInteger(index)) throw new Error(`plain memory has no ${String(key)} in an exploration`)
  return index
}

const isPlain = (kind: number): boolean => kind >= access.readPlain && kind <= access.writeWide
const signatureOf = (kind: number, index: number): number => kind | (index << 5)
