/**
 * Descriptors that clients hand to a broker are chosen by whoever may want to harm it: a file that can be cut under it, one that hangs
 * whoever touches it, somebody else's segment. Each is compared with what the node file says, by questions that the kernel answers
 * itself, before anything is mapped or written (crash-consistency M1).
 */
import { fstatSync, readFileSync, readlinkSync } from 'node:fs'
import { SharedVerbsError } from '../../protocol/errors.js'
import { getSeals, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK, SystemCallError } from '../../shm/libc.js'
import { wholePages } from '../../shm/mapping.js'
import type { Job } from './job.js'

const NEEDED_SEALS = SEAL_SHRINK | SEAL_GROW | SEAL_SEAL
/** O_NONBLOCK in the octal flags of /proc/self/fdinfo. */
const NON_BLOCKING = 0o4000

export interface ExpectedFile {
  readonly inode: number
  readonly byteLength: number
}

const refuse = (message: string, context: Readonly<Record<string, unknown>> = {}): never => {
  throw new SharedVerbsError('segment-invalid', message, context)
}

/** A sealed memfd with this inode and size. `device`: that of any memfd of ours. Throws `segment-invalid`. */
export function checkFile(descriptor: number, expected: ExpectedFile, device: number): void {
  // The seals first: no file system is asked for them, and only memory files have any.
  const seals = sealsOf(descriptor)
  if ((seals & NEEDED_SEALS) !== NEEDED_SEALS) refuse(`what was presented has seals 0x${seals.toString(16)}`, { seals })
  const { dev, ino: inode, size } = fstatSync(descriptor)
  const byteLength = wholePages(expected.byteLength)
  if (dev === device && inode === expected.inode && (size === byteLength || size === expected.byteLength)) return
  refuse(`what was presented is file ${inode} of ${size} bytes, expected was ${expected.inode} of ${byteLength}`, {
    inode,
    size,
  })
}

export function checkSegment(descriptor: number, expected: ExpectedFile, job: Job): void {
  checkFile(descriptor, expected, job.activity.identity.dev)
}

/** A bell that cannot stop whoever rings it. */
export function checkEventfd(descriptor: number): void {
  const link = readlinkSync(`/proc/self/fd/${descriptor}`)
  if (link !== 'anon_inode:[eventfd]') refuse(`what was presented as a doorbell is ${link.slice(0, 100)}`)
  const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${descriptor}`, 'utf8'))?.[1] ?? '0'
  if ((Number.parseInt(flags, 8) & NON_BLOCKING) === 0) refuse('what was presented as a doorbell blocks')
}

function sealsOf(descriptor: number): number {
  try {
    return getSeals(descriptor)
  } catch (error) {
    if (error instanceof SystemCallError && error.code === 'EINVAL') return 0
    throw error
  }
}
