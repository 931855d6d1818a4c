/** A storm from its first process to its verdict. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../../broker/commands/demo/ports.js'
import { guardDirectory } from '../support/guard.js'
import type { Holdings } from '../support/holdings.js'
import { until } from '../support/until.js'
import { Broker } from './broker.js'
import { build } from './build.js'
import { Crew, FIRST_BUFFERS, LATER_BUFFERS } from './crew.js'
import { machineMs } from './journal.js'
import { judge } from './judge.js'
import { job, Keeper } from './keeper.js'
import { known, Ledger } from './ledger.js'
import { type Outage, pausesOf } from './pauses.js'
import {
  BUFFER_BYTES,
  bufferOffset,
  counterOffset,
  DATAGRAM,
  isWhole,
  MOST_PROCESSES,
  type NodeName,
  nodeNames,
  queueOfSeat,
  readHeader,
} from './plan.js'
import { isFaultless, type Progress, type StormOptions, type StormResult } from './report.js'
import { type Fault, scheduleOf } from './schedule.js'

const SETTLE_MS = 60_000
const READY_MS = 90_000
/** How long after a fault of a broker or a link a pause may have that cause. */
const AFTERMATH_MS = 2000

export async function runStorm(options: StormOptions, progress: Progress): Promise<StormResult> {
  const directory = mkdtempSync(join(tmpdir(), 'storm-'))
  if (!options.keep) guardDirectory(directory)
  const storm = new Storm(options, progress, directory)
  let keeps = false
  try {
    const result = await storm.run()
    keeps = options.keep && !isFaultless(result)
    if (keeps) storm.describe()
    if (keeps) result.trouble.push(`journals and logs are kept in ${directory}`)
    return result
  } finally {
    await storm.end()
    if (keeps) rmSync(join(directory, 'build'), { recursive: true, force: true })
    else rmSync(directory, { recursive: true, force: true })
  }
}

const otherOf = (node: NodeName): NodeName => (node === 'alpha' ? 'beta' : 'alpha')

class Storm {
  readonly #options: StormOptions
  readonly #progress: Progress
  readonly #directory: string
  readonly #brokers = new Map<NodeName, Broker>()
  readonly #keepers = new Map<NodeName, Keeper>()
  readonly #outages: Outage[] = []
  readonly #restarts = new Map<NodeName, Promise<void>>()
  readonly #done = { kills: 0, stops: 0, brokerKills: 0, linkCuts: 0 }
  #crew: Crew | undefined
  #trouble: string[] = []

  constructor(options: StormOptions, progress: Progress, directory: string) {
    this.#options = options
    this.#progress = progress
    this.#directory = directory
  }

  async run(): Promise<StormResult> {
    const inShm = filesInShm()
    await this.#prepare()
    const baseline = new Map(nodeNames.map((node) => [node, this.#brokerOf(node).holdings()]))
    const crew = this.#crewOf()
    for (let seat = 0; seat < this.#options.processes; seat++) {
      for (const node of nodeNames) crew.start(node, seat)
      await until(() => crew.ready, { timeoutMs: READY_MS, what: `seat ${seat}; ${this.#state()}` })
    }
    const beganMs = machineMs()
    await this.#rage(crew)
    const secondsTaken = (machineMs() - beganMs) / 1000
    await this.#settle(crew)
    const stuck = await this.#calm(crew)
    const leaks = await this.#leaks(baseline)
    const left = filesInShm() - inShm
    return this.#result(crew, secondsTaken, stuck, leaks.segments + Math.max(0, left), leaks.descriptors)
  }

  /** For whoever reads the journals: whose they are, and what happened when. */
  describe(): void {
    const about = { lives: this.#crew?.lives, outages: this.#outages }
    writeFileSync(join(this.#directory, 'about.json'), JSON.stringify(about))
  }

  async end(): Promise<void> {
    this.#crew?.abandon()
    await Promise.allSettled(this.#restarts.values())
    await Promise.all([...this.#keepers.values()].map(({ session }) => session.close()))
    await Promise.all([...this.#brokers.values()].map((broker) => broker.kill('SIGTERM')))
  }

  // --------------------------------------------------------------------------------------------------- preparation

  async #prepare(): Promise<void> {
    this.#progress.say('compile')
    const built = await build(this.#directory)
    const ports = { alpha: await freePort('127.0.0.1'), beta: await freePort('127.0.0.1') }
    this.#script = built.worker
    this.#progress.say('brokers')
    for (const name of nodeNames) {
      const peer = otherOf(name)
      const directory = join(this.#directory, name)
      mkdirSync(directory, { mode: 0o700 })
      const log = join(this.#directory, `${name}.log`)
      const places = { directory, port: ports[name], peer, peerPort: ports[peer], log }
      const broker = new Broker({ name, main: built.broker, ...places })
      this.#brokers.set(name, broker)
      await broker.start()
      this.#keepers.set(name, await Keeper.make(name, directory, this.#mostProcesses, this.#mostBuffers))
    }
    const [alpha, beta] = [this.#keeperOf('alpha'), this.#keeperOf('beta')]
    await Promise.all([alpha.connect(beta), beta.connect(alpha)])
  }

  #script = ''

  get #mostProcesses(): number {
    return Math.min(MOST_PROCESSES, 2 * this.#options.processes + this.#options.kills + 50)
  }

  get #mostBuffers(): number {
    const { processes } = this.#options
    return 2 * processes * FIRST_BUFFERS * 3 + this.#mostProcesses * LATER_BUFFERS * 3
  }

  #brokerOf(node: NodeName): Broker {
    return this.#brokers.get(node)!
  }

  #keeperOf(node: NodeName): Keeper {
    return this.#keepers.get(node)!
  }

  #crewOf(): Crew {
    this.#crew = new Crew({
      script: this.#script,
      directory: this.#directory,
      log: join(this.#directory, 'processes.log'),
      mostProcesses: this.#mostProcesses,
      mostBuffers: this.#mostBuffers,
      planOf: (node) => {
        const keeper = this.#keeperOf(node)
        const peer = this.#keeperOf(otherOf(node))
        return {
          runtimeDirectory: this.#brokerOf(node).directory,
          ...job,
          seed: this.#options.seed,
          home: keeper.home.share(),
          queues: keeper.queues.map((queue) => queue.share()),
          queuePairs: keeper.queuePairs.map((queuePair) => queuePair.share()),
          remoteKey: peer.home.remoteKey,
          peerNode: peer.name,
          peerDatagram: peer.queuePairs[DATAGRAM]!.address,
          rate: this.#options.rate,
        }
      },
    })
    return this.#crew
  }

  // -------------------------------------------------------------------------------------------------------- faults

  async #rage(crew: Crew): Promise<void> {
    const beganMs = machineMs()
    for (const fault of scheduleOf(this.#options)) {
      const waitMs = beganMs + fault.atMs - machineMs()
      if (waitMs > 0) await sleep(waitMs)
      await this.#strike(crew, fault)
      this.#progress.say(this.#state())
      if (this.#troubles(crew).length > 0) break
    }
    const restMs = beganMs + this.#options.seconds * 1000 - machineMs()
    if (restMs > 0 && this.#troubles(crew).length === 0) await sleep(restMs)
  }

  async #strike(crew: Crew, fault: Fault): Promise<void> {
    if (fault.what === 'broker') await this.#killBrokers(fault.nodes, fault.pauseMs)
    else if (fault.what === 'cut') await this.#cut(fault.node, fault.which)
    else {
      const { node, seat } = fault
      await until(() => crew.isReady(node, seat) || this.#troubles(crew).length > 0, {
        timeoutMs: READY_MS,
        what: `a process at ${node} ${seat}; ${this.#state()}`,
      })
      if (!crew.isReady(node, seat)) return
      if (fault.what === 'kill') {
        crew.kill(node, seat)
        this.#done.kills++
      } else {
        const life = crew.lifeOf(node, seat)
        crew.signal(node, seat, life, 'SIGSTOP')
        setTimeout(() => crew.signal(node, seat, life, 'SIGCONT'), fault.forMs)
        this.#done.stops++
      }
    }
  }

  async #killBrokers(nodes: readonly NodeName[], pauseMs: number): Promise<void> {
    await Promise.all(nodes.map((node) => this.#restarts.get(node)))
    const fromMs = machineMs()
    for (const node of nodes) {
      const broker = this.#brokerOf(node)
      const restart = broker
        .kill()
        .then(() => sleep(pauseMs))
        .then(() => broker.start())
        .then(() => this.#back(node))
        .then(() => void this.#outages.push({ fromMs, toMs: machineMs() + AFTERMATH_MS }))
        .catch((error: unknown) => void this.#trouble.push(String(error)))
      this.#restarts.set(node, restart)
      this.#done.brokerKills++
    }
  }

  async #back(node: NodeName): Promise<void> {
    const { attachment } = this.#keeperOf(node).session
    const isBack = (): boolean => !attachment.lost || attachment.ended !== undefined
    await until(isBack, { timeoutMs: SETTLE_MS, what: `the keeper of ${node} to come back` })
  }

  async #cut(node: NodeName, which: 'link' | 'lanes' | 'all'): Promise<void> {
    await Promise.all(this.#restarts.values())
    // Connections that an earlier fault has taken come back first.
    const cut = (): number | false => this.#brokerOf(node).cut(which) || false
    await until(cut, { timeoutMs: SETTLE_MS, what: `a connection of ${node} to cut: ${which}` })
    const fromMs = machineMs()
    this.#outages.push({ fromMs, toMs: fromMs + AFTERMATH_MS })
    this.#done.linkCuts++
  }

  #troubles(crew: Crew): string[] {
    return [...this.#trouble, ...crew.trouble, ...[...this.#keepers.values()].flatMap(({ trouble }) => trouble)]
  }

  #state(): string {
    const { kills, brokerKills, linkCuts } = this.#options
    const done = this.#done
    return `kills ${done.kills}/${kills}  brokers ${done.brokerKills}/${brokerKills}  cuts ${done.linkCuts}/${linkCuts}`
  }

  // ----------------------------------------------------------------------------------------------------------- end

  /** Everybody is there again before the last requests are posted. */
  async #settle(crew: Crew): Promise<void> {
    this.#progress.say('settle')
    await Promise.all(this.#restarts.values())
    const isSettled = (): boolean => crew.ready || this.#troubles(crew).length > 0
    await until(isSettled, { timeoutMs: READY_MS, what: 'all processes' })
  }

  /** Nothing more is posted; what was posted ends. Returns what did not. */
  async #calm(crew: Crew): Promise<string[]> {
    crew.tell('stop')
    const keepers = [...this.#keepers.values()]
    const left = (): string[] => keepers.flatMap((keeper) => keeper.unfinished())
    const isOver = (): boolean =>
      crew.stopped && left().length === 0 && keepers.every((keeper) => keeper.untaken() === 0)
    try {
      await until(isOver, { timeoutMs: SETTLE_MS, what: 'the last verdicts' })
    } catch {
      this.#trouble.push(
        `no end: ${left().slice(0, 5).join(', ')}; ${keepers.map((keeper) => keeper.untaken())} untaken`,
      )
    }
    const stuck = left()
    crew.tell('end')
    await crew.ended(30_000)
    return stuck
  }

  /** What the brokers hold more than when only the keepers were there. */
  async #leaks(baseline: ReadonlyMap<NodeName, Holdings>): Promise<Holdings> {
    const more = (): Holdings => {
      const sum = { segments: 0, descriptors: 0 }
      for (const [node, before] of baseline) {
        const now = this.#brokerOf(node).holdings()
        sum.segments += Math.max(0, now.segments - before.segments)
        sum.descriptors += Math.max(0, now.descriptors - before.descriptors)
      }
      return sum
    }
    try {
      await until(() => more().segments + more().descriptors === 0, { timeoutMs: 15_000, what: 'nothing more' })
    } catch {
      this.#trouble.push(`brokers hold more than before: ${JSON.stringify(more())}`)
    }
    return more()
  }

  #result(
    crew: Crew,
    secondsTaken: number,
    stuck: readonly string[],
    leakedSegments: number,
    leakedDescriptors: number,
  ): StormResult {
    this.#progress.say('judge')
    const ledger = new Ledger()
    ledger.add(crew.lives.map(({ process, journal: path }) => ({ process, path })))
    this.#lookIntoBuffers(ledger, crew.buffers)
    const { lives } = crew
    const nodeOf = (process: number): number => nodeNames.indexOf(lives[process]!.node)
    const killedAt = (node: number, queue: number): number =>
      lives.filter(
        (life) => life.killedMs !== null && life.node === nodeNames[node] && queueOfSeat(life.seat) === queue,
      ).length
    const tally = judge({
      ledger,
      nodeOf,
      isDead: (process) => lives[process]!.killedMs !== null,
      killedAt,
      counter: (node, queuePair) => Number(this.#home(nodeNames[node]!).readBigUInt64LE(counterOffset(queuePair))),
    })
    const pauses = pausesOf(lives, ledger.taken, this.#outages)
    const { kills, stops, brokerKills, linkCuts } = this.#done
    return {
      ...{ kills, stops, brokerKills, linkCuts, ...tally, stuck: stuck.length, leakedSegments, leakedDescriptors },
      longestSurvivorPauseMs: Number(pauses.medianMs.toFixed(2)),
      longestSurvivorPauseMaxMs: Number(pauses.mostMs.toFixed(2)),
      ordinaryPauseMs: Number(pauses.ordinaryMs.toFixed(2)),
      trouble: this.#troubles(crew),
      events: [...crew.events],
      secondsTaken: Number(secondsTaken.toFixed(1)),
      seed: this.#options.seed,
    }
  }

  #home(node: NodeName): Buffer {
    const { buffer, byteOffset, byteLength } = this.#keeperOf(node).home.bytes
    return Buffer.from(buffer, byteOffset, byteLength)
  }

  /** A message that lies in a receive buffer came, even if nobody lived to say so. */
  #lookIntoBuffers(ledger: Ledger, buffers: number): void {
    for (const node of nodeNames) {
      const home = this.#home(node)
      for (let buffer = 0; buffer < buffers; buffer++) {
        const offset = bufferOffset(this.#mostProcesses, buffer)
        if (!isWhole(home, offset, BUFFER_BYTES)) continue
        const { process, queuePair, sequence } = readHeader(home, offset)
        const line = ledger.lines.get(process * 8 + queuePair)
        if (line && sequence < line.count) line.known[sequence]! |= known.inBuffer
      }
    }
  }
}

function filesInShm(): number {
  try {
    return readdirSync('/dev/shm').length
  } catch {
    // A machine without it can have nothing left there.
    return 0
  }
}
