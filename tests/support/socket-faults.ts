/**
 * Faults on TCP connections of another process of this user, without privileges, proxies or its help: its socket is duplicated into this
 * process (pidfd_getfd), and then
 *
 *   cut       dissolved: the peer gets a reset, what was on the way either side is gone      connect(AF_UNSPEC)
 *   freeze    deaf: every segment that arrives is dropped, as on a dead wire, until thawed     a socket filter that passes nothing
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import koffi from 'koffi'
import { closeDescriptor, errnoName } from '../../shm/libc.js'

const PIDFD_OPEN = 434
const PIDFD_GETFD = 438
const SOL_SOCKET = 1
const SO_ATTACH_FILTER = 26
const SO_DETACH_FILTER = 27
const ESTABLISHED = '01'

const libc = koffi.load('libc.so.6')
const syscall = libc.func('syscall', 'long', ['long', 'long', 'long', 'long'])
const connect = libc.func('connect', 'int', ['int', 'void *', 'int'])
const setsockopt = libc.func('setsockopt', 'int', ['int', 'int', 'int', 'void *', 'int'])
const setFilter = libc.func('setsockopt', 'int', [
  'int',
  'int',
  'int',
  koffi.pointer(koffi.struct({ count: 'uint16', code: 'void *' })),
  'int',
])

const checked = (result: number, what: string): number => {
  if (result < 0) throw new Error(`${what}: ${errnoName(koffi.errno())}`)
  return result
}

export interface Connection {
  readonly processId: number
  readonly descriptor: number
  readonly localPort: number
  readonly remotePort: number
}

/** Established ones of a process, of IPv4. */
export function connectionsOf(processId: number): Connection[] {
  const ports = new Map<string, readonly [number, number]>()
  for (const line of readFileSync(`/proc/${processId}/net/tcp`, 'latin1').split('\n').slice(1)) {
    const [, local = '', remote = '', state, , , , , , inode] = line.trim().split(/\s+/)
    const portOf = (address: string): number => Number.parseInt(address.split(':')[1] ?? '0', 16)
    if (state === ESTABLISHED && inode) ports.set(`socket:[${inode}]`, [portOf(local), portOf(remote)])
  }
  return readdirSync(`/proc/${processId}/fd`).flatMap((name) => {
    const found = ports.get(linkOf(`/proc/${processId}/fd/${name}`))
    return found ? [{ processId, descriptor: Number(name), localPort: found[0], remotePort: found[1] }] : []
  })
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    // Closed in the meantime.
    return ''
  }
}

/** The same socket as a descriptor of this process; the caller closes it. */
function duplicateOf({ processId, descriptor }: Connection): number {
  const process = checked(syscall(PIDFD_OPEN, processId, 0, 0), 'pidfd_open')
  try {
    return checked(syscall(PIDFD_GETFD, process, descriptor, 0), 'pidfd_getfd')
  } finally {
    closeDescriptor(process)
  }
}

/** False if it was gone already. */
export function cut(connection: Connection): boolean {
  let fd: number
  try {
    fd = duplicateOf(connection)
  } catch {
    return false
  }
  const cutOff = connect(fd, Buffer.alloc(16), 16) === 0
  closeDescriptor(fd)
  return cutOff
}

/** Returns what ends it. */
export function freeze(connection: Connection): () => void {
  const fd = duplicateOf(connection)
  // BPF_RET | BPF_K with 0: nothing of any segment passes.
  const code = Buffer.from([0x06, 0, 0, 0, 0, 0, 0, 0])
  checked(setFilter(fd, SOL_SOCKET, SO_ATTACH_FILTER, { count: 1, code }, 16), 'SO_ATTACH_FILTER')
  return () => {
    setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, Buffer.alloc(4), 4)
    closeDescriptor(fd)
  }
}
