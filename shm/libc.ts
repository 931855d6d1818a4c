/**
 * The C library: the only file with foreign prototypes.
 *
 *   caller ── numbers ──► prototype ──► kernel
 *                │
 *                └─ records the kernel reads or fills (timespec, sockaddr, msghdr, flock, pollfd …) are laid out by hand
 *                   in one anonymous mapping, the call arena. Every thread loads this module for itself, so every
 *                   thread has an arena of its own and a call needs no lock.
 *
 * Rules that this file keeps for everybody:
 * - What the kernel is given by address is mapped memory. A Buffer known only by its address is collected under the
 *   call.
 * - No named foreign types: two threads of one process load this module, and names would collide.
 * - Addresses are plain numbers; results are declared `int`, because wider results are boxed.
 * - Hot calls allocate nothing and return the result or the negative errno. Cold calls throw `SystemCallError`.
 * - Every descriptor is close-on-exec, so a spawned child never keeps a session, a lock or a segment alive.
 * - Descriptors made here are closed by `closeDescriptor`, those of node:fs by node:fs. Node closes what a worker
 *   opened through node:fs when the worker ends; mixing the two closes a stranger's descriptor.
 * - errno is the thread's own variable, read directly after the call; nothing may run between the two.
 */
import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { getSystemErrorName } from 'node:util'
import koffi from 'koffi'
import { ShmError } from './errors.js'
import { bytes, layout } from './layout.js'
import { Memory } from './memory.js'
import type { Futex } from './words.js'

// ---------------------------------------------------------------------------------------------------------- errors

export const { EAGAIN, EINTR, EPERM, ENOENT, ESRCH, EBADF, EACCES, EINVAL, EMFILE, ENFILE, ENOSPC, EPIPE, EIO } =
  constants.errno
export const { EADDRINUSE, ECONNRESET, ECONNREFUSED, EINPROGRESS, EMSGSIZE, ETIMEDOUT, ENOTCONN, ENOPROTOOPT } =
  constants.errno

/** A system call failed. `code` is the kernel's name ('EAGAIN'), `call` what was attempted. */
export class SystemCallError extends Error {
  readonly code: string
  readonly errno: number
  readonly call: string

  constructor(call: string, errno: number, hint = '') {
    const code = errnoName(errno)
    super(`${code}: ${call} failed${hint === '' ? '' : `: ${hint}`}`)
    this.name = 'SystemCallError'
    this.code = code
    this.errno = errno
    this.call = call
  }
}

/** The kernel's name of an error number, for messages: 11 → 'EAGAIN'. */
export function errnoName(errno: number): string {
  return errno > 0 ? getSystemErrorName(-errno) : `errno ${errno}`
}

// ------------------------------------------------------------------------------------------------------ prototypes

type Call = (...values: number[]) => number
type CallWithText = (text: string, flags: number) => number

const library = koffi.load('libc.so.6')
const call = (name: string, ...parameters: string[]): Call => library.func(name, 'int', parameters) as Call

const c = {
  accept4: call('accept4', 'int', 'uintptr_t', 'uintptr_t', 'int'),
  bind: call('bind', 'int', 'uintptr_t', 'int'),
  clock_gettime: call('clock_gettime', 'int', 'uintptr_t'),
  close: call('close', 'int'),
  connect: call('connect', 'int', 'uintptr_t', 'int'),
  epoll_create1: call('epoll_create1', 'int'),
  epoll_ctl: call('epoll_ctl', 'int', 'int', 'int', 'uintptr_t'),
  epoll_wait: call('epoll_wait', 'int', 'uintptr_t', 'int', 'int'),
  eventfd: call('eventfd', 'uint', 'int'),
  fallocate: call('fallocate', 'int', 'int', 'int64', 'int64'),
  fcntl: call('fcntl', 'int', 'int', 'uintptr_t'),
  flock: call('flock', 'int', 'int'),
  ftruncate: call('ftruncate', 'int', 'int64'),
  getrlimit: call('getrlimit', 'int', 'uintptr_t'),
  getsockname: call('getsockname', 'int', 'uintptr_t', 'uintptr_t'),
  getsockopt: call('getsockopt', 'int', 'int', 'int', 'uintptr_t', 'uintptr_t'),
  ioctl: call('ioctl', 'int', 'uint64', 'uintptr_t'),
  listen: call('listen', 'int', 'int'),
  munmap: call('munmap', 'uintptr_t', 'uintptr_t'),
  poll: call('poll', 'uintptr_t', 'uint64', 'int'),
  read: call('read', 'int', 'uintptr_t', 'uintptr_t'),
  readv: call('readv', 'int', 'uintptr_t', 'int'),
  recv: call('recv', 'int', 'uintptr_t', 'uintptr_t', 'int'),
  recvmsg: call('recvmsg', 'int', 'uintptr_t', 'int'),
  sched_yield: call('sched_yield'),
  sched_getcpu: call('sched_getcpu'),
  send: call('send', 'int', 'uintptr_t', 'uintptr_t', 'int'),
  sendfile: call('sendfile', 'int', 'int', 'uintptr_t', 'uintptr_t'),
  sendmsg: call('sendmsg', 'int', 'uintptr_t', 'int'),
  sendto: call('sendto', 'int', 'uintptr_t', 'uintptr_t', 'int', 'uintptr_t', 'int'),
  setsockopt: call('setsockopt', 'int', 'int', 'int', 'uintptr_t', 'int'),
  shutdown: call('shutdown', 'int', 'int'),
  socket: call('socket', 'int', 'int', 'int'),
  syscall: call('syscall', 'long', 'uintptr_t', 'int', 'int', 'uintptr_t', 'uintptr_t', 'int'),
  write: call('write', 'int', 'uintptr_t', 'uintptr_t'),
  writev: call('writev', 'int', 'uintptr_t', 'int'),
}
const chmodPath = library.func('chmod', 'int', ['str', 'uint']) as CallWithText
const createMemoryFile = library.func('memfd_create', 'int', ['str', 'uint']) as CallWithText
const mapPages = library.func('mmap', 'uintptr_t', ['uintptr_t', 'uintptr_t', 'int', 'int', 'int', 'int64']) as (
  ...values: number[]
) => number | bigint
// These two return an address that nobody wants: declared void, so that nothing is boxed.
const copyForward = library.func('memcpy', 'void', ['uintptr_t', 'uintptr_t', 'uintptr_t']) as Call
const copyOverlapping = library.func('memmove', 'void', ['uintptr_t', 'uintptr_t', 'uintptr_t']) as Call

/** The result, or the negative errno: the convention of hot calls. */
function outcome(result: number): number {
  return result < 0 ? -koffi.errno() : result
}

/** The result, or an exception: the convention of cold calls. */
function required(result: number, attempted: string, hint = ''): number {
  if (result >= 0) return result
  throw new SystemCallError(attempted, koffi.errno(), hint)
}

// ----------------------------------------------------------------------------------------------------------- memory

const PROT_READ = 1
const PROT_WRITE = 2
const MAP_SHARED = 0x01
const MAP_PRIVATE = 0x02
const MAP_FIXED = 0x10
const MAP_ANONYMOUS = 0x20
const MAP_NORESERVE = 0x4000

export const PAGE_BYTES = 4096

/** Maps a whole descriptor shared; the address is a plain number. */
export function mmap(fd: number, byteLength: number, access: { write: boolean }): number {
  return mapAt(0, byteLength, access.write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd)
}

/** Fresh zeroed memory of this process, for whatever is handed to the kernel by address. */
export function mapAnonymous(byteLength: number): number {
  return mapAt(0, byteLength, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1)
}

/** Puts zeroed private memory in the place of a mapping: its pages go at once, the addresses stay safe to touch. */
export function replaceWithZeroes(address: number, byteLength: number): void {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE
  mapAt(address, byteLength, PROT_READ | PROT_WRITE, flags, -1)
}

function mapAt(address: number, byteLength: number, protection: number, flags: number, fd: number): number {
  const result = mapPages(address, byteLength, protection, flags, fd, 0)
  // MAP_FAILED is the one result that does not fit a number.
  if (typeof result === 'number') return result
  throw new SystemCallError(`mmap of ${byteLength} bytes`, koffi.errno())
}

export function munmap(address: number, byteLength: number): void {
  required(c.munmap(address, byteLength), 'munmap')
}

/** Looks at mapped memory. The result does not keep the mapping alive. */
export function view(address: number, byteLength: number): ArrayBuffer {
  return koffi.view(address, byteLength)
}

/** For ranges that do not overlap. No bounds are known here: copy.ts checks them. */
export function memoryCopy(destinationAddress: number, sourceAddress: number, byteLength: number): void {
  copyForward(destinationAddress, sourceAddress, byteLength)
}

export function memoryMove(destinationAddress: number, sourceAddress: number, byteLength: number): void {
  copyOverlapping(destinationAddress, sourceAddress, byteLength)
}

/** The longest message of a SEQPACKET socket. */
export const MAX_MESSAGE_BYTES = 65_536
/** The kernel's own bound on descriptors in one message (SCM_MAX_FD). */
export const MAX_DESCRIPTORS = 253
const MAX_POLLED = 64

const arenaLayout = layout('call arena', {
  timespec: bytes(16),
  clock: bytes(16),
  one: bytes(8),
  counter: bytes(8),
  option: bytes(16),
  optionLength: bytes(8),
  epollEvent: bytes(16),
  lock: bytes(32),
  limit: bytes(16),
  socketAddress: bytes(112),
  messageHeader: bytes(56),
  vector: bytes(16),
  polled: bytes(MAX_POLLED * 8),
  control: bytes(16 + (MAX_DESCRIPTORS + 1) * 4),
  message: bytes(MAX_MESSAGE_BYTES),
})
const ARENA_BYTES = Math.ceil(arenaLayout.byteLength / PAGE_BYTES) * PAGE_BYTES
const ARENA_ADDRESS = mapAnonymous(ARENA_BYTES)
const arena = new Memory(view(ARENA_ADDRESS, ARENA_BYTES), ARENA_ADDRESS)
const at = arenaLayout.offset

const TIMESPEC_ADDRESS = ARENA_ADDRESS + at.timespec
const CLOCK_ADDRESS = ARENA_ADDRESS + at.clock
const ONE_ADDRESS = ARENA_ADDRESS + at.one
const COUNTER_ADDRESS = ARENA_ADDRESS + at.counter
const OPTION_ADDRESS = ARENA_ADDRESS + at.option
const OPTION_LENGTH_ADDRESS = ARENA_ADDRESS + at.optionLength
const EPOLL_EVENT_ADDRESS = ARENA_ADDRESS + at.epollEvent
const LOCK_ADDRESS = ARENA_ADDRESS + at.lock
const LIMIT_ADDRESS = ARENA_ADDRESS + at.limit
const SOCKET_ADDRESS = ARENA_ADDRESS + at.socketAddress
const MESSAGE_HEADER_ADDRESS = ARENA_ADDRESS + at.messageHeader
const VECTOR_ADDRESS = ARENA_ADDRESS + at.vector
const POLLED_ADDRESS = ARENA_ADDRESS + at.polled
const CONTROL_ADDRESS = ARENA_ADDRESS + at.control
const MESSAGE_ADDRESS = ARENA_ADDRESS + at.message

const TWO_TO_32 = 2 ** 32

/** Writes an address or a byte length as the 64-bit field at 32-bit word `index`, without a BigInt. */
export function storeAddress(words: Uint32Array, index: number, value: number): void {
  words[index] = value >>> 0
  words[index + 1] = Math.floor(value / TWO_TO_32)
}

// ----------------------------------------------------------------------------------------------------- descriptors

export const SEAL_SEAL = 0x1
export const SEAL_SHRINK = 0x2
export const SEAL_GROW = 0x4
export const SEAL_WRITE = 0x8
export const SEAL_FUTURE_WRITE = 0x10

const MFD_CLOEXEC = 1
const MFD_ALLOW_SEALING = 2
const F_ADD_SEALS = 1033
const F_GET_SEALS = 1034
const F_DUPFD_CLOEXEC = 1030

/** An anonymous file in memory; `name` is for people only (/proc/…/fd). */
export function memfdCreate(name: string): number {
  return required(createMemoryFile(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), `memfd_create of '${name}'`)
}

export function ftruncate(fd: number, byteLength: number): void {
  required(c.ftruncate(fd, byteLength), `ftruncate to ${byteLength} bytes`)
}

/** Takes the pages now, so that a later touch cannot fail (SIGBUS) and is charged to the one who asked. */
export function fallocate(fd: number, offset: number, byteLength: number): void {
  for (;;) {
    const result = outcome(c.fallocate(fd, 0, offset, byteLength))
    if (result >= 0) return
    if (result === -EINTR) continue
    const hint = result === -ENOSPC ? 'shared memory is exhausted (memory, cgroup limit or tmpfs size)' : ''
    throw new SystemCallError(`fallocate of ${byteLength} bytes`, -result, hint)
  }
}

export function addSeals(fd: number, seals: number): void {
  required(c.fcntl(fd, F_ADD_SEALS, seals), `adding seals 0x${seals.toString(16)}`)
}

/** The seals, or throws EINVAL for a descriptor that cannot have any (a regular file, a socket). */
export function getSeals(fd: number): number {
  return required(c.fcntl(fd, F_GET_SEALS, 0), 'reading seals')
}

/** For descriptors made here or received in a message. Never retried: Linux frees the number even when interrupted. */
export function closeDescriptor(fd: number): void {
  const result = outcome(c.close(fd))
  if (result < 0 && result !== -EINTR) throw new SystemCallError(`close of descriptor ${fd}`, -result)
}

/** Another descriptor of the same open description. */
export function duplicate(fd: number): number {
  return required(c.fcntl(fd, F_DUPFD_CLOEXEC, 0), `duplicating descriptor ${fd}`)
}

// -------------------------------------------------------------------------------------------- sleeping and waking

const EFD_NONBLOCK = 0x800
const EFD_CLOEXEC = 0x80000

arena.u32[at.one / 4] = 1

/** A counter that sleepers can poll: non-blocking, close-on-exec, zero. */
export function eventfdCreate(): number {
  return required(c.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 'eventfd')
}

/** Adds one. A full counter (EAGAIN) is already readable, which is all a ring wants, so every result is accepted. */
export function eventfdSignal(fd: number): void {
  c.write(fd, ONE_ADDRESS, 8)
}

/** Sets the counter to zero; true if it was not. */
export function eventfdDrain(fd: number): boolean {
  return c.read(fd, COUNTER_ADDRESS, 8) === 8
}

const SYS_FUTEX = process.arch === 'arm64' ? 98 : 202
const SYS_PIDFD_OPEN = 434
// Without FUTEX_PRIVATE_FLAG: the word is known by its page, so processes that map it elsewhere meet on it.
const FUTEX_WAIT = 0
const FUTEX_WAKE = 1
/** No sleep is for ever: after this long the caller looks again. */
const LONGEST_SLEEP_MS = 3_600_000

function storeTimespec(timeoutMs: number): void {
  const bounded = timeoutMs > 0 ? Math.min(timeoutMs, LONGEST_SLEEP_MS) : 0
  const seconds = Math.floor(bounded / 1000)
  arena.u32[at.timespec / 4] = seconds
  arena.u32[at.timespec / 4 + 2] = Math.floor((bounded - seconds * 1000) * 1e6)
}

/**
 * Sleeping on a shared word. Waker: whoever changes the word and then wakes. Deadline: the relative timeout
 * (monotonic). Dead waker: the timeout ends the sleep; the caller then asks the liveness oracle.
 */
export const systemFutex: Futex = {
  wait(address, expected, timeoutMs) {
    storeTimespec(timeoutMs)
    const result = outcome(c.syscall(SYS_FUTEX, address, FUTEX_WAIT, expected, TIMESPEC_ADDRESS, 0, 0))
    if (result === -ETIMEDOUT) return 'timeout'
    if (result === -EAGAIN) return 'changed'
    // A signal ends the sleep as well; the caller looks again in any case.
    if (result >= 0 || result === -EINTR) return 'woken'
    throw new SystemCallError('futex wait', -result)
  },
  wake(address, count) {
    return required(c.syscall(SYS_FUTEX, address, FUTEX_WAKE, count, 0, 0, 0), 'futex wake')
  },
}

const POLLIN = 1

/**
 * Blocks until one of a few descriptors is readable or hung up; its index, or -1 at the deadline.
 * Waker: whoever writes or closes the other end. A waker that died closes it, which also ends the wait. Of those from
 * `readable` on only the hang-up counts.
 */
export function pollDescriptors(fds: readonly number[], timeoutMs: number, readable = fds.length): number {
  if (fds.length > MAX_POLLED) throw new ShmError('out-of-bounds', `${fds.length} descriptors, at most ${MAX_POLLED}`)
  const base = at.polled / 4
  for (let index = 0; index < fds.length; index++) arena.i32[base + index * 2] = fds[index]!
  const deadlineMs = clock.nowMs() + timeoutMs
  for (;;) {
    for (let index = 0; index < fds.length; index++) arena.i32[base + index * 2 + 1] = index < readable ? POLLIN : 0
    const leftMs = Math.min(Math.max(0, Math.ceil(deadlineMs - clock.nowMs())), LONGEST_SLEEP_MS)
    const result = outcome(c.poll(POLLED_ADDRESS, fds.length, leftMs))
    // Interrupted, or a slice of a very long wait: go on until the deadline.
    if (result === -EINTR || (result === 0 && clock.nowMs() < deadlineMs)) continue
    if (result < 0) throw new SystemCallError('poll', -result)
    for (let index = 0; index < fds.length; index++) if (arena.i32[base + index * 2 + 1]! >>> 16 !== 0) return index
    return -1
  }
}

export const EPOLLIN = 0x1
export const EPOLLOUT = 0x4
export const EPOLLERR = 0x8
export const EPOLLHUP = 0x10
export const EPOLLRDHUP = 0x2000
export const EPOLLET = 0x80000000
const EPOLL_CTL_ADD = 1
const EPOLL_CTL_DEL = 2
const EPOLL_CTL_MOD = 3
const EPOLL_CLOEXEC = 0x80000

/** struct epoll_event { u32 events; u64 data }: packed on x86-64 only. */
export const EPOLL_EVENT_BYTES = process.arch === 'x64' ? 12 : 16
/** Where the tag is in an event. */
export const EPOLL_TAG_OFFSET = process.arch === 'x64' ? 4 : 8

export function epollCreate(): number {
  return required(c.epoll_create1(EPOLL_CLOEXEC), 'epoll_create1')
}

function epollControl(epollFd: number, operation: number, fd: number, events: number, tag: number): void {
  arena.u32[at.epollEvent / 4] = events
  arena.u32[(at.epollEvent + EPOLL_TAG_OFFSET) / 4] = tag
  arena.u32[(at.epollEvent + EPOLL_TAG_OFFSET) / 4 + 1] = 0
  required(c.epoll_ctl(epollFd, operation, fd, EPOLL_EVENT_ADDRESS), `epoll_ctl of descriptor ${fd}`)
}

/** `tag` is an unsigned 32-bit number that comes back with each event. */
export function epollAdd(epollFd: number, fd: number, events: number, tag: number): void {
  epollControl(epollFd, EPOLL_CTL_ADD, fd, events, tag)
}

export function epollModify(epollFd: number, fd: number, events: number, tag: number): void {
  epollControl(epollFd, EPOLL_CTL_MOD, fd, events, tag)
}

export function epollRemove(epollFd: number, fd: number): void {
  epollControl(epollFd, EPOLL_CTL_DEL, fd, 0, 0)
}

/**
 * Fills events at `eventsAddress` (EPOLL_EVENT_BYTES each); how many, 0 at the deadline or when a signal came, or
 * -errno. Waker: any descriptor of the set. Deadline: `timeoutMs`, whole milliseconds; -1 = none, for a loop with a
 * doorbell in the set.
 */
export function epollWait(epollFd: number, eventsAddress: number, maxEvents: number, timeoutMs: number): number {
  const result = c.epoll_wait(epollFd, eventsAddress, maxEvents, timeoutMs)
  if (result >= 0) return result
  const errno = koffi.errno()
  return errno === EINTR ? 0 : -errno
}

/** Lets another runnable thread of this core go first. */
export function schedulerYield(): void {
  c.sched_yield()
}

/** The core this thread runs on now; it may be another one at any moment. No system call. */
export function currentCore(): number {
  return c.sched_getcpu()
}

const CLOCK_MONOTONIC = 1

/** Monotonic time, the same in all processes of the machine since its boot. */
export const clock = {
  nowMs(): number {
    c.clock_gettime(CLOCK_MONOTONIC, CLOCK_ADDRESS)
    const base = at.clock / 4
    const seconds = arena.u32[base]! + arena.u32[base + 1]! * TWO_TO_32
    return seconds * 1000 + arena.u32[base + 2]! / 1e6
  },
}

// ------------------------------------------------------------------------------------------------------- processes

/**
 * A descriptor that becomes readable when the process dies, also when it is dead but unreaped. ESRCH: no such process.
 */
export function pidfdOpen(pid: number): number {
  return required(c.syscall(SYS_PIDFD_OPEN, pid, 0, 0, 0, 0, 0), `pidfd_open of process ${pid}`)
}

/** Process and start time in clock ticks since boot. For display only: liveness is the kernel's word (liveness.ts). */
export function processIdentity(pid: number): { pid: number; startTime: number } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The command, in parentheses, may hold blanks and parentheses; start time is the 20th field after it.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return { pid, startTime: Number(fields[19]) }
  } catch {
    return undefined
  }
}

const RLIMIT_MEMLOCK = 8

/** How many bytes this process may pin (what registration with a device needs). */
export function memlockLimit(): number {
  required(c.getrlimit(RLIMIT_MEMLOCK, LIMIT_ADDRESS), 'getrlimit')
  const low = arena.u32[at.limit / 4]!
  const high = arena.u32[at.limit / 4 + 1]!
  return high === 0xffffffff ? Number.POSITIVE_INFINITY : low + high * TWO_TO_32
}

/**
 * Tells the service manager a state ('READY=1'); nothing happens without $NOTIFY_SOCKET or when nobody listens there.
 */
export function notifyReady(state: string): void {
  const path = process.env.NOTIFY_SOCKET
  if (path === undefined || path === '') return
  const fd = required(c.socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket')
  const length = storeUnixAddress(path)
  const { written } = encoder.encodeInto(state, arena.u8.subarray(at.message, at.message + MAX_MESSAGE_BYTES))
  c.sendto(fd, MESSAGE_ADDRESS, written, MSG_NOSIGNAL, SOCKET_ADDRESS, length)
  closeDescriptor(fd)
}

// ----------------------------------------------------------------------------------------------------------- locks

const LOCK_EX = 2
const LOCK_NB = 4
const F_OFD_GETLK = 36
const F_OFD_SETLK = 37
const F_WRLCK = 1
const F_UNLCK = 2

/** The kernel lock of a whole file, held by the open description until its last descriptor closes. */
export function tryLockWholeFile(fd: number): boolean {
  const result = outcome(c.flock(fd, LOCK_EX | LOCK_NB))
  if (result >= 0) return true
  if (result === -EAGAIN) return false
  throw new SystemCallError('flock', -result)
}

function storeByteLock(type: number, offset: number): void {
  const base = at.lock / 4
  arena.u32.fill(0, base, base + 8)
  arena.u32[base] = type
  storeAddress(arena.u32, base + 2, offset)
  arena.u32[base + 4] = 1
}

/**
 * A write lock on one byte, held by the open description (not by the process): dropped when it is closed or its holder
 * dies.
 */
export function tryLockByte(fd: number, offset: number): boolean {
  storeByteLock(F_WRLCK, offset)
  const result = outcome(c.fcntl(fd, F_OFD_SETLK, LOCK_ADDRESS))
  if (result >= 0) return true
  if (result === -EAGAIN || result === -EACCES) return false
  throw new SystemCallError(`locking byte ${offset}`, -result)
}

/** Does another open description hold the byte? Locks of `fd`'s own description are never seen. */
export function byteLockHeld(fd: number, offset: number): boolean {
  storeByteLock(F_WRLCK, offset)
  required(c.fcntl(fd, F_OFD_GETLK, LOCK_ADDRESS), `asking for the lock of byte ${offset}`)
  return (arena.u32[at.lock / 4]! & 0xffff) !== F_UNLCK
}

export function unlockByte(fd: number, offset: number): void {
  storeByteLock(F_UNLCK, offset)
  required(c.fcntl(fd, F_OFD_SETLK, LOCK_ADDRESS), `unlocking byte ${offset}`)
}

// --------------------------------------------------------------------------------------------------------- sockets

const AF_UNIX = 1
const AF_INET = 2
const SOCK_STREAM = 1
const SOCK_DGRAM = 2
const SOCK_SEQPACKET = 5
const SOCK_NONBLOCK = 0x800
const SOCK_CLOEXEC = 0x80000
const SOL_SOCKET = 1
const SO_REUSEADDR = 2
const SO_ERROR = 4
const SO_LINGER = 13
const TCP_INFO = 11
const TCP_ESTABLISHED = 1
const SIOCOUTQ = 0x5411
const SO_SNDBUF = 7
const SO_RCVBUF = 8
const SO_PEERCRED = 17
const SO_PEERPIDFD = 77
const IPPROTO_TCP = 6
const TCP_NODELAY = 1
const TCP_CONGESTION = 13
const TCP_QUICKACK = 12
const SHUT_RDWR = 2
const SCM_RIGHTS = 1
export const MSG_PEEK = 0x2
const MSG_CTRUNC = 0x8
const MSG_TRUNC = 0x20
export const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
export const MSG_MORE = 0x8000
const MSG_CMSG_CLOEXEC = 0x40000000

const encoder = new TextEncoder()

function setOption(fd: number, level: number, name: number, value: number): number {
  arena.i32[at.option / 4] = value
  return outcome(c.setsockopt(fd, level, name, OPTION_ADDRESS, 4))
}

/** Reads an option into the arena; 0 or -errno. */
function getOption(fd: number, level: number, name: number, byteLength: number): number {
  arena.u32[at.optionLength / 4] = byteLength
  return outcome(c.getsockopt(fd, level, name, OPTION_ADDRESS, OPTION_LENGTH_ADDRESS))
}

// ------------------------------------------------------------------------------------------------------------- TCP

const INTERNET_ADDRESS_BYTES = 16

function storeInternetAddress(host: string, port: number): void {
  const parts = host.split('.').map(Number)
  const valid = parts.length === 4 && parts.every((part) => Number.isInteger(part) && part >= 0 && part <= 255)
  if (!valid) throw new ShmError('out-of-bounds', `'${host}' is not an IPv4 address`)
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw new ShmError('out-of-bounds', `${port} is not a port`)
  arena.u8.fill(0, at.socketAddress, at.socketAddress + INTERNET_ADDRESS_BYTES)
  arena.view.setUint16(at.socketAddress, AF_INET, true)
  arena.view.setUint16(at.socketAddress + 2, port, false)
  arena.u8.set(parts, at.socketAddress + 4)
}

/** A non-blocking listening socket. Cold, so it throws; port 0 lets the kernel choose (`tcpPort`). */
export function tcpListen(host: string, port: number, backlog: number): number {
  storeInternetAddress(host, port)
  const fd = required(c.socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket')
  try {
    setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1)
    required(c.bind(fd, SOCKET_ADDRESS, INTERNET_ADDRESS_BYTES), `bind to ${host}:${port}`)
    required(c.listen(fd, backlog), `listen on ${host}:${port}`)
    return fd
  } catch (error) {
    closeDescriptor(fd)
    throw error
  }
}

/** The port that a socket is bound to. */
export function tcpPort(fd: number): number {
  arena.u32[at.optionLength / 4] = INTERNET_ADDRESS_BYTES
  required(c.getsockname(fd, SOCKET_ADDRESS, OPTION_LENGTH_ADDRESS), 'getsockname')
  return arena.view.getUint16(at.socketAddress + 2, false)
}

/** The next connection, non-blocking and close-on-exec, or -errno (-EAGAIN: none waits). */
export function tcpAccept(fd: number): number {
  return outcome(c.accept4(fd, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC))
}

/**
 * Starts to connect: a descriptor that becomes writable when `socketError` can tell, or -errno when refused at once.
 */
export function tcpConnectStart(host: string, port: number): number {
  storeInternetAddress(host, port)
  const fd = outcome(c.socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0))
  if (fd < 0) return fd
  const result = outcome(c.connect(fd, SOCKET_ADDRESS, INTERNET_ADDRESS_BYTES))
  if (result >= 0 || result === -EINPROGRESS) return fd
  closeDescriptor(fd)
  return result
}

/** The pending error of a socket as a positive errno, 0 = none. Reading it clears it. */
export function socketError(fd: number): number {
  const result = getOption(fd, SOL_SOCKET, SO_ERROR, 4)
  return result < 0 ? -result : arena.i32[at.option / 4]!
}

/** 0 or -errno. */
export function setNoDelay(fd: number): number {
  return setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1)
}

/** 0 or -errno. An abrupt close, also by the end of the process, drops what was not sent and resets the connection (socket(7), SO_LINGER of 0). */
export function setAbruptClose(fd: number, isAbrupt: boolean): number {
  arena.i32[at.option / 4] = isAbrupt ? 1 : 0
  arena.i32[at.option / 4 + 1] = 0
  return outcome(c.setsockopt(fd, SOL_SOCKET, SO_LINGER, OPTION_ADDRESS, 8))
}

/** Whether a TCP connection stands: its other end neither closed nor reset it, as far as this kernel was told (tcp(7), TCP_INFO). */
export function isEstablished(fd: number): boolean {
  return getOption(fd, IPPROTO_TCP, TCP_INFO, 1) === 0 && arena.u8[at.option] === TCP_ESTABLISHED
}

/** Bytes of a TCP connection that the other end's kernel has not acknowledged, or -errno (tcp(7), SIOCOUTQ). */
export function unacknowledgedBytes(fd: number): number {
  const result = outcome(c.ioctl(fd, SIOCOUTQ, OPTION_ADDRESS))
  return result < 0 ? result : arena.i32[at.option / 4]!
}

/** 0 or -errno. 'reno' is in every kernel, and allowed to everybody. */
export function setCongestionControl(fd: number, name: 'reno'): number {
  const { written } = encoder.encodeInto(name, arena.u8.subarray(at.option, at.option + 16))
  return outcome(c.setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, OPTION_ADDRESS, written))
}

/** 0 or -errno. The kernel doubles the values and bounds them by net.core.*mem_max. */
export function setBuffers(fd: number, sendBytes: number, receiveBytes: number): number {
  const result = setOption(fd, SOL_SOCKET, SO_SNDBUF, sendBytes)
  return result < 0 ? result : setOption(fd, SOL_SOCKET, SO_RCVBUF, receiveBytes)
}

/** 0 or -errno. Acknowledges at once until the kernel changes its mind. */
export function quickAck(fd: number): number {
  return setOption(fd, IPPROTO_TCP, TCP_QUICKACK, 1)
}

/** Bytes sent, or -errno. Never blocks, never raises SIGPIPE. */
export function send(fd: number, address: number, byteLength: number, flags: number): number {
  const result = c.send(fd, address, byteLength, flags | MSG_NOSIGNAL | MSG_DONTWAIT)
  return result < 0 ? -koffi.errno() : result
}

/** Bytes received, 0 = the peer closed, or -errno. Never blocks. */
export function receive(fd: number, address: number, byteLength: number, flags: number): number {
  const result = c.recv(fd, address, byteLength, flags | MSG_DONTWAIT)
  return result < 0 ? -koffi.errno() : result
}

/**
 * Sends `count` iovecs (16 bytes each: address, length) from a non-blocking socket; bytes or -errno. Node ignores
 * SIGPIPE.
 */
export function sendVector(fd: number, iovecAddress: number, count: number): number {
  const result = c.writev(fd, iovecAddress, count)
  return result < 0 ? -koffi.errno() : result
}

/**
 * Sends bytes of a file from a non-blocking socket; bytes, 0 = the file ends there, or -errno. Where they begin stands at `offsetAddress`
 * (64 bits), and is moved on. TCP sends the file's pages themselves (sendfile(2)): until the peer has read them, it finds what stands in
 * them by then.
 */
export function sendFile(fd: number, file: number, offsetAddress: number, byteLength: number): number {
  const result = c.sendfile(fd, file, offsetAddress, byteLength)
  return result < 0 ? -koffi.errno() : result
}

/** Receives into `count` iovecs; bytes, 0 = the peer closed, or -errno. */
export function receiveVector(fd: number, iovecAddress: number, count: number): number {
  const result = c.readv(fd, iovecAddress, count)
  return result < 0 ? -koffi.errno() : result
}

/** Ends both directions: the peer reads end-of-stream now, whoever else holds the description. 0 or -errno. */
export function shutdown(fd: number): number {
  return outcome(c.shutdown(fd, SHUT_RDWR))
}

// -------------------------------------------------------------------------------------------------- unix SEQPACKET

/** Writes a sockaddr_un and returns its length. A leading '@' means the abstract name space. */
function storeUnixAddress(path: string): number {
  const encoded = encoder.encode(path)
  if (encoded.length === 0 || encoded.length > 107 || encoded.includes(0)) {
    throw new ShmError('out-of-bounds', `socket path '${path}' has ${encoded.length} bytes; 1 to 107 are possible`)
  }
  const start = at.socketAddress
  arena.u8.fill(0, start, start + 110)
  arena.view.setUint16(start, AF_UNIX, true)
  arena.u8.set(encoded, start + 2)
  if (!path.startsWith('@')) return 2 + encoded.length + 1
  arena.u8[start + 2] = 0
  return 2 + encoded.length
}

function seqpacketSocket(): number {
  return required(c.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket')
}

/** Binds, sets the mode, then listens: nobody can connect before the mode holds. EADDRINUSE when the path exists. */
export function seqpacketListen(path: string, mode: number): number {
  const length = storeUnixAddress(path)
  const fd = seqpacketSocket()
  try {
    required(c.bind(fd, SOCKET_ADDRESS, length), `bind to '${path}'`)
    if (!path.startsWith('@')) required(chmodPath(path, mode), `chmod of '${path}'`)
    required(c.listen(fd, 512), `listen on '${path}'`)
    return fd
  } catch (error) {
    closeDescriptor(fd)
    throw error
  }
}

/** The next connection or -errno (-EAGAIN: none waits). */
export function seqpacketAccept(fd: number): number {
  return outcome(c.accept4(fd, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC))
}

/** Connects without ever blocking: ENOENT and ECONNREFUSED = nobody there, EAGAIN = its queue is full, try later. */
export function seqpacketConnect(path: string): number {
  const length = storeUnixAddress(path)
  const fd = seqpacketSocket()
  const result = outcome(c.connect(fd, SOCKET_ADDRESS, length))
  if (result >= 0) return fd
  closeDescriptor(fd)
  throw new SystemCallError(`connect to '${path}'`, -result)
}

function storeMessageHeader(byteLength: number, controlBytes: number): void {
  const header = at.messageHeader / 4
  arena.u32.fill(0, header, header + 14)
  storeAddress(arena.u32, header + 4, VECTOR_ADDRESS)
  arena.u32[header + 6] = 1
  storeAddress(arena.u32, header + 8, controlBytes === 0 ? 0 : CONTROL_ADDRESS)
  arena.u32[header + 10] = controlBytes
  storeAddress(arena.u32, at.vector / 4, MESSAGE_ADDRESS)
  storeAddress(arena.u32, at.vector / 4 + 2, byteLength)
}

/**
 * Sends one message with descriptors; its bytes, or -errno (-EAGAIN: the peer's queue is full). The descriptors stay
 * the caller's. An empty message is refused (-EINVAL), because its receiver could not tell it from the end.
 */
export function sendMessage(fd: number, message: Uint8Array, fds: readonly number[]): number {
  if (message.length === 0) return -EINVAL
  if (message.length > MAX_MESSAGE_BYTES || fds.length > MAX_DESCRIPTORS) return -EMSGSIZE
  arena.u8.set(message, at.message)
  const control = at.control / 4
  if (fds.length > 0) {
    storeAddress(arena.u32, control, 16 + fds.length * 4)
    arena.u32[control + 2] = SOL_SOCKET
    arena.u32[control + 3] = SCM_RIGHTS
    for (let index = 0; index < fds.length; index++) arena.i32[control + 4 + index] = fds[index]!
  }
  storeMessageHeader(message.length, fds.length === 0 ? 0 : 16 + fds.length * 4)
  return outcome(c.sendmsg(fd, MESSAGE_HEADER_ADDRESS, MSG_NOSIGNAL | MSG_DONTWAIT))
}

export interface ReceivedMessage {
  /** 0 = the peer closed. */
  byteLength: number
  /** The receiver's own now, close-on-exec. */
  fds: number[]
  /** The message was longer than the buffer, or had more descriptors than allowed (the kernel closed the rest). */
  truncated: boolean
}

/** Takes one message, or null when none waits. `maxFds` descriptors at most reach this process. */
export function receiveMessage(fd: number, buffer: Uint8Array, maxFds: number): ReceivedMessage | null {
  const room = Math.min(buffer.length, MAX_MESSAGE_BYTES)
  for (;;) {
    // Exactly cmsg_len and not CMSG_SPACE: the padding would let one descriptor more slip in.
    storeMessageHeader(room, maxFds > 0 ? 16 + Math.min(maxFds, MAX_DESCRIPTORS) * 4 : 0)
    const result = outcome(c.recvmsg(fd, MESSAGE_HEADER_ADDRESS, MSG_DONTWAIT | MSG_CMSG_CLOEXEC))
    if (result === -EAGAIN) return null
    // The reset is told once, then the messages that the peer sent before it closed can be read.
    if (result === -ECONNRESET || result === -EINTR) continue
    if (result < 0) throw new SystemCallError('recvmsg', -result)
    buffer.set(arena.u8.subarray(at.message, at.message + result))
    const flags = arena.u32[at.messageHeader / 4 + 12]!
    return { byteLength: result, fds: receivedDescriptors(), truncated: (flags & (MSG_TRUNC | MSG_CTRUNC)) !== 0 }
  }
}

function receivedDescriptors(): number[] {
  const fds: number[] = []
  const controlBytes = arena.u32[at.messageHeader / 4 + 10]!
  let offset = 0
  while (offset + 16 <= controlBytes) {
    const base = (at.control + offset) / 4
    const recordBytes = arena.u32[base]!
    if (recordBytes < 16) break
    if (arena.u32[base + 2] === SOL_SOCKET && arena.u32[base + 3] === SCM_RIGHTS) {
      for (let byte = 16; byte + 4 <= recordBytes; byte += 4) fds.push(arena.i32[base + byte / 4]!)
    }
    offset += Math.ceil(recordBytes / 8) * 8
  }
  return fds
}

export interface PeerCredentials {
  pid: number
  uid: number
  gid: number
}

/** Who the peer was when it connected, by the kernel's word. */
export function peerCredentials(fd: number): PeerCredentials {
  required(getOption(fd, SOL_SOCKET, SO_PEERCRED, 12), 'reading peer credentials')
  const base = at.option / 4
  return { pid: arena.i32[base]!, uid: arena.u32[base + 1]!, gid: arena.u32[base + 2]! }
}

/**
 * A pidfd of the peer, or -errno where the kernel (before 6.5) does not know it. Unlike `pidfdOpen(pid)` it cannot name
 * a stranger who got the number of a peer that died in between.
 */
export function peerProcess(fd: number): number {
  const result = getOption(fd, SOL_SOCKET, SO_PEERPIDFD, 4)
  return result < 0 ? result : arena.i32[at.option / 4]!
}
