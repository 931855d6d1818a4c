/**
 * Makes and destroys provider queue pairs for lanes: key, row and incarnation first, then the engine. The registry of keys is where
 * de-duplication is true or false: a key is taken before its queue pair is made, and free again only when that is gone.
 */
import { SharedVerbsError } from '../../protocol/errors.js'
import type { LaneParameters } from '../../protocol/link.js'
import { laneStateNames } from '../../protocol/node-file.js'
import type { Engine } from '../control/engine.js'
import type { EngineReady } from '../engine/commands.js'
import type { NodeFile } from '../observe/node-file.js'
import type { Observer } from '../observe/observer.js'
import type { QueuePairAddress } from '../provider/provider.js'
import { forgiveMissing, tableFull } from '../sessions/object-services.js'
import { Lane } from './lane.js'
import type { LaneSet } from './lane-set.js'
import { printSharingKey } from './sharing-key.js'

export interface LaneMakerOptions {
  readonly engine: Engine
  readonly ready: EngineReady
  readonly nodeFile: NodeFile
  readonly observer: Observer
}

type LaneStateName = (typeof laneStateNames)[number]
const rowState = (name: LaneStateName): number => laneStateNames.indexOf(name)

export class LaneMaker {
  readonly #options: LaneMakerOptions
  readonly #lanes = new Map<string, Lane>()

  constructor(options: LaneMakerOptions) {
    this.#options = options
  }

  /** One for each provider queue pair of this node. */
  get keys(): string[] {
    return [...this.#lanes.keys()]
  }

  byRow(row: number): Lane | undefined {
    for (const lane of this.#lanes.values()) if (lane.row === row) return lane
    return undefined
  }

  parameters(trafficClass: number): LaneParameters {
    return { ...this.#options.ready.laneParameters, trafficClass }
  }

  /** Takes key, row and incarnation. `shared`: the name the peer gave the lane, if it opened it. */
  begin(set: LaneSet, index: number, shared?: number): Lane {
    const key = this.#keyOf(set, index)
    if (this.#lanes.has(key)) {
      throw new SharedVerbsError('internal-error', `lane ${index} to node ${set.peer.node} was to be made twice`)
    }
    const { nodeFile } = this.#options
    const row = nodeFile.sharedQueuePairs.reserve()
    if (row === undefined) throw tableFull('shared queue pairs', nodeFile.sharedQueuePairs.rows)
    const incarnation = nodeFile.nextIncarnation()
    const lane = new Lane({ set, index, row, incarnation, shared: shared ?? incarnation, key })
    this.#lanes.set(key, lane)
    set.lanes.set(index, lane)
    this.#fillRow(lane)
    return lane
  }

  async create(lane: Lane, parameters: LaneParameters): Promise<QueuePairAddress> {
    const { set } = lane
    const creation = this.#options.engine.call('create-lane', {
      lane: lane.row,
      job: set.job.number,
      peer: set.peer.row,
      peerNode: set.peer.node,
      incarnation: lane.incarnation,
      shared: lane.name.incarnation,
      index: lane.index,
      trafficClass: set.trafficClass,
      parameters,
    })
    lane.creation = creation.catch(() => undefined)
    const address = await creation
    lane.made = true
    this.#options.observer.count('shared-queue-pairs-created')
    this.#options.nodeFile.sharedQueuePairs.write(lane.row, { providerNumber: address.number })
    return address
  }

  /** Settles when frames go both ways. */
  async connect(
    lane: Lane,
    remote: QueuePairAddress,
    parameters: LaneParameters,
    how: { readonly initiator: boolean; readonly timeoutMs: number },
  ): Promise<void> {
    const { nodeFile, engine } = this.#options
    nodeFile.sharedQueuePairs.write(lane.row, { remoteNumber: remote.number, bounceBuffers: parameters.bounceCount })
    const { row, incarnation } = lane
    await engine.call('connect-lane', { lane: row, incarnation, remote, parameters, ...how })
    if (lane.state !== 'opening') {
      throw new SharedVerbsError('path-lost', `lane ${lane.index} to node ${lane.set.peer.node} was given up`)
    }
    lane.state = 'up'
    nodeFile.sharedQueuePairs.write(row, { state: rowState('up') })
  }

  /** Ends a lane whatever is on it; settles when its queue pair is gone. May be repeated. */
  destroy(lane: Lane, reason: string): Promise<void> {
    lane.state = 'gone'
    lane.removal ??= this.#destroy(lane, reason)
    return lane.removal
  }

  /** Ends a lane that nobody uses; false when the engine knows better, and the lane stays. */
  async reap(lane: Lane): Promise<boolean> {
    const { engine, nodeFile, observer } = this.#options
    const { row, incarnation } = lane
    nodeFile.sharedQueuePairs.write(row, { state: rowState('closing') })
    try {
      await engine.call('destroy-lane', { lane: row, incarnation, orderly: true, reason: 'idle' })
    } catch (error) {
      if (!(error instanceof SharedVerbsError) || error.code !== 'busy') throw error
      nodeFile.sharedQueuePairs.write(row, { state: rowState('up') })
      return false
    }
    lane.state = 'gone'
    this.#forget(lane)
    observer.count('shared-queue-pairs-reaped')
    observer.note('lane-reaped', `lane ${lane.index} of job ${lane.set.job.name} to node ${lane.set.peer.node}`)
    return true
  }

  async #destroy(lane: Lane, reason: string): Promise<void> {
    const { engine, nodeFile, observer } = this.#options
    const { set, index, row, incarnation } = lane
    if (set.lanes.get(index) === lane) set.lanes.delete(index)
    nodeFile.sharedQueuePairs.write(row, { state: rowState('failed') })
    const removal = lane.creation
      .then(() => (lane.made ? engine.call('destroy-lane', { lane: row, incarnation, orderly: false, reason }) : null))
      .catch((error) => observer.report(error, `lane ${index} to node ${set.peer.node}`))
      .then(() => this.#forget(lane))
    set.leaving.set(index, removal)
    await forgiveMissing(removal)
  }

  #forget(lane: Lane): void {
    const { set, index } = lane
    if (set.lanes.get(index) === lane) set.lanes.delete(index)
    set.leaving.delete(index)
    this.#lanes.delete(lane.key)
    this.#options.nodeFile.sharedQueuePairs.free(lane.row)
  }

  #keyOf(set: LaneSet, index: number): string {
    const { provider, device, address } = this.#options.ready
    const { life } = set.peer
    return printSharingKey({
      userId: set.job.userId,
      job: set.job.name,
      provider,
      device,
      address,
      nodeId: life?.nodeId ?? '',
      epoch: life?.epoch ?? 0,
      trafficClass: set.trafficClass,
      lane: index,
    })
  }

  #fillRow(lane: Lane): void {
    this.#options.nodeFile.sharedQueuePairs.fill(lane.row, {
      state: rowState('opening'),
      job: lane.set.job.number,
      peer: lane.set.peer.row,
      lane: lane.index,
      providerNumber: 0,
      remoteNumber: 0,
      incarnation: lane.incarnation,
      trafficClass: lane.set.trafficClass,
      queuePairs: 0,
      postedBytes: 0,
      framesSent: 0,
      framesReceived: 0,
      bytesSent: 0,
      bytesReceived: 0,
      credit: 0,
      bounceBuffers: 0,
    })
  }
}
