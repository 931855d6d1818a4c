/**
 * The directory in which one broker lives, and the two locks that keep it alone:
 *
 *   <dir>/broker.lock   proper-lockfile, in front: tells a second start at once, kindly
 *   <dir>/node          the kernel's lock on the node file, held for life: the authority. The first alone would be robbed
 *                       from a broker that is merely stopped, because it goes by the age of a file
 *   <dir>/standby       the kernel's lock on it is held by the broker that waits for the node file's
 *   <dir>/broker.sock   the control socket; a stale one is replaced only while the lock is held
 */
import { closeSync, constants, fstatSync, mkdirSync, openSync, readSync, rmdirSync, rmSync, statSync } from 'node:fs'
import { lock } from 'proper-lockfile'
import { SharedVerbsError } from '../../protocol/errors.js'
import { nodeFileHeader, nodeFileMagic } from '../../protocol/node-file.js'
import { controlSocketPath, lockPath, nodeFilePath, socketPathByteLength, standbyPath } from '../../protocol/paths.js'
import { tryLockWholeFile } from '../../shm/libc.js'
import { Memory } from '../../shm/memory.js'
import { systemClock } from './clock.js'

export interface ClaimOptions {
  readonly path: string
  /** 0600: only this user may reach the socket; 0660: its group too. */
  readonly socketMode: number
  /** proper-lockfile could not refresh its lock: worth a word in the log, never more, because it is not the authority. */
  onFriendlyLockLost(error: Error): void
  /** Wait until the broker that is there has ended, whatever way. */
  readonly standby: Standby | null
}

/** Of a broker that waits for another one's end. */
export interface Standby {
  /** Waiting begins. */
  onWaiting(): void
  /** False ends it. */
  isWanted(): boolean
}

type Release = () => Promise<void>

const STALE_MS = 10_000
const LOCK_TRIES = 10
const STANDBY_LOOK_MS = 5

const unusable = (path: string, why: string, cure: string, cause?: unknown): SharedVerbsError =>
  new SharedVerbsError('runtime-directory-unusable', `runtime directory ${path} ${why}; ${cure}`, { path }, cause)

const errnoOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? String(error)

export class RuntimeDirectory {
  readonly path: string
  /** Carries the kernel lock; whoever closes it gives the directory up. */
  readonly nodeFileDescriptor: number
  readonly #created: boolean
  readonly #releaseFriendlyLock: Release | undefined
  #released = false

  private constructor(path: string, fd: number, created: boolean, releaseFriendlyLock: Release | undefined) {
    this.path = path
    this.nodeFileDescriptor = fd
    this.#created = created
    this.#releaseFriendlyLock = releaseFriendlyLock
  }

  /** Throws `runtime-directory-unusable`, or `broker-already-running` naming the process that is there. */
  static async claim(options: ClaimOptions): Promise<RuntimeDirectory> {
    const { path } = options
    const created = prepare(path, options.socketMode)
    try {
      if (options.standby) return await waitForDirectory(options, created, options.standby)
      const friendly = await takeFriendlyLock(options)
      const fd = lockNodeFile(path, options.socketMode)
      if (fd === undefined) {
        await friendly?.()
        throw alreadyRunning(path)
      }
      return new RuntimeDirectory(path, fd, created, friendly ?? (await replaceFriendlyLock(options)))
    } catch (error) {
      if (created) removeIfEmpty(path)
      throw error
    }
  }

  /** With a kernel lock that was waited for. */
  static async standing(options: ClaimOptions, fd: number, created: boolean): Promise<RuntimeDirectory> {
    return new RuntimeDirectory(options.path, fd, created, await replaceFriendlyLock(options))
  }

  /**
   * `closeNodeFile` gives the kernel's lock up. The lock in front goes first: afterwards it may be a successor's already. May be repeated.
   */
  async release(closeNodeFile: () => void): Promise<void> {
    if (this.#released) return
    this.#released = true
    await this.#releaseFriendlyLock?.().catch(() => undefined)
    closeNodeFile()
    if (this.#created) removeIfEmpty(this.path)
  }

  /** While the lock is still held: a successor that opened the old file finds out by its inode. */
  removeNodeFile(): void {
    rmSync(nodeFilePath(this.path), { force: true })
  }
}

/**
 * The kernel's lock is the only thing waited for: a broker that is stopped or hangs keeps it. Asked often, because every moment in which
 * nobody holds it is one in which jobs stand still.
 */
async function waitForDirectory(options: ClaimOptions, created: boolean, standby: Standby): Promise<RuntimeDirectory> {
  const { path, socketMode } = options
  const place = takeStandby(path, socketMode)
  try {
    let waiting = false
    for (;;) {
      const fd = lockNodeFile(path, socketMode)
      if (fd !== undefined) return await RuntimeDirectory.standing(options, fd, created)
      if (!standby.isWanted()) throw new SharedVerbsError('aborted', `the standby in ${path} was told to end`, { path })
      if (!waiting) standby.onWaiting()
      waiting = true
      await new Promise<void>((resolve) => systemClock.after(STANDBY_LOOK_MS, resolve))
    }
  } finally {
    rmSync(standbyPath(path), { force: true })
    closeSync(place)
  }
}

/** One at a time: two would race for the lock, and the second could win it with the older build. */
function takeStandby(path: string, socketMode: number): number {
  const file = standbyPath(path)
  const fd = openNodeFile(path, file, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, socketMode & 0o600)
  if (tryLockWholeFile(fd)) return fd
  closeSync(fd)
  throw new SharedVerbsError('broker-already-running', `another broker stands by in ${path} already`, { path })
}

/** True if the directory was made here. */
function prepare(path: string, socketMode: number): boolean {
  const socketPath = controlSocketPath(path)
  const byteLength = Buffer.byteLength(socketPath)
  if (byteLength > socketPathByteLength) {
    const why = `makes the socket path ${byteLength} bytes long, at most ${socketPathByteLength} are possible`
    throw unusable(path, why, 'choose a shorter one')
  }
  let existed = false
  try {
    existed = statSync(path, { throwIfNoEntry: false }) !== undefined
    mkdirSync(path, { recursive: true, mode: socketMode === 0o660 ? 0o750 : 0o700 })
  } catch (error) {
    throw unusable(path, `cannot be made (${errnoOf(error)})`, 'choose another or make it for this user', error)
  }
  // Whoever may write here could put a socket or a node file of his own in our place.
  if ((statSync(path).mode & 0o002) !== 0) throw unusable(path, 'is writable by everybody', `run chmod o-w ${path}`)
  return !existed
}

/** Undefined when another one has it. */
async function takeFriendlyLock({ path, onFriendlyLockLost }: ClaimOptions): Promise<Release | undefined> {
  const options = { realpath: false, stale: STALE_MS, onCompromised: onFriendlyLockLost }
  for (let attempt = 0; attempt < LOCK_TRIES; attempt++) {
    try {
      return await lock(lockPath(path), options)
    } catch (error) {
      const code = errnoOf(error)
      if (code === 'ELOCKED') return undefined
      // Whoever got the kernel's lock meanwhile has replaced this one while it was being made.
      if (code === 'ENOENT' && statSync(path, { throwIfNoEntry: false })) continue
      throw unusable(path, `is not writable (${code})`, 'give this user the right to write there', error)
    }
  }
  return undefined
}

/** The kernel says that nobody lives here, so the lock in front was left by a broker that was killed. */
function replaceFriendlyLock(options: ClaimOptions): Promise<Release | undefined> {
  rmSync(`${lockPath(options.path)}.lock`, { recursive: true, force: true })
  return takeFriendlyLock(options)
}

/** The descriptor with the kernel lock, or undefined when a living broker holds it. */
function lockNodeFile(path: string, socketMode: number): number | undefined {
  const file = nodeFilePath(path)
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW
  for (let attempt = 0; attempt < LOCK_TRIES; attempt++) {
    const fd = openNodeFile(path, file, flags, socketMode === 0o660 ? 0o640 : 0o600)
    if (!tryLockWholeFile(fd)) {
      closeSync(fd)
      return undefined
    }
    // A predecessor may have removed the file between our opening and our locking: then the lock is worth nothing.
    if (statSync(file, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino) return fd
    closeSync(fd)
  }
  return undefined
}

function openNodeFile(path: string, file: string, flags: number, mode: number): number {
  try {
    return openSync(file, flags, mode)
  } catch (error) {
    throw unusable(path, `holds a node file that cannot be opened (${errnoOf(error)})`, `remove ${file}`, error)
  }
}

function alreadyRunning(path: string): SharedVerbsError {
  const processId = runningProcess(path)
  const who = processId === 0 ? 'another broker, just starting,' : `broker process ${processId}`
  return new SharedVerbsError(
    'broker-already-running',
    `${who} already runs in ${path}; use it, stop it with 'broker stop', or choose another runtime directory`,
    { path, processId },
  )
}

/** 0 when the other one has not written it yet. */
function runningProcess(path: string): number {
  const buffer = new ArrayBuffer(nodeFileHeader.byteLength)
  try {
    const fd = openSync(nodeFilePath(path), 'r')
    try {
      readSync(fd, new Uint8Array(buffer), 0, buffer.byteLength, 0)
    } finally {
      closeSync(fd)
    }
  } catch {
    return 0
  }
  const header = nodeFileHeader.read(new Memory(buffer), 0)
  return header.magic === nodeFileMagic ? header.processId : 0
}

function removeIfEmpty(path: string): void {
  try {
    rmdirSync(path)
  } catch {
    // Somebody keeps something there: then it is not ours to remove.
  }
}
