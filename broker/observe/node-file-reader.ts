/**
 * Reads the node file without the broker's help: a running, a hung and a dead broker look the same from here.
 *
 * The file is copied whole in one read instead of being mapped: the copy cannot change or be cut while it is looked at, and a broker of
 * another version is met with an error instead of a fault. A row that the broker is writing at this moment may be half old, half
 * new; that is good enough for a display and nothing else may use it.
 */
import { closeSync, openSync, readFileSync, statSync } from 'node:fs'
import { brokerState, brokerStateNames } from '../../protocol/broker-page.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import {
  type CounterName,
  completionQueueRow,
  counterNames,
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
  type SectionGeometry,
  sharedQueuePairRow,
} from '../../protocol/node-file.js'
import { nodeFilePath } from '../../protocol/paths.js'
import { abiVersion, nodeFileFingerprint } from '../../protocol/version.js'
import type { Layout, RecordOf } from '../../shm/layout.js'
import { tryLockWholeFile } from '../../shm/libc.js'
import { Memory } from '../../shm/memory.js'

const rowLayouts = {
  jobs: jobRow,
  members: memberRow,
  queuePairs: queuePairRow,
  completionQueues: completionQueueRow,
  regions: regionRow,
  peers: peerRow,
  sharedQueuePairs: sharedQueuePairRow,
  errors: errorRow,
  events: eventRow,
} as const

export type SectionName = keyof typeof rowLayouts
type RowOf<Of> = Of extends Layout<infer Fields> ? RecordOf<Fields> : never
/** A row as the broker wrote it, with its number. */
export type Row<Section extends SectionName> = RowOf<(typeof rowLayouts)[Section]> & { readonly index: number }
export type NodeFileHeader = RowOf<typeof nodeFileHeader>

/** `hung`: the process lives but its heart stopped. `dead`: it ended without saying so. `stopped`: it ended in order. */
export type BrokerLife = 'starting' | 'running' | 'draining' | 'stopped' | 'hung' | 'dead'

/** A broker beats several times a second; a busy machine may delay it, a healthy one never this long. */
export const hungAfterMs = 5000

/** Holds the lock, but in a pid namespace that cannot be seen from here. */
export const unseenProcess = -1

export class NodeFileSnapshot {
  readonly path: string
  readonly takenTimeMs: number
  readonly header: NodeFileHeader
  /** The process that holds the kernel lock of the file, 0 if nobody does, or `unseenProcess`. */
  readonly lockHolder: number
  readonly #memory: Memory

  constructor(path: string, memory: Memory, lockHolder: number, takenTimeMs: number) {
    this.path = path
    this.#memory = memory
    this.lockHolder = lockHolder
    this.takenTimeMs = takenTimeMs
    this.header = nodeFileHeader.read(memory, 0)
  }

  get heartbeatAgeMs(): number {
    return Math.max(0, this.takenTimeMs - this.header.heartbeatTimeMs)
  }

  get life(): BrokerLife {
    const state = brokerStateNames[this.header.state] ?? 'starting'
    if (this.lockHolder === 0) return this.header.state === brokerState.stopped ? 'stopped' : 'dead'
    // The heart of a broker that is only starting has not begun to beat.
    if (this.header.state !== brokerState.starting && this.heartbeatAgeMs > hungAfterMs) return 'hung'
    return state
  }

  /** Rows in use, in order of their numbers. */
  rows<Section extends SectionName>(section: Section): Row<Section>[] {
    const { offset, rowByteLength, rows }: SectionGeometry = nodeFileGeometry.sections[section]
    const found: Row<Section>[] = []
    for (let index = 0; index < rows; index++) {
      const base = offset + index * rowByteLength
      // The state is the first word of every row, zero in a free one.
      if (this.#memory.u32[base / 4] === 0) continue
      found.push({ index, ...rowLayouts[section].read(this.#memory, base) } as unknown as Row<Section>)
    }
    return found
  }

  counters(): Record<CounterName, number> {
    const first = nodeFileGeometry.countersOffset / 8
    const values = counterNames.map((name, index) => [name, this.#memory.f64[first + index] ?? 0] as const)
    return Object.fromEntries(values) as Record<CounterName, number>
  }
}

/** Throws `broker-not-running` when no broker ever ran there, `abi-mismatch` or `segment-invalid` when the file is of another build. */
export function readNodeFile(runtimeDirectory: string): NodeFileSnapshot {
  const path = nodeFilePath(runtimeDirectory)
  const bytes = readWhole(path, runtimeDirectory)
  if (bytes.byteLength < nodeFileHeader.byteLength) {
    throw new SharedVerbsError('broker-not-running', `the broker's file ${path} is not filled yet`, { path })
  }
  const buffer = new ArrayBuffer(nodeFileGeometry.byteLength)
  new Uint8Array(buffer).set(bytes.subarray(0, buffer.byteLength))
  const snapshot = new NodeFileSnapshot(path, new Memory(buffer), lockHolderOf(path), Date.now())
  checkIdentity(snapshot)
  if (snapshot.life !== 'dead' || snapshot.heartbeatAgeMs > hungAfterMs || !lockHeldUnseen(path)) return snapshot
  return new NodeFileSnapshot(path, new Memory(buffer), unseenProcess, Date.now())
}

function checkIdentity({ header, path }: NodeFileSnapshot): void {
  if (header.ready === 0 && header.magic === 0) {
    throw new SharedVerbsError('broker-not-running', `the broker's file ${path} is not filled yet`, { path })
  }
  if (header.magic !== nodeFileMagic) throw new SharedVerbsError('segment-invalid', `${path} is no node file`, { path })
  if (header.version !== abiVersion || header.fingerprint !== nodeFileFingerprint) {
    throw new SharedVerbsError(
      'abi-mismatch',
      `${path} was written by another version (${header.version}/${header.fingerprint.toString(16)}, this one reads ` +
        `${abiVersion}/${nodeFileFingerprint.toString(16)}); use the command of the broker's own installation`,
      { path, version: header.version },
    )
  }
}

function readWhole(path: string, runtimeDirectory: string): Uint8Array {
  try {
    return readFileSync(path)
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code
    if (reason === 'ENOENT' || reason === 'ENOTDIR') {
      throw new SharedVerbsError(
        'broker-not-running',
        `no broker runs in ${runtimeDirectory}; start one with 'broker start --runtime-dir ${runtimeDirectory}'`,
        { runtimeDirectory },
      )
    }
    throw new SharedVerbsError('access-denied', `cannot read ${path}: ${reason ?? String(error)}`, { path }, error)
  }
}

/**
 * Who holds the lock of a file, by the kernel's own list; 0 if nobody. Asking this way, not by trying to lock, can never make a broker that
 * starts at this moment believe that another one is there.
 */
export function lockHolderOf(path: string): number {
  const file = statSync(path, { throwIfNoEntry: false })
  if (file === undefined) return 0
  let holder = 0
  for (const line of readFileSync('/proc/locks', 'utf8').split('\n')) {
    // 1: FLOCK  ADVISORY  WRITE 4711 00:1b:2 0 EOF; a line with '->' only waits.
    const [, kind, , mode, processId, name] = line.split(/\s+/)
    if (kind !== 'FLOCK' || mode !== 'WRITE' || name === undefined) continue
    const [major, minor, inode] = name.split(':')
    if (inode !== String(file.ino)) continue
    holder = Number(processId)
    // Overlay file systems list another device than stat shows: then the number of the file has to do.
    if (Number.parseInt(`${major}${minor}`, 16) === file.dev) break
  }
  return holder
}

/**
 * The list leaves out processes of pid namespaces that cannot be seen from here. Only when a fresh heartbeat says that there must be one
 * is the lock itself asked.
 */
function lockHeldUnseen(path: string): boolean {
  const fd = openSync(path, 'r')
  try {
    return !tryLockWholeFile(fd)
  } finally {
    closeSync(fd)
  }
}

/** Does the process exist, whoever owns it? A zombie does not count: nothing of it runs any more. */
export function processExists(processId: number): boolean {
  try {
    const stat = readFileSync(`/proc/${processId}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3) !== 'Z'
  } catch {
    return false
  }
}
