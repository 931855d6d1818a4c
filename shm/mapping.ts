/**
 * Segments: sealed anonymous files mapped into this process.
 *
 *   create ──► memfd ── preallocated ── sealed SHRINK|GROW|SEAL ── mapped read-write ──► Mapping
 *                 └── descriptor ── SCM_RIGHTS ──► attach: seals? size? ── mapped ──► Mapping (another process)
 *
 * Invariants:
 * - Nothing is mapped before its seals and size are checked: an unsealed file could be cut under us (SIGBUS).
 * - Every page exists from the start, so no later touch fails for want of memory. Hole punching stays possible for
 *   whoever may write; the bytes then read zero, which every record must allow.
 * - A read-only share is enforced by F_SEAL_FUTURE_WRITE, not by the descriptor's mode: a read-only descriptor reopens
 *   read-write through /proc.
 * - After `close()` the pages are gone, but the addresses stay harmless while any view of them is reachable: zeroed
 *   private memory takes their place, and is unmapped when the last view has been collected. A straggler reads zeroes
 *   (every word's legal idle state) and its writes reach nobody. JavaScript has no way to detach such views.
 * - A view made by `at` is the exception: it does not know of the collection in the other thread. Close all of them
 *   first.
 * - Writing through a read-only mapping ends the process (SIGSEGV); nothing in JavaScript can refuse it earlier.
 */
import { fstatSync } from 'node:fs'
import { ShmError } from './errors.js'
import {
  addSeals,
  closeDescriptor,
  fallocate,
  ftruncate,
  getSeals,
  memfdCreate,
  mmap,
  munmap,
  PAGE_BYTES,
  replaceWithZeroes,
  SEAL_FUTURE_WRITE,
  SEAL_GROW,
  SEAL_SEAL,
  SEAL_SHRINK,
  SEAL_WRITE,
  SystemCallError,
  systemFutex,
  view,
} from './libc.js'
import { Memory } from './memory.js'
import { SharedWords, type Words } from './words.js'

const REQUIRED_SEALS = SEAL_SHRINK | SEAL_GROW | SEAL_SEAL

/** What a file is, whatever its descriptor or name: compared with the row that the node file keeps of each segment. */
export interface FileIdentity {
  readonly dev: number
  readonly inode: number
}

type Range = { address: number; byteLength: number }

/** Gives address ranges back when nobody can reach a view of them any more. */
const abandoned = new FinalizationRegistry<Range>(({ address, byteLength }) => munmap(address, byteLength))

/**
 * Ours: we mapped the pages and own the descriptor. Borrowed descriptor: the caller closes it. View: somebody else
 * mapped.
 */
type Ownership = 'ours' | 'descriptor-borrowed' | 'view'

export class Mapping {
  /** -1 for a view made by `at`. */
  readonly fd: number
  readonly byteLength: number
  readonly address: number
  readonly #ownership: Ownership
  #memory: Memory | undefined
  #words: Words | undefined

  private constructor(fd: number, address: number, byteLength: number, ownership: Ownership) {
    this.fd = fd
    this.address = address
    this.byteLength = byteLength
    this.#ownership = ownership
    this.#memory = new Memory(view(address, byteLength), address)
    this.#words = new SharedWords(this.#memory.i32, address, systemFutex)
  }

  /**
   * A new segment, zeroed, that everybody who gets the descriptor may write. The length is rounded up to whole pages.
   */
  static create(name: string, byteLength: number): Mapping {
    return Mapping.#make(name, byteLength, 0)
  }

  /** A new segment that only this mapping can write: others map it read-only, however they got the descriptor. */
  static createReadOnlyShared(name: string, byteLength: number): Mapping {
    return Mapping.#make(name, byteLength, SEAL_FUTURE_WRITE)
  }

  /**
   * Maps a descriptor offered by somebody else: refused unless it is sealed and has the promised size. The mapping owns
   * the descriptor from here on; after a refusal it is still the caller's.
   */
  static attach(fd: number, expected: { byteLength: number; writable: boolean }): Mapping {
    const length = wholePages(expected.byteLength)
    const seals = sealsOf(fd)
    if ((seals & REQUIRED_SEALS) !== REQUIRED_SEALS) {
      throw new ShmError('segment-invalid', `seals 0x${seals.toString(16)}, needed 0x${REQUIRED_SEALS.toString(16)}`)
    }
    if (expected.writable && (seals & (SEAL_WRITE | SEAL_FUTURE_WRITE)) !== 0) {
      throw new ShmError('segment-invalid', 'to be mapped writable, but sealed against writing')
    }
    const { size } = fstatSync(fd)
    if (size !== length) throw new ShmError('segment-invalid', `${size} bytes, expected ${length}`)
    return new Mapping(fd, mmap(fd, length, { write: expected.writable }), length, 'ours')
  }

  /** A view onto memory that another thread of this process mapped and keeps mapped; `close()` only drops the views. */
  static at(address: number, byteLength: number): Mapping {
    return new Mapping(-1, address, byteLength, 'view')
  }

  /**
   * A regular file that nobody shrinks, such as the node file. The descriptor stays the caller's: its lock lives on it.
   */
  static file(fd: number, byteLength: number, writable: boolean): Mapping {
    const length = wholePages(byteLength)
    const { size } = fstatSync(fd)
    if (size < length) throw new ShmError('segment-invalid', `file of ${size} bytes, ${length} are to be mapped`)
    return new Mapping(fd, mmap(fd, length, { write: writable }), length, 'descriptor-borrowed')
  }

  static #make(name: string, byteLength: number, extraSeals: number): Mapping {
    const length = wholePages(byteLength)
    // The kernel would not refuse: it takes pages until its out-of-memory killer picks a victim.
    const available = process.availableMemory()
    if (length > available)
      throw new ShmError('memory-exhausted', `${length} bytes for '${name}', ${available} are left`)
    const fd = memfdCreate(name)
    try {
      ftruncate(fd, length)
      fallocate(fd, 0, length)
      // Mapped before it is sealed: F_SEAL_FUTURE_WRITE refuses writable mappings from then on, ours stays.
      const address = mmap(fd, length, { write: true })
      addSeals(fd, REQUIRED_SEALS | extraSeals)
      return new Mapping(fd, address, length, 'ours')
    } catch (error) {
      closeDescriptor(fd)
      throw error
    }
  }

  get memory(): Memory {
    return this.#memory ?? this.#refuse()
  }

  get words(): Words {
    return this.#words ?? this.#refuse()
  }

  get closed(): boolean {
    return this.#memory === undefined
  }

  get identity(): FileIdentity {
    if (this.closed || this.fd < 0) return this.#refuse()
    return fileIdentity(this.fd)
  }

  /** May be called again. See the invariants for what a straggler still sees. */
  close(): void {
    const memory = this.#memory
    if (memory === undefined) return
    this.#memory = undefined
    this.#words = undefined
    if (this.#ownership === 'view') return
    const range = { address: this.address, byteLength: this.byteLength }
    replaceWithZeroes(range.address, range.byteLength)
    abandoned.register(memory.buffer, range)
    if (this.#ownership === 'ours') closeDescriptor(this.fd)
  }

  #refuse(): never {
    throw new ShmError('mapping-closed', `mapping of ${this.byteLength} bytes, descriptor ${this.fd}`)
  }
}

/** Identity of an open file; works for any descriptor, before it is mapped. */
export function fileIdentity(fd: number): FileIdentity {
  const { dev, ino } = fstatSync(fd)
  return { dev, inode: ino }
}

/** The size that a segment asked for with `byteLength` really has. */
export function wholePages(byteLength: number): number {
  if (!Number.isSafeInteger(byteLength) || byteLength <= 0) {
    throw new ShmError('out-of-bounds', `a mapping of ${byteLength} bytes`)
  }
  return Math.ceil(byteLength / PAGE_BYTES) * PAGE_BYTES
}

/** A file that knows no seals (regular, FUSE, socket) counts as unsealed. */
function sealsOf(fd: number): number {
  try {
    return getSeals(fd)
  } catch (error) {
    if (error instanceof SystemCallError && error.code === 'EINVAL') return 0
    throw error
  }
}
