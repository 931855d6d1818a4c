/**
 * A broker, from the claim of its runtime directory to the last trace. The command line and tests start it the same way.
 *
 *   start   directory · locks ─► node file ─► broker page ─► engine ─► control plane ─► link port ─► control socket ─► `ready`
 *   hand over   no request, no work request taken ─► quiet ─► peers told ─► engine ─► node file kept, kernel lock free for who stands by
 *   stop    sessions told and ended ─► jobs, lanes, links ─► engine ─► socket, node file, locks, directory
 */
import { closeSync } from 'node:fs'
import { brokerState } from '../protocol/broker-page.js'
import { SharedVerbsError } from '../protocol/errors.js'
import { controlSocketPath, standbyPath } from '../protocol/paths.js'
import { closeDescriptor, eventfdCreate, notifyReady } from '../shm/libc.js'
import { OwnedClock, systemClock } from './control/clock.js'
import { ControlPlane } from './control/control-plane.js'
import { ControlServer } from './control/control-server.js'
import type { StartedEngine } from './control/engine.js'
import { toFailure } from './control/failure.js'
import { RuntimeDirectory } from './control/runtime-directory.js'
import { type BrokerOptions, checkSettings, type Settings } from './control/settings.js'
import { within } from './control/within.js'
import type { EngineOptions } from './engine/commands.js'
import { EngineClient } from './engine/engine-client.js'
import { BrokerPage } from './observe/broker-page.js'
import { createLogger, type Logger } from './observe/logger.js'
import { NodeFile, readBootId } from './observe/node-file.js'
import { lockHolderOf } from './observe/node-file-reader.js'
import { Observer } from './observe/observer.js'
import { createNodeId } from './peers/link-security.js'

export type { BrokerOptions } from './control/settings.js'

export interface RunningBroker {
  readonly runtimeDirectory: string
  readonly node: string
  /** Port of the control link; 0 without a cluster key. */
  readonly linkPort: number
  readonly epoch: number
  readonly state: 'running' | 'draining' | 'stopped'
  /** Ends everything in order and removes every trace. May be called again; never fails. */
  stop(): Promise<void>
  /** Takes nothing new and waits until everything posted has its verdict; tells how much has not at the deadline. Never fails. */
  drain(timeoutMs: number): Promise<{ readonly outstanding: number }>
  /**
   * Gives way to the broker that stands by: sessions go on with it. Throws `aborted` when nobody stands by, `timeout` when what was
   * posted did not end in time; then nothing has happened. Settles before this broker has ended; see `whenStopped`.
   */
  handover(timeoutMs: number): Promise<void>
  /** Adds a node or moves it; throws `invalid-argument` for an address that makes no sense. */
  addPeer(name: string, address: string): void
  /** Settles when the broker has stopped; rejects with what ended it when that was not `stop`. */
  readonly whenStopped: Promise<void>
}

const refused = (why: string): SharedVerbsError => new SharedVerbsError('aborted', `handover refused: ${why}`)

const unfinished = (outstanding: number, timeoutMs: number): SharedVerbsError =>
  new SharedVerbsError('timeout', `handover given up: ${outstanding} requests were not done in ${timeoutMs} ms`, {
    outstanding,
    timeoutMs,
  })

const HEARTBEAT_MS = 250
/** Stopping goes by the machine's own time, because it waits for others. No step waits longer than this for somebody else. */
const STOP_STEP_MS = 5000
/** How long clients that were told to go may keep their liveness tokens before their numbers are left to rest. */
const TOKEN_GRACE_MS = 500
const STOP_POLL_MS = 10

/** Throws `broker-already-running`, `runtime-directory-unusable`, `invalid-argument`, `provider-unavailable`, `port-in-use`. */
export async function runBroker(options: BrokerOptions): Promise<RunningBroker> {
  const settings = checkSettings(options)
  const log = createLogger({ level: settings.logLevel, ...streamOf(settings) }, settings.node)
  // Whoever stands by has its engine's thread ready when its turn comes.
  const prepared = settings.standby && !options.startEngine ? EngineClient.prepare() : null
  const startEngine = prepared ? (given: EngineOptions) => prepared.start(given) : settings.startEngine
  const directory = await RuntimeDirectory.claim({
    path: settings.runtimeDirectory,
    socketMode: settings.socketMode,
    onFriendlyLockLost: (error) => log.warn({ reason: error.message }, 'the lock in front was not refreshed'),
    standby: settings.standby,
  }).catch(async (error) => {
    await prepared?.abandon()
    throw error
  })
  const broker = await makeBroker({ ...settings, startEngine }, directory, log)
  try {
    await broker.start()
  } catch (error) {
    await broker.abandon()
    throw error
  }
  return broker
}

async function makeBroker(settings: Settings, directory: RuntimeDirectory, log: Logger): Promise<Broker> {
  try {
    return new Broker(settings, directory, log)
  } catch (error) {
    await directory.release(() => closeSync(directory.nodeFileDescriptor))
    throw toFailure(error)
  }
}

const streamOf = (settings: Settings): { stream?: NonNullable<Settings['logStream']> } =>
  settings.logStream ? { stream: settings.logStream } : {}

class Broker implements RunningBroker {
  readonly runtimeDirectory: string
  readonly node: string
  readonly epoch: number
  readonly whenStopped: Promise<void>
  state: RunningBroker['state'] = 'running'
  linkPort = 0
  readonly #settings: Settings
  readonly #directory: RuntimeDirectory
  readonly #clock: OwnedClock
  readonly #nodeFile: NodeFile
  readonly #observer: Observer
  readonly #page: BrokerPage
  readonly #doorbell = eventfdCreate()
  #started: StartedEngine | null = null
  #plane: ControlPlane | null = null
  #server: ControlServer | null = null
  #stopping: Promise<void> | null = null
  #settle: { resolve: () => void; reject: (failure: Error) => void } = { resolve: () => {}, reject: () => {} }

  constructor(settings: Settings, directory: RuntimeDirectory, log: Logger) {
    this.#settings = settings
    this.#directory = directory
    this.runtimeDirectory = directory.path
    this.node = settings.node
    this.#clock = new OwnedClock(settings.clock)
    const wallTimeMs = (): number => this.#clock.wallTimeMs()
    this.#nodeFile = NodeFile.open(directory.nodeFileDescriptor, {
      node: settings.node,
      bootId: readBootId(),
      processId: process.pid,
      freshNodeId: createNodeId(),
      freshGeneration: Number.parseInt(createNodeId().slice(0, 6), 16),
      wallTimeMs,
    })
    this.epoch = this.#nodeFile.epoch
    this.#observer = new Observer(log, this.#nodeFile)
    this.#page = new BrokerPage({ node: settings.node, epoch: this.epoch, wallTimeMs })
    this.whenStopped = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject }
    })
    // Whoever does not look at it must not be ended by it.
    this.whenStopped.catch(() => undefined)
  }

  async start(): Promise<void> {
    const { engine, ready } = await this.#startEngine()
    const parts = { engine, ready, clock: this.#clock, observer: this.#observer, nodeFile: this.#nodeFile }
    const handover = (timeoutMs: number): Promise<void> => this.handover(timeoutMs)
    const own = { settings: this.#settings, page: this.#page, doorbell: this.#doorbell, handover }
    const plane = new ControlPlane({ ...parts, ...own })
    this.#plane = plane
    engine.on('failed', (failure) => this.#engineFailed(new SharedVerbsError('internal-error', failure.message)))
    this.linkPort = await plane.sharing.listen()
    this.#describe(plane)
    const { socketMode, runtimeDirectory } = this.#settings
    this.#server = ControlServer.listen(plane, controlSocketPath(runtimeDirectory), socketMode)
    plane.setState(brokerState.running)
    this.#beat()
    this.#clock.every(HEARTBEAT_MS, () => this.#beat())
    plane.restart.start()
    this.#nodeFile.publishReady()
    this.#observer.note(
      'broker-started',
      `epoch ${this.epoch}, provider ${ready.provider}, link ${this.#linkAddress()}`,
    )
    notifyReady('READY=1')
  }

  addPeer(name: string, address: string): void {
    this.#plane?.sharing.addPeer(name, address)
  }

  async drain(timeoutMs: number): Promise<{ readonly outstanding: number }> {
    const plane = this.#plane
    if (!plane || this.state === 'stopped') return { outstanding: 0 }
    this.#refuseNew(plane, 'draining')
    try {
      return await plane.engine.call('drain', { timeoutMs, handover: false })
    } catch (error) {
      this.#observer.report(error, 'draining')
      return { outstanding: 0 }
    }
  }

  async handover(timeoutMs: number): Promise<void> {
    const plane = this.#plane
    if (!plane || this.state !== 'running' || this.#stopping) throw refused('this broker does not run')
    if (lockHolderOf(standbyPath(this.runtimeDirectory)) === 0) {
      throw refused(`nobody stands by; start the next broker with 'broker start --standby' first`)
    }
    // Whoever is not back yet could not come back twice.
    await plane.restart.whenSettled()
    this.#observer.note('broker-hands-over', `at most ${timeoutMs} ms`)
    let end: (goesOn: boolean) => void = () => {}
    plane.pause = new Promise((resolve) => {
      end = resolve
    })
    try {
      const { outstanding } = await plane.engine.call('drain', { timeoutMs, handover: true })
      if (outstanding > 0) throw unfinished(outstanding, timeoutMs)
    } catch (error) {
      plane.pause = null
      end(true)
      throw error
    }
    end(false)
    this.#stopping = this.#giveWay(plane)
  }

  /** From here on the sessions are the next broker's: nothing of them is touched. */
  async #giveWay(plane: ControlPlane): Promise<void> {
    plane.gaveWay = true
    this.#nodeFile.quiesced()
    this.state = 'draining'
    plane.sessions.unwatch()
    // The answer to whoever asked for it leaves first.
    await new Promise<void>((resolve) => setImmediate(resolve))
    plane.sharing.leave('handover')
    this.#server?.stopListening()
    await this.#stopEngine()
    this.#server?.close()
    plane.sessions.abandonAll()
    plane.restart.abandon()
    this.#observer.note('broker-stopped', 'handed over')
    this.state = 'stopped'
    await this.#removeTraces(false)
    this.#settle.resolve()
  }

  stop(): Promise<void> {
    return this.#stop(null)
  }

  /** A start that failed leaves as little behind as a stop. */
  async abandon(): Promise<void> {
    // From here on an engine that ends is no news.
    this.#stopping = Promise.resolve()
    this.#server?.close()
    await this.#step('closing links', this.#plane?.sharing.stop('handover', 'start failed'))
    await this.#stopEngine()
    this.#plane?.restart.abandon()
    await this.#removeTraces(this.#nodeFile.members.used === 0)
  }

  async #startEngine(): Promise<StartedEngine> {
    const { provider, device, path, host, node, idle, bounceByteLength, bounceCount, bulkWindowByteLength, faults } =
      this.#settings
    const span = ({ address, byteLength }: { address: number; byteLength: number }) => ({ address, byteLength })
    this.#started = await this.#settings.startEngine({
      provider,
      device,
      path,
      host,
      port: 0,
      node,
      epoch: this.epoch,
      nodeFile: span(this.#nodeFile.mapping),
      brokerPage: span(this.#page.mapping),
      doorbell: this.#doorbell,
      idle,
      bounceByteLength,
      bounceCount,
      bulkWindowByteLength,
      faults,
    })
    return this.#started
  }

  #linkAddress(): string {
    return this.linkPort === 0 ? '' : `${this.#settings.host}:${this.linkPort}`
  }

  #describe({ ready }: ControlPlane): void {
    const { provider, device } = ready
    this.#nodeFile.header({ provider, device, lanes: this.#settings.lanes, linkAddress: this.#linkAddress() })
  }

  #beat(): void {
    this.#nodeFile.beat()
    this.#page.beat()
  }

  #refuseNew(plane: ControlPlane, reason: string): void {
    if (this.state !== 'running') return
    this.state = 'draining'
    plane.setState(brokerState.draining)
    this.#observer.note('broker-draining', reason)
    for (const session of plane.sessions.all) session.send('broker-draining', { reason })
  }

  #engineFailed(failure: SharedVerbsError): void {
    if (this.#stopping) return
    this.#observer.report(failure, 'engine')
    void this.#stop(failure)
  }

  #stop(failure: SharedVerbsError | null): Promise<void> {
    this.#stopping ??= this.#stopOnce(failure)
    return this.#stopping
  }

  async #stopOnce(failure: SharedVerbsError | null): Promise<void> {
    const plane = this.#plane
    let clean = true
    if (plane) {
      this.#refuseNew(plane, failure ? failure.message.slice(0, 200) : 'stopping')
      this.#server?.stopListening()
      await this.#step('ending the wait for sessions', plane.restart.end())
      clean = await this.#endSessions(plane)
      await this.#step('removing jobs', Promise.all(plane.jobs.all.map((job) => plane.jobs.remove(job))))
      await this.#step('closing links', plane.sharing.stop('stop', 'stopped'))
    }
    await this.#stopEngine()
    if (plane?.sessions.abandonLingering()) clean = false
    this.#observer.note('broker-stopped', failure ? failure.message.slice(0, 100) : 'in order')
    plane?.setState(brokerState.stopped)
    this.state = 'stopped'
    await this.#removeTraces(clean)
    if (failure) this.#settle.reject(failure)
    else this.#settle.resolve()
  }

  /** Ends every session; true if nobody is left who might use its number. */
  async #endSessions(plane: ControlPlane): Promise<boolean> {
    const { sessions } = plane
    const reason = 'the broker stops'
    const leaving = sessions.all.map((session) => sessions.endSession(session, reason))
    await this.#step('ending sessions', Promise.all(leaving))
    this.#server?.close()
    const deadlineMs = systemClock.nowMs() + TOKEN_GRACE_MS
    while (sessions.left > 0 && systemClock.nowMs() < deadlineMs) {
      await new Promise<void>((resolve) => systemClock.after(STOP_POLL_MS, resolve))
      sessions.lookAtLingering()
    }
    return sessions.rowsInUse === 0
  }

  async #stopEngine(): Promise<void> {
    const engine = this.#started?.engine
    if (!engine) return
    this.#started = null
    await this.#step('stopping the engine', engine.call('stop', {}))
    await this.#step('ending the engine', engine.ended)
  }

  /** One step of the way down: what fails or hangs is reported and must not keep the rest from ending. */
  async #step(what: string, work: Promise<unknown> | undefined): Promise<void> {
    try {
      if (work) await within(work, STOP_STEP_MS, systemClock, what)
    } catch (error) {
      this.#observer.report(error, what)
    }
  }

  /** `clean`: nobody holds a number of this broker, so the node file has nothing to remember. */
  async #removeTraces(clean: boolean): Promise<void> {
    this.#clock.end()
    this.#page.close()
    closeDescriptor(this.#doorbell)
    if (clean) this.#directory.removeNodeFile()
    await this.#directory.release(() => this.#nodeFile.close())
  }
}
