/**
 * The kernel's word on who is alive.
 *
 *   liveness file (one per job, 2,048 bytes that nobody reads or writes)
 *   ┌────────┬──────────┬──────────┬───
 *   │ byte 0 │ byte 1   │ byte 2   │ …      byte i = member i; the broker is member 0
 *   └────────┴──────────┴──────────┴───
 *       ▲          ▲ write lock held by an open description that only this member has
 *
 * - The kernel drops the lock when the description closes: at death by any signal (before the process is reaped), and
 *   when a worker thread that opened it through node:fs ends. A stopped process keeps it. It knows no pid, so pid
 *   namespaces and reused pids do not matter.
 * - A token is taken on a description of its own: the file is opened again through /proc, not duplicated. A duplicate,
 *   also one that travelled in a message, shares the description, and its lock would live until the last copy closes.
 * - A member can feign life inside its own job, nothing more; the broker's pidfd overrules it.
 * - A closed socket is no death: the process may be inside a critical section.
 */
import { closeSync, openSync } from 'node:fs'
import { DescriptorPoll } from './descriptor-poll.js'
import { ShmError } from './errors.js'
import {
  addSeals,
  byteLockHeld,
  closeDescriptor,
  fallocate,
  ftruncate,
  memfdCreate,
  pidfdOpen,
  SEAL_GROW,
  SEAL_SEAL,
  SEAL_SHRINK,
  SystemCallError,
  tryLockByte,
} from './libc.js'
import { type LivenessOracle, MAX_MEMBERS } from './robust-lock.js'

/** The file whose bytes are the members. Not sealed against writing: a write lock needs a writable descriptor. */
export function createLivenessFile(): number {
  const fd = memfdCreate('liveness')
  ftruncate(fd, MAX_MEMBERS)
  fallocate(fd, 0, MAX_MEMBERS)
  addSeals(fd, SEAL_SHRINK | SEAL_GROW | SEAL_SEAL)
  return fd
}

/** Opened through node:fs on purpose: Node closes it with the worker thread that opened it. */
function reopen(fd: number): number {
  return openSync(`/proc/self/fd/${fd}`, 'r+')
}

/** Held for the life of a session. */
export class LivenessToken {
  readonly memberIndex: number
  #fd: number

  private constructor(fd: number, memberIndex: number) {
    this.#fd = fd
    this.memberIndex = memberIndex
  }

  /**
   * Takes the byte of a member, or throws 'liveness-token-taken'. `fd` stays the caller's and is not needed any more.
   */
  static hold(fd: number, memberIndex: number): LivenessToken {
    if (!Number.isInteger(memberIndex) || memberIndex < 0 || memberIndex >= MAX_MEMBERS) {
      throw new ShmError('out-of-bounds', `member ${memberIndex}, at most ${MAX_MEMBERS - 1}`)
    }
    const own = reopen(fd)
    if (tryLockByte(own, memberIndex)) return new LivenessToken(own, memberIndex)
    closeSync(own)
    throw new ShmError('liveness-token-taken', `byte ${memberIndex} is held by another session`)
  }

  /** From here on the member counts as dead. May be called again. */
  release(): void {
    if (this.#fd < 0) return
    closeSync(this.#fd)
    this.#fd = -1
  }
}

/**
 * Asks for anybody's token. It opens the file again as well: the question names only locks of *other* descriptions, so
 * asked through the description that holds a token, its own living holder would look dead.
 */
export class LivenessMonitor implements LivenessOracle {
  #fd: number

  constructor(fd: number) {
    this.#fd = reopen(fd)
  }

  /** False only if the kernel says so: a closed monitor and an impossible member know nothing, and nobody is robbed. */
  alive(memberIndex: number): boolean {
    if (this.#fd < 0 || memberIndex >= MAX_MEMBERS) return true
    return byteLockHeld(this.#fd, memberIndex)
  }

  close(): void {
    if (this.#fd < 0) return
    closeSync(this.#fd)
    this.#fd = -1
  }
}

export interface ProcessWatch {
  close(): void
}

/**
 * Calls `onDeath` once, always later and never from within, when the process dies; at once if it is dead or unknown.
 * Keeps no process alive. A pid names whoever has the number now: for a peer on a socket use
 * `watchProcessDescriptor(peerProcess(fd))`.
 */
export function watchProcess(pid: number, onDeath: () => void): ProcessWatch {
  let fd: number
  try {
    fd = pidfdOpen(pid)
  } catch (error) {
    if (!(error instanceof SystemCallError) || error.code !== 'ESRCH') throw error
    const turn = setImmediate(onDeath)
    return { close: () => clearImmediate(turn) }
  }
  return new DeathWatch(fd, onDeath)
}

/** The same for a pidfd, which the watch owns from here on. */
export function watchProcessDescriptor(pidfd: number, onDeath: () => void): ProcessWatch {
  return new DeathWatch(pidfd, onDeath)
}

class DeathWatch implements ProcessWatch {
  readonly #fd: number
  readonly #poll: DescriptorPoll
  #open = true

  constructor(fd: number, onDeath: () => void) {
    this.#fd = fd
    // Readable is the only event of a pidfd and comes also when the process was dead before.
    this.#poll = new DescriptorPoll(fd, () => {
      if (!this.#open) return
      this.close()
      onDeath()
    })
    this.#poll.start({ readable: true })
    this.#poll.unref()
  }

  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#poll.close()
    closeDescriptor(this.#fd)
  }
}
