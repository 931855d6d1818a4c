/** Everything the main thread of a broker has, put together once; handlers of requests find what they need here. */
import { brokerState } from '../../protocol/broker-page.js'
import { fileIdentity } from '../../shm/mapping.js'
import type { EngineReady } from '../engine/commands.js'
import { Regions } from '../memory/region.js'
import type { BrokerPage } from '../observe/broker-page.js'
import { type NodeFile, readBootId } from '../observe/node-file.js'
import type { Observer } from '../observe/observer.js'
import { Accounts } from '../sessions/accounts.js'
import { CompletionQueues } from '../sessions/completion-queue.js'
import type { Job, JobIdentity } from '../sessions/job.js'
import { Jobs } from '../sessions/jobs.js'
import type { ObjectServices } from '../sessions/object-services.js'
import { QueuePairs } from '../sessions/queue-pair.js'
import { Restart } from '../sessions/restart.js'
import { Sessions } from '../sessions/sessions.js'
import { Sharing, type SharingOptions } from '../sharing/sharing.js'
import type { Clock } from './clock.js'
import { Connections } from './connections.js'
import type { Engine } from './engine.js'
import { Services } from './services.js'
import type { Settings } from './settings.js'

export interface ControlPlaneParts {
  readonly settings: Settings
  readonly clock: Clock
  readonly observer: Observer
  readonly nodeFile: NodeFile
  readonly page: BrokerPage
  /** The eventfd that clients ring when the engine sleeps. */
  readonly doorbell: number
  readonly engine: Engine
  readonly ready: EngineReady
  /** Stops everything for the broker that stands by; throws when that cannot be. */
  handover(timeoutMs: number): Promise<void>
}

export class ControlPlane {
  readonly settings: Settings
  readonly clock: Clock
  readonly observer: Observer
  readonly nodeFile: NodeFile
  readonly page: BrokerPage
  readonly doorbell: number
  readonly engine: Engine
  readonly ready: EngineReady
  readonly completionQueues: CompletionQueues
  readonly queuePairs: QueuePairs
  readonly regions: Regions
  readonly jobs: Jobs
  readonly sessions: Sessions
  readonly services: Services
  readonly sharing: Sharing
  readonly connections: Connections
  /** Of what an earlier broker left. */
  readonly restart: Restart
  readonly handover: (timeoutMs: number) => Promise<void>
  /** Set while this broker tries to hand over: requests wait for its outcome, true = this broker goes on. */
  pause: Promise<boolean> | null = null
  /** Handed over: nothing of any session is this broker's any more. */
  gaveWay = false
  /** Nothing new is begun. */
  draining = false

  constructor(parts: ControlPlaneParts) {
    const { settings, clock, observer, nodeFile, engine } = parts
    this.settings = settings
    this.clock = clock
    this.observer = observer
    this.nodeFile = nodeFile
    this.page = parts.page
    this.doorbell = parts.doorbell
    this.engine = engine
    this.ready = parts.ready
    this.handover = (timeoutMs) => parts.handover(timeoutMs)
    const objects: ObjectServices = { engine, nodeFile, observer, accounts: new Accounts(settings.limits) }
    this.completionQueues = new CompletionQueues(objects)
    this.queuePairs = new QueuePairs(objects, this.completionQueues)
    this.regions = new Regions(objects)
    const { completionQueues, queuePairs, regions } = this
    this.sharing = new Sharing(this.#sharingOptions(parts))
    this.jobs = new Jobs({
      services: objects,
      clock,
      idleMs: settings.idleReapMs,
      beforeRemoval: (job) => this.sharing.endJob(job),
      left: (identity) => this.restart.left(identity),
    })
    this.services = new Services({ engine, clock, observer })
    const { jobs, services, sharing } = this
    this.connections = new Connections({ node: settings.node, engine, clock, queuePairs, services, sharing })
    const onLeave: ConstructorParameters<typeof Sessions>[0]['onLeave'] = (session) => {
      services.drop(session)
      this.connections.leave(session)
    }
    this.sessions = new Sessions({ services: objects, clock, jobs, completionQueues, queuePairs, regions, onLeave })
    this.restart = new Restart({
      services: objects,
      clock,
      graceMs: settings.reattachGraceMs,
      device: fileIdentity(parts.page.mapping.fd).dev,
      jobs,
      sessions: this.sessions,
      completionQueues,
      queuePairs,
      regions,
      onResumed: (job) => this.connections.resume(job),
      onSettled: (identity) => sharing.jobSettled(identity),
    })
    this.#relayEvents()
  }

  #sharingOptions({
    settings,
    clock,
    observer,
    nodeFile,
    page,
    doorbell,
    engine,
    ready,
  }: ControlPlaneParts): SharingOptions {
    const { provider } = ready
    const { nodeId, epoch } = nodeFile
    const {
      node,
      lanes,
      sharing,
      clusterKey,
      host,
      port,
      peers,
      peersFile,
      random,
      idleReapMs: idleMs,
      peerGraceMs,
    } = settings
    const identity = { node, nodeId, bootId: readBootId(), epoch, provider, lanes, sharing }
    const findJob = (of: JobIdentity): Job | undefined => {
      const job = this.jobs.find(of)
      return job?.removal || job?.resumption ? undefined : job
    }
    const isAwaited = (of: JobIdentity): boolean => this.restart.left(of) !== undefined
    const places = { host, port, peers, peersFile, clusterKey }
    const tools = { clock, random, observer, nodeFile, page, doorbell, engine, ready }
    return { ...places, ...tools, identity, idleMs, peerGraceMs, findJob, isAwaited }
  }

  setState(state: (typeof brokerState)[keyof typeof brokerState]): void {
    this.draining = state === brokerState.draining || state === brokerState.stopped
    this.nodeFile.setState(state)
    this.page.setState(state)
  }

  /** What the engine tells about an object goes to everybody who holds it. */
  #relayEvents(): void {
    this.engine.on('queue-pair-error', ({ job: _job, ...body }) => {
      for (const holder of this.queuePairs.byNumber(body)?.holders ?? []) holder.send('queue-pair-error', body)
    })
    this.engine.on('queue-pair-disconnected', ({ job: _job, ...body }) => {
      for (const holder of this.queuePairs.byNumber(body)?.holders ?? []) holder.send('queue-pair-disconnected', body)
    })
    this.engine.on('queue-pair-room', ({ job: _job, ...body }) => {
      for (const holder of this.queuePairs.byNumber(body)?.holders ?? []) holder.send('queue-pair-room', body)
    })
    this.engine.on('completion-queue-error', ({ job: _job, ...body }) => {
      for (const holder of this.completionQueues.byNumber(body)?.holders ?? []) {
        holder.send('completion-queue-error', body)
      }
    })
    this.engine.on('device-event', ({ kind, detail }) => {
      this.observer.note('device-event', `${kind}: ${detail}`)
      if (kind !== 'device-fatal') return
      for (const session of this.sessions.all) session.send('device-removed', { device: this.ready.device })
    })
  }
}
