/**
 * The node file as its only writer sees it: header, tables, counters, errors, events.
 *
 * A file that a broker of the same node left behind in the same boot is adopted: numbers and generations go on where they were,
 * because somebody who holds an old one may still live (crash-consistency S8). Its rows of jobs, members, objects and peers stay as they
 * are and reserved, until their clients have presented what they hold or are known not to come (sessions/restart.ts); only clients write
 * segments, so this file is what a successor believes. Anything else is written anew. The file never shrinks,
 * so that a reader that mapped it meets no fault.
 */
import { closeSync, fstatSync, readFileSync } from 'node:fs'
import { brokerState } from '../../protocol/broker-page.js'
import {
  completionQueueRow,
  errorRow,
  eventRow,
  jobRow,
  memberRow,
  nodeFileGeometry,
  nodeFileHeader,
  nodeFileMagic,
  peerRow,
  queuePairRow,
  regionRow,
  sharedQueuePairRow,
} from '../../protocol/node-file.js'
import { abiVersion, nodeFileFingerprint } from '../../protocol/version.js'
import { fallocate, ftruncate, SystemCallError } from '../../shm/libc.js'
import { Mapping } from '../../shm/mapping.js'
import { Counters } from './counters.js'
import { ErrorLog } from './error-log.js'
import { EventRing } from './event-ring.js'
import { type RowOf, Table } from './table.js'

export interface NodeFileIdentity {
  readonly node: string
  readonly bootId: string
  readonly processId: number
  /** Becomes the identity of the node when the file is written anew. */
  readonly freshNodeId: string
  /** Where generations begin when the file is written anew: addresses handed out before must not fit again. */
  readonly freshGeneration: number
  readonly wallTimeMs: () => number
}

export type NodeFileHeader = RowOf<typeof nodeFileHeader>

export const readBootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()

const GENERATION_RANGE = 2 ** 28
const sections = nodeFileGeometry.sections

export class NodeFile {
  readonly mapping: Mapping
  readonly epoch: number
  readonly nodeId: string
  readonly adopted: boolean
  readonly jobs: Table<RowOf<typeof jobRow>>
  readonly members: Table<RowOf<typeof memberRow>>
  readonly queuePairs: Table<RowOf<typeof queuePairRow>>
  readonly completionQueues: Table<RowOf<typeof completionQueueRow>>
  readonly regions: Table<RowOf<typeof regionRow>>
  readonly peers: Table<RowOf<typeof peerRow>>
  readonly sharedQueuePairs: Table<RowOf<typeof sharedQueuePairRow>>
  readonly counters: Counters
  readonly errors: ErrorLog
  readonly events: EventRing
  readonly #fd: number
  readonly #wallTimeMs: () => number
  readonly #firstGeneration: number

  private constructor(fd: number, mapping: Mapping, identity: NodeFileIdentity) {
    const { memory } = mapping
    this.#fd = fd
    this.mapping = mapping
    this.#wallTimeMs = identity.wallTimeMs
    const found = nodeFileHeader.read(memory, 0)
    this.adopted = isAdoptable(found, identity)
    mapping.words.store(nodeFileHeader.word.ready, 0)
    if (!this.adopted) memory.u8.fill(0)
    this.epoch = this.adopted ? found.epoch + 1 : 1
    this.nodeId = this.adopted ? found.nodeId : identity.freshNodeId
    const mark = this.adopted ? found.nextRegionGeneration : 1 + (identity.freshGeneration % 0xff0000)
    this.#firstGeneration = mark
    this.jobs = new Table(memory, sections.jobs, jobRow)
    this.members = new Table(memory, sections.members, memberRow)
    this.queuePairs = new Table(memory, sections.queuePairs, queuePairRow)
    this.completionQueues = new Table(memory, sections.completionQueues, completionQueueRow)
    this.regions = new Table(memory, sections.regions, regionRow)
    this.peers = new Table(memory, sections.peers, peerRow)
    this.sharedQueuePairs = new Table(memory, sections.sharedQueuePairs, sharedQueuePairRow)
    this.counters = new Counters(memory)
    const errors = new Table(memory, sections.errors, errorRow, 0)
    this.errors = new ErrorLog(errors, identity.wallTimeMs)
    const events = new Table(memory, sections.events, eventRow, 0)
    this.events = new EventRing(events, identity.wallTimeMs, lastSequence(events))
    for (const table of [this.jobs, this.members, this.queuePairs, this.completionQueues, this.regions, this.peers]) {
      table.holdAll()
    }
    // Lanes hold nothing that lasts.
    for (const table of [this.sharedQueuePairs, errors]) table.freeAll()
    this.#writeHeader(identity, mark)
  }

  /** `fd` was opened through node:fs and carries the kernel lock; the node file closes it. */
  static open(fd: number, identity: NodeFileIdentity): NodeFile {
    reserveSpace(fd)
    return new NodeFile(fd, Mapping.file(fd, nodeFileGeometry.byteLength, true), identity)
  }

  header(values: Partial<NodeFileHeader>): void {
    nodeFileHeader.write(this.mapping.memory, 0, values)
  }

  /** The last store of a start: from here on readers may trust the rest. */
  publishReady(): void {
    this.mapping.words.store(nodeFileHeader.word.ready, 1)
  }

  setState(state: number): void {
    this.mapping.words.store(nodeFileHeader.word.state, state)
  }

  beat(): void {
    this.header({ heartbeatTimeMs: this.#wallTimeMs() })
    this.mapping.words.add(nodeFileHeader.word.heartbeat, 1)
  }

  /** A number that no lane of this node ever had; stored before it is used. */
  nextIncarnation(): number {
    const { nextIncarnation } = nodeFileHeader.read(this.mapping.memory, 0)
    this.header({ nextIncarnation: nextIncarnation >= 0xffffffff ? 1 : nextIncarnation + 1 })
    return nextIncarnation
  }

  /** The generation after `generation`, which is 0 in a row that was never issued. `range` is a power of two; 0 is left out. */
  generationAfter(generation: number, range = GENERATION_RANGE): number {
    const next = (generation === 0 ? this.#firstGeneration : generation + 1) % range
    return next === 0 ? 1 : next
  }

  /** A broker that hands over has stopped everything. */
  quiesced(): void {
    this.header({ quiescedTimeMs: this.#wallTimeMs() })
  }

  /** What the predecessor left goes on; how long everything stood still if it had handed over, else null. */
  resumed(resumedTimeMs: number): number | null {
    const { quiescedTimeMs, resumedTimeMs: before } = nodeFileHeader.read(this.mapping.memory, 0)
    this.header({ resumedTimeMs })
    return quiescedTimeMs > before ? resumedTimeMs - quiescedTimeMs : null
  }

  /** Gives the mapping back and, with the descriptor, the kernel lock. May be repeated. */
  close(): void {
    if (this.mapping.closed) return
    this.mapping.close()
    closeSync(this.#fd)
  }

  #writeHeader(identity: NodeFileIdentity, nextRegionGeneration: number): void {
    const found = nodeFileHeader.read(this.mapping.memory, 0)
    this.header({
      magic: nodeFileMagic,
      version: abiVersion,
      fingerprint: nodeFileFingerprint,
      epoch: this.epoch,
      processId: identity.processId,
      state: brokerState.starting,
      heartbeatTimeMs: identity.wallTimeMs(),
      startedTimeMs: identity.wallTimeMs(),
      node: identity.node,
      bootId: identity.bootId,
      nodeId: this.nodeId,
      nextRegionGeneration,
      nextIncarnation: Math.max(1, found.nextIncarnation),
    })
  }
}

function isAdoptable(found: NodeFileHeader, identity: NodeFileIdentity): boolean {
  return (
    found.magic === nodeFileMagic &&
    found.version === abiVersion &&
    found.fingerprint === nodeFileFingerprint &&
    found.bootId === identity.bootId &&
    found.node === identity.node &&
    found.epoch > 0 &&
    found.nodeId !== ''
  )
}

function lastSequence(events: Table<RowOf<typeof eventRow>>): number {
  let last = 0
  for (let row = 0; row < events.rows; row++) last = Math.max(last, events.read(row).sequence)
  return last
}

/** Takes the space now, so that no later store fails for want of it; file systems that cannot promise give what they have. */
function reserveSpace(fd: number): void {
  if (fstatSync(fd).size < nodeFileGeometry.byteLength) ftruncate(fd, nodeFileGeometry.byteLength)
  try {
    fallocate(fd, 0, nodeFileGeometry.byteLength)
  } catch (error) {
    if (!(error instanceof SystemCallError) || error.code !== 'EOPNOTSUPP') throw error
  }
}
