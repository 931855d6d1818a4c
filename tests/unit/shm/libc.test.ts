import { closeSync, fstatSync, mkdtempSync, openSync, rmSync, unlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import * as libc from '../../../shm/libc.js'
import { Memory } from '../../../shm/memory.js'
import { Child, openDescriptors, until, watched } from './fixtures/child.js'

function mapped(t: ExecutionContext, byteLength = 4096): Memory {
  const address = libc.mapAnonymous(byteLength)
  t.teardown(() => libc.munmap(address, byteLength))
  return new Memory(libc.view(address, byteLength), address)
}

function closing(t: ExecutionContext, fd: number): number {
  t.teardown(() => libc.closeDescriptor(fd))
  return fd
}

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'shm-libc-'))
  t.teardown(() => rmSync(path, { recursive: true }))
  return path
}

const refused = (code: string) => ({ instanceOf: libc.SystemCallError, code })

test('a failed call carries the kernel name of the error, its number and what was attempted', (t) => {
  const error = t.throws(() => libc.closeDescriptor(99_999), refused('EBADF'))
  t.is(error.errno, libc.EBADF)
  t.regex(error.call, /close of descriptor 99999/)
  t.regex(error.message, /^EBADF: close/)
  t.is(libc.errnoName(libc.EAGAIN), 'EAGAIN')
  t.is(libc.errnoName(0), 'errno 0')
})

test('two descriptors of one memory file see each other through their mappings', (t) => {
  const fd = closing(t, libc.memfdCreate('two'))
  libc.ftruncate(fd, 8192)
  libc.fallocate(fd, 0, 8192)
  const second = closing(t, libc.duplicate(fd))
  const [one, two] = [libc.mmap(fd, 8192, { write: true }), libc.mmap(second, 8192, { write: false })]
  t.not(one, two)
  new Uint8Array(libc.view(one, 8192))[5000] = 77
  t.is(new Uint8Array(libc.view(two, 8192))[5000], 77)
  libc.munmap(one, 8192)
  libc.munmap(two, 8192)
})

test('calls that cannot work say which and why', (t) => {
  t.throws(() => libc.mmap(-1, 4096, { write: true }), refused('EBADF'))
  t.throws(() => libc.mapAnonymous(0), refused('EINVAL'))
  t.throws(() => libc.munmap(1, 1), refused('EINVAL'))
  t.throws(() => libc.duplicate(99_999), refused('EBADF'))
  t.throws(() => libc.ftruncate(99_999, 1), refused('EBADF'))
  t.throws(() => libc.fallocate(99_999, 0, 1), refused('EBADF'))
  t.throws(() => libc.memfdCreate('x'.repeat(300)), refused('EINVAL'))
})

test('seals refuse what they name, and a sealed seal refuses more', (t) => {
  const fd = closing(t, libc.memfdCreate('sealed'))
  libc.ftruncate(fd, 4096)
  t.is(libc.getSeals(fd) & 0x1f, 0)
  libc.addSeals(fd, libc.SEAL_SHRINK | libc.SEAL_GROW)
  t.throws(() => libc.ftruncate(fd, 0), refused('EPERM'))
  t.throws(() => libc.ftruncate(fd, 8192), refused('EPERM'))
  libc.addSeals(fd, libc.SEAL_SEAL)
  t.throws(() => libc.addSeals(fd, libc.SEAL_WRITE), refused('EPERM'))
  t.is(libc.getSeals(fd) & 0x1f, libc.SEAL_SHRINK | libc.SEAL_GROW | libc.SEAL_SEAL)
})

test('copies by address move the bytes, overlapping ones too', (t) => {
  const memory = mapped(t)
  memory.u8.set([1, 2, 3, 4, 5])
  libc.memoryCopy(memory.address + 100, memory.address, 5)
  t.deepEqual([...memory.u8.subarray(100, 105)], [1, 2, 3, 4, 5])
  libc.memoryMove(memory.address + 1, memory.address, 5)
  t.deepEqual([...memory.u8.subarray(0, 6)], [1, 1, 2, 3, 4, 5])
})

test('pages replaced by zeroes stay safe to touch', (t) => {
  const memory = mapped(t)
  memory.u8.fill(9)
  libc.replaceWithZeroes(memory.address, 4096)
  t.true(memory.u8.every((byte) => byte === 0))
  memory.u8[3] = 1
  t.is(memory.u8[3], 1)
})

test('addresses are stored as 64-bit fields without losing bits', (t) => {
  const memory = new Memory(new ArrayBuffer(16))
  libc.storeAddress(memory.u32, 2, 0x7ffe_dead_beef)
  t.is(memory.i64[1], 0x7ffe_dead_beefn)
})

test('an eventfd remembers rings until it is drained, and never blocks', (t) => {
  const fd = closing(t, libc.eventfdCreate())
  t.false(libc.eventfdDrain(fd))
  for (let ring = 0; ring < 3; ring++) libc.eventfdSignal(fd)
  t.true(libc.eventfdDrain(fd))
  t.false(libc.eventfdDrain(fd))
})

test('a futex wait ends by change, by timeout, and refuses an impossible address', (t) => {
  const memory = mapped(t)
  memory.i32[1] = -5
  t.is(libc.systemFutex.wait(memory.address + 4, 7, 1000), 'changed')
  t.is(libc.systemFutex.wait(memory.address + 4, -5, 2), 'timeout')
  t.is(libc.systemFutex.wait(memory.address + 4, -5, Number.NaN), 'timeout')
  t.is(libc.systemFutex.wake(memory.address + 4, 1), 0)
  t.throws(() => libc.systemFutex.wait(4, 0, 1), refused('EFAULT'))
  t.throws(() => libc.systemFutex.wake(4, 1), refused('EFAULT'))
})

test('a futex sleeper in another process is woken by a wake on the same page', async (t) => {
  const { Mapping } = await import('../../../shm/mapping.js')
  const mapping = Mapping.create('futex', 4096)
  t.teardown(() => mapping.close())
  const child = Child.start(t, 'sleeper.ts', [mapping.fd], 'futex')
  await until('the sleeper', () => mapping.words.load(1) === 1)
  await until('a wake that meets it', () => mapping.words.wake(0, 1) === 1)
  t.is(await child.line(), 'woken')
})

test('poll names the first ready descriptor, or none at the deadline', (t) => {
  const fds = [1, 2, 3].map(() => closing(t, libc.eventfdCreate()))
  t.is(libc.pollDescriptors(fds, 0), -1)
  t.is(libc.pollDescriptors(fds, 3), -1)
  libc.eventfdSignal(fds[2]!)
  t.is(libc.pollDescriptors(fds, 1000), 2)
  libc.eventfdSignal(fds[1]!)
  t.is(libc.pollDescriptors(fds, 1000), 1)
  t.throws(() => libc.pollDescriptors(new Array(65).fill(0), 0), { code: 'out-of-bounds' })
})

test('epoll reports tags, edge-triggered once', (t) => {
  const events = mapped(t)
  const epoll = closing(t, libc.epollCreate())
  const [one, two] = [closing(t, libc.eventfdCreate()), closing(t, libc.eventfdCreate())]
  libc.epollAdd(epoll, one, libc.EPOLLIN | libc.EPOLLET, 11)
  libc.epollAdd(epoll, two, libc.EPOLLIN, 0xffff_fff0)
  t.is(libc.epollWait(epoll, events.address, 8, 0), 0)
  libc.eventfdSignal(two)
  t.is(libc.epollWait(epoll, events.address, 8, 1000), 1)
  t.is(events.view.getUint32(0, true), libc.EPOLLIN)
  t.is(events.view.getUint32(libc.EPOLL_TAG_OFFSET, true), 0xffff_fff0)
  libc.epollRemove(epoll, two)
  libc.eventfdSignal(one)
  t.is(libc.epollWait(epoll, events.address, 8, 1000), 1)
  t.is(libc.epollWait(epoll, events.address, 8, 0), 0)
  libc.epollModify(epoll, one, libc.EPOLLIN, 12)
  t.is(libc.epollWait(epoll, events.address, 8, 1000), 1)
  t.is(events.view.getUint32(libc.EPOLL_TAG_OFFSET, true), 12)
  t.throws(() => libc.epollModify(epoll, two, libc.EPOLLIN, 0), refused('ENOENT'))
  t.is(libc.epollWait(99_999, events.address, 8, 0), -libc.EBADF)
})

/** Both ends of a connection on this machine. */
function connected(t: ExecutionContext): { readonly client: number; readonly server: number } {
  const listener = closing(t, libc.tcpListen('127.0.0.1', 0, 16))
  const client = libc.tcpConnectStart('127.0.0.1', libc.tcpPort(listener))
  t.is(libc.pollDescriptors([listener], 5000), 0)
  return { client, server: closing(t, libc.tcpAccept(listener)) }
}

test('pages of a file leave as they are, and are read when the peer takes them', async (t) => {
  const memory = mapped(t)
  const file = closing(t, libc.memfdCreate('pages'))
  libc.ftruncate(file, 8192)
  const address = libc.mmap(file, 8192, { write: true })
  t.teardown(() => libc.munmap(address, 8192))
  const bytes = new Uint8Array(libc.view(address, 8192)).fill(1)
  const { client, server } = connected(t)
  t.teardown(() => libc.closeDescriptor(client))
  libc.storeAddress(memory.u32, 0, 4096)
  t.is(libc.sendFile(client, file, memory.address, 4096), 4096)
  bytes.fill(2, 4096)
  t.is(libc.pollDescriptors([server], 5000), 0)
  t.is(libc.receive(server, memory.address + 64, 4000, 0), 4000)
  t.is(memory.u8[64], 2)
  await until('everything to be acknowledged', () => libc.unacknowledgedBytes(client) === 0)
  t.is(libc.sendFile(client, file, memory.address, -1), -libc.EINVAL)
  t.is(libc.sendFile(client, 99_999, memory.address, 1), -libc.EBADF)
})

test('an end of a connection is known at once, although what came before it can still be taken', async (t) => {
  const memory = mapped(t)
  for (const isAbrupt of [false, true]) {
    const { client, server } = connected(t)
    t.true(libc.isEstablished(client) && libc.isEstablished(server))
    for (const set of [true, isAbrupt]) t.is(libc.setAbruptClose(client, set), 0)
    t.is(libc.send(client, memory.address, 100, 0), 100)
    t.is(libc.pollDescriptors([server], 5000), 0)
    libc.closeDescriptor(client)
    await until('the end of the connection', () => !libc.isEstablished(server))
    t.is(libc.receive(server, memory.address, 100, 0), 100)
    t.is(libc.receive(server, memory.address, 100, 0), isAbrupt ? -libc.ECONNRESET : 0)
  }
  t.false(libc.isEstablished(99_999))
  t.is(libc.unacknowledgedBytes(99_999), -libc.EBADF)
})

test('TCP by address: connect, send, receive, vectors, errors as negative numbers', (t) => {
  const memory = mapped(t)
  const listener = closing(t, libc.tcpListen('127.0.0.1', 0, 16))
  t.is(libc.tcpAccept(listener), -libc.EAGAIN)
  const client = closing(t, libc.tcpConnectStart('127.0.0.1', libc.tcpPort(listener)))
  t.is(libc.pollDescriptors([listener], 5000), 0)
  const server = closing(t, libc.tcpAccept(listener))
  t.is(libc.socketError(client), 0)
  for (const result of [libc.setNoDelay(client), libc.setBuffers(client, 65536, 65536), libc.quickAck(client)])
    t.is(result, 0)

  t.is(libc.receive(server, memory.address, 100, 0), -libc.EAGAIN)
  memory.u8.set(Buffer.from('abcdef'))
  t.is(libc.send(client, memory.address, 6, 0), 6)
  t.is(libc.pollDescriptors([server], 5000), 0)
  t.is(libc.receive(server, memory.address + 1000, 100, libc.MSG_PEEK), 6)
  t.is(libc.receive(server, memory.address + 1000, 100, 0), 6)
  t.is(Buffer.from(memory.u8.subarray(1000, 1006)).toString(), 'abcdef')

  // Two pieces out, two pieces in, cut elsewhere.
  const vector = memory.u32.subarray(512, 520)
  const store = (index: number, offset: number, byteLength: number): void => {
    libc.storeAddress(vector, index * 4, memory.address + offset)
    libc.storeAddress(vector, index * 4 + 2, byteLength)
  }
  store(0, 0, 2)
  store(1, 4, 2)
  t.is(libc.sendVector(client, memory.address + 2048, 2), 4)
  t.is(libc.pollDescriptors([server], 5000), 0)
  store(0, 1100, 3)
  store(1, 1200, 10)
  t.is(libc.receiveVector(server, memory.address + 2048, 2), 4)
  t.is(Buffer.from(memory.u8.subarray(1100, 1103)).toString(), 'abe')
  t.is(memory.u8[1200], 'f'.charCodeAt(0))
  t.is(libc.receiveVector(server, memory.address + 2048, 2), -libc.EAGAIN)

  t.is(libc.shutdown(client), 0)
  t.is(libc.pollDescriptors([server], 5000), 0)
  t.is(libc.receive(server, memory.address, 100, 0), 0)
  t.is(libc.send(client, memory.address, 1, 0), -libc.EPIPE)
  t.is(libc.sendVector(client, memory.address + 2048, 1), -libc.EPIPE)
})

test('TCP refusals: a closed port, a taken port, nonsense', async (t) => {
  const listener = libc.tcpListen('127.0.0.1', 0, 16)
  const port = libc.tcpPort(listener)
  t.throws(() => libc.tcpListen('127.0.0.1', port, 16), refused('EADDRINUSE'))
  libc.closeDescriptor(listener)
  const client = libc.tcpConnectStart('127.0.0.1', port)
  if (client >= 0) {
    await until('the refusal', () => libc.socketError(client) === libc.ECONNREFUSED)
    libc.closeDescriptor(client)
  } else t.is(client, -libc.ECONNREFUSED)
  for (const host of ['localhost', '1.2.3', '1.2.3.256', '']) {
    t.throws(() => libc.tcpConnectStart(host, 1), { code: 'out-of-bounds' })
  }
  t.throws(() => libc.tcpConnectStart('127.0.0.1', 70_000), { code: 'out-of-bounds' })
  t.true(libc.tcpConnectStart('255.255.255.255', 1) < 0)
  t.is(libc.socketError(99_999), libc.EBADF)
  t.is(libc.setBuffers(99_999, 1, 1), -libc.EBADF)
  t.is(libc.shutdown(99_999), -libc.EBADF)
})

test('a message brings its bytes and descriptors, whole and close-on-exec', (t) => {
  const path = join(folder(t), 'socket')
  const listener = closing(t, libc.seqpacketListen(path, 0o600))
  t.is(libc.seqpacketAccept(listener), -libc.EAGAIN)
  const client = closing(t, libc.seqpacketConnect(path))
  const server = closing(t, libc.seqpacketAccept(listener))
  t.deepEqual(libc.peerCredentials(server), { pid: process.pid, uid: process.getuid!(), gid: process.getgid!() })

  const buffer = new Uint8Array(100)
  t.is(libc.receiveMessage(server, buffer, 4), null)
  const memory = closing(t, libc.memfdCreate('passed'))
  libc.ftruncate(memory, 12_345)
  t.is(libc.sendMessage(client, Buffer.from('with two'), [memory, client]), 8)
  t.is(libc.sendMessage(client, Buffer.from('with none'), []), 9)
  const first = libc.receiveMessage(server, buffer, 4)!
  t.deepEqual([first.byteLength, first.fds.length, first.truncated], [8, 2, false])
  t.is(Buffer.from(buffer.subarray(0, 8)).toString(), 'with two')
  t.is(fstatSync(first.fds[0]!).size, 12_345)
  t.is(fstatSync(first.fds[0]!).ino, fstatSync(memory).ino)
  for (const fd of first.fds) libc.closeDescriptor(fd)
  t.deepEqual(libc.receiveMessage(server, buffer, 4), { byteLength: 9, fds: [], truncated: false })
})

test('descriptors beyond the allowed number and bytes beyond the buffer never arrive, and that is told', (t) => {
  const path = join(folder(t), 'socket')
  const listener = closing(t, libc.seqpacketListen(path, 0o600))
  const client = closing(t, libc.seqpacketConnect(path))
  const server = closing(t, libc.seqpacketAccept(listener))
  const before = openDescriptors()
  libc.sendMessage(client, Buffer.from('x'), [client, client, client])
  libc.sendMessage(client, Buffer.from('y'), [client])
  libc.sendMessage(client, Buffer.from('0123456789'), [])
  const buffer = new Uint8Array(4)
  const cut = libc.receiveMessage(server, buffer, 1)!
  t.deepEqual([cut.fds.length, cut.truncated], [1, true])
  libc.closeDescriptor(cut.fds[0]!)
  t.deepEqual(libc.receiveMessage(server, buffer, 0), { byteLength: 1, fds: [], truncated: true })
  t.deepEqual(libc.receiveMessage(server, buffer, 0), { byteLength: 4, fds: [], truncated: true })
  t.is(openDescriptors(), before)
  t.is(libc.sendMessage(client, new Uint8Array(0), []), -libc.EINVAL)
  t.is(libc.sendMessage(client, new Uint8Array(libc.MAX_MESSAGE_BYTES + 1), []), -libc.EMSGSIZE)
})

test('messages sent before a close are read before the end, also after a reset', (t) => {
  const path = join(folder(t), 'socket')
  const listener = closing(t, libc.seqpacketListen(path, 0o600))
  const client = libc.seqpacketConnect(path)
  const server = closing(t, libc.seqpacketAccept(listener))
  const buffer = new Uint8Array(100)
  libc.sendMessage(server, Buffer.from('never read'), [])
  libc.sendMessage(client, Buffer.from('last words'), [])
  libc.closeDescriptor(client)
  t.is(libc.receiveMessage(server, buffer, 0)!.byteLength, 10)
  t.is(libc.receiveMessage(server, buffer, 0)!.byteLength, 0)
  t.is(libc.sendMessage(server, Buffer.from('x'), []), -libc.EPIPE)
  t.throws(() => libc.receiveMessage(99_999, buffer, 0), refused('EBADF'))
})

test('a full socket answers EAGAIN, an absent one ENOENT, a dead one ECONNREFUSED', (t) => {
  const path = join(folder(t), 'socket')
  t.throws(() => libc.seqpacketConnect(path), refused('ENOENT'))
  const listener = libc.seqpacketListen(path, 0o660)
  t.throws(() => libc.seqpacketListen(path, 0o660), refused('EADDRINUSE'))
  const client = closing(t, libc.seqpacketConnect(path))
  const message = new Uint8Array(60_000)
  let sent = 0
  while (libc.sendMessage(client, message, []) >= 0) sent++
  t.true(sent > 0)
  t.is(libc.sendMessage(client, message, []), -libc.EAGAIN)
  libc.closeDescriptor(listener)
  t.throws(() => libc.seqpacketConnect(path), refused('ECONNREFUSED'))
  unlinkSync(path)
  t.throws(() => libc.seqpacketListen('x'.repeat(108), 0o600), { code: 'out-of-bounds' })
  t.throws(() => libc.peerCredentials(99_999), refused('EBADF'))
})

test('an abstract name needs no file', (t) => {
  const name = `@shm-libc-${process.pid}`
  const listener = closing(t, libc.seqpacketListen(name, 0o600))
  closing(t, libc.seqpacketConnect(name))
  t.true(closing(t, libc.seqpacketAccept(listener)) >= 0)
})

test('a whole-file lock excludes another description until it is closed', (t) => {
  const path = join(folder(t), 'file')
  const one = openSync(path, 'w+')
  const two = openSync(path, 'r+')
  t.true(libc.tryLockWholeFile(one))
  t.true(libc.tryLockWholeFile(one))
  t.false(libc.tryLockWholeFile(two))
  closeSync(one)
  t.true(libc.tryLockWholeFile(two))
  closeSync(two)
  t.throws(() => libc.tryLockWholeFile(99_999), refused('EBADF'))
})

test('a byte lock is seen by other descriptions only, byte by byte', (t) => {
  const path = join(folder(t), 'file')
  const one = openSync(path, 'w+')
  const two = openSync(path, 'r+')
  t.teardown(() => [one, two].forEach((fd) => void closeSync(fd)))
  t.true(libc.tryLockByte(one, 7))
  t.false(libc.byteLockHeld(one, 7))
  t.true(libc.byteLockHeld(two, 7))
  t.false(libc.byteLockHeld(two, 6))
  t.false(libc.byteLockHeld(two, 8))
  t.false(libc.tryLockByte(two, 7))
  t.true(libc.tryLockByte(two, 8))
  libc.unlockByte(one, 7)
  t.false(libc.byteLockHeld(two, 7))
  t.throws(() => libc.tryLockByte(99_999, 0), refused('EBADF'))
  t.throws(() => libc.byteLockHeld(99_999, 0), refused('EBADF'))
})

test('a pidfd becomes readable at death, and an unknown process has none', async (t) => {
  const child = Child.start(t, 'token-holder.ts', [libc.memfdCreate('unused')], 0)
  const pidfd = closing(t, libc.pidfdOpen(child.pid))
  t.is(libc.pollDescriptors([pidfd], 0), -1)
  child.kill('SIGKILL')
  t.is(libc.pollDescriptors([pidfd], 20_000), 0)
  await child.exited
  t.throws(() => libc.pidfdOpen(child.pid), refused('ESRCH'))
})

test('a peer of a socket can be watched without its number', (t) => {
  const path = join(folder(t), 'socket')
  const listener = closing(t, libc.seqpacketListen(path, 0o600))
  const client = closing(t, libc.seqpacketConnect(path))
  const pidfd = libc.peerProcess(client)
  if (pidfd >= 0) closing(t, pidfd)
  t.true(pidfd >= 0 || pidfd === -libc.ENOPROTOOPT)
  t.is(libc.seqpacketAccept(listener) >= 0, true)
})

test('process identity is a start time for display, or nothing', (t) => {
  const identity = libc.processIdentity(process.pid)
  t.is(identity?.pid, process.pid)
  t.true(identity!.startTime > 0)
  t.is(libc.processIdentity(2 ** 22 + 1), undefined)
})

test('the clock runs with the monotonic clock of Node', (t) => {
  const difference = libc.clock.nowMs() - Number(process.hrtime.bigint()) / 1e6
  t.true(Math.abs(difference) < 1000, String(difference))
  const earlier = libc.clock.nowMs()
  t.true(earlier <= libc.clock.nowMs())
  libc.schedulerYield()
})

test('the limit of pinned memory is a number of bytes', (t) => {
  t.true(libc.memlockLimit() > 0)
})

test.serial('without a service manager, or with an absent one, readiness is told to nobody', (t) => {
  delete process.env.NOTIFY_SOCKET
  t.notThrows(() => libc.notifyReady('READY=1'))
  process.env.NOTIFY_SOCKET = join(folder(t), 'absent')
  t.notThrows(() => libc.notifyReady('READY=1'))
  delete process.env.NOTIFY_SOCKET
})

test('two threads of one process load the library side by side', async (t) => {
  const worker = new Worker(new URL('./fixtures/second-thread.ts', import.meta.url))
  const answer = new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
  t.true(await watched('the worker', answer))
  await worker.terminate()
})
