/** The processes of a storm: each seat of a node always has one, except for the time that a new one needs to come. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { MARK_NAME, runMark } from '../support/guard.js'
import { until } from '../support/until.js'
import { machineMs } from './journal.js'
import { type NodeName, queuePairsOf } from './plan.js'
import type { FromWorker, ToWorker, WorkerPlan } from './worker.js'

/** One life of a seat. */
export interface Life {
  readonly node: NodeName
  readonly seat: number
  readonly process: number
  readonly journal: string
  killedMs: number | null
  /** It ended in its own way, at the end of the storm. */
  finished: boolean
}

interface Seat {
  readonly node: NodeName
  readonly seat: number
  life: Life
  child: ChildProcess
  ready: boolean
  /** It has said that it posts nothing more. */
  stopped: boolean
}

export interface CrewPlan {
  readonly script: string
  readonly directory: string
  readonly log: string
  readonly mostProcesses: number
  readonly mostBuffers: number
  planOf(
    node: NodeName,
  ): Omit<WorkerPlan, 'seat' | 'process' | 'processes' | 'journal' | 'firstBuffer' | 'buffersEach' | 'name'>
}

/** Receives of a first process for each of its queue pairs, and of one that follows another. */
export const FIRST_BUFFERS = 24
export const LATER_BUFFERS = 3

export class Crew {
  readonly lives: Life[] = []
  readonly trouble: string[] = []
  readonly events = new Map<string, number>()
  readonly #plan: CrewPlan
  readonly #seats: Seat[] = []
  #buffers = 0
  #ending = false

  constructor(plan: CrewPlan) {
    this.#plan = plan
  }

  get ready(): boolean {
    return this.#seats.every(({ ready }) => ready)
  }

  get stopped(): boolean {
    return this.#seats.every(({ stopped }) => stopped)
  }

  get buffers(): number {
    return this.#buffers
  }

  start(node: NodeName, seat: number): void {
    const { life, child } = this.#spawn(node, seat, FIRST_BUFFERS)
    const made: Seat = { node, seat, life, child, ready: false, stopped: false }
    this.#seats.push(made)
    this.#watch(made)
  }

  isReady(node: NodeName, seat: number): boolean {
    return this.#seat(node, seat).ready
  }

  /** Another process takes its place at once. */
  kill(node: NodeName, seat: number): void {
    const found = this.#seat(node, seat)
    found.life.killedMs = machineMs()
    found.ready = false
    found.child.kill('SIGKILL')
  }

  signal(node: NodeName, seat: number, life: number, signal: NodeJS.Signals): void {
    const found = this.#seat(node, seat)
    if (found.life.process === life) found.child.kill(signal)
  }

  lifeOf(node: NodeName, seat: number): number {
    return this.#seat(node, seat).life.process
  }

  tell(message: ToWorker): void {
    if (message === 'end') this.#ending = true
    for (const { child } of this.#seats) child.send(message, () => {})
  }

  /** Those that did not end in time are named and killed. */
  async ended(timeoutMs: number): Promise<void> {
    const left = (): Seat[] => this.#seats.filter(({ child }) => child.exitCode === null && child.signalCode === null)
    try {
      await until(() => left().length === 0, { timeoutMs, what: 'the end of all processes' })
    } catch {
      for (const { node, seat, child } of left()) {
        this.trouble.push(`the process of ${node} ${seat} did not end`)
        child.kill('SIGKILL')
      }
    }
  }

  /** When everything else has failed. */
  abandon(): void {
    this.#ending = true
    for (const { child } of this.#seats) child.kill('SIGKILL')
  }

  #seat(node: NodeName, seat: number): Seat {
    const found = this.#seats.find((one) => one.node === node && one.seat === seat)
    if (!found) throw new Error(`there is no seat ${node} ${seat}`)
    return found
  }

  #spawn(node: NodeName, seat: number, buffersEach: number): { life: Life; child: ChildProcess } {
    const { script, directory, log, mostProcesses, planOf } = this.#plan
    const process_ = this.lives.length
    const firstBuffer = this.#buffers
    this.#buffers += buffersEach * queuePairsOf(seat).length
    const journal = `${directory}/journal-${process_}`
    const about = { seat, process: process_, processes: mostProcesses, journal, firstBuffer, buffersEach }
    const plan: WorkerPlan = { ...planOf(node), ...about, name: `${node}-${seat}-${process_}` }
    const output = openSync(log, 'a', 0o600)
    const child = spawn(process.execPath, [script, JSON.stringify(plan)], {
      env: { ...process.env, [MARK_NAME]: runMark },
      stdio: ['ignore', output, output, 'ipc'],
    })
    closeSync(output)
    const life: Life = { node, seat, process: process_, journal, killedMs: null, finished: false }
    this.lives.push(life)
    return { life, child }
  }

  #watch(seat: Seat): void {
    const { child, life, node } = seat
    child.on('message', (message: FromWorker) => {
      if ('ready' in message) seat.ready = seat.life === life && life.killedMs === null
      else if ('stopped' in message) seat.stopped = true
      else {
        this.events.set(message.event, (this.events.get(message.event) ?? 0) + 1)
        if (/^queue-pair-error|^broker-lost false/.test(message.event)) this.#complain(life, message.event)
      }
    })
    child.on('error', (error) => this.#complain(life, error.message))
    child.on('exit', (code, signal) => {
      life.finished = code === 0
      if (life.killedMs === null && code !== 0) {
        life.killedMs = machineMs()
        this.#complain(life, `ended with ${signal ?? code}: ${this.#lastWords()}`)
      }
      if (this.#ending) return
      if (this.lives.length >= this.#plan.mostProcesses) {
        this.#complain(life, 'one process after the other ends')
        return
      }
      Object.assign(seat, this.#spawn(node, seat.seat, LATER_BUFFERS), { ready: false })
      this.#watch(seat)
    })
  }

  #complain({ node, seat, process }: Life, what: string): void {
    if (this.trouble.length < 20) this.trouble.push(`${node} ${seat}, process ${process}: ${what}`)
  }

  #lastWords(): string {
    return readFileSync(this.#plan.log, 'utf8').trim().split('\n').slice(-12).join('\n')
  }
}
