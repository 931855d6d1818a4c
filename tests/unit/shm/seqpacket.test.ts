import { existsSync, fstatSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  closeDescriptor,
  ENOPROTOOPT,
  ftruncate,
  memfdCreate,
  seqpacketAccept,
  seqpacketConnect,
  seqpacketListen,
} from '../../../shm/libc.js'
import {
  type CloseReason,
  MAX_MESSAGE_BYTES,
  MAX_QUEUED_MESSAGES,
  type ReceivedDescriptors,
  SeqpacketConnection,
  SeqpacketListener,
} from '../../../shm/seqpacket.js'
import { Child, openDescriptors, until, watched } from './fixtures/child.js'

const text = (message: Uint8Array): string => Buffer.from(message).toString()
const bytes = (message: string): Uint8Array => Buffer.from(message)

function socketPath(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'shm-socket-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  return join(folder, 'socket')
}

/** What one end saw. */
class Seen {
  readonly messages: string[] = []
  readonly closes: CloseReason[] = []
  onMessage(message: Uint8Array, _descriptors: ReceivedDescriptors): void {
    this.messages.push(text(message))
  }
  onClose(reason: CloseReason): void {
    this.closes.push(reason)
  }
}

async function pair(
  t: ExecutionContext,
): Promise<{ client: SeqpacketConnection; server: SeqpacketConnection; path: string }> {
  const path = socketPath(t)
  const accepted: SeqpacketConnection[] = []
  const listener = SeqpacketListener.listen({
    path,
    mode: 0o600,
    onConnection: (connection) => accepted.push(connection),
  })
  const client = SeqpacketConnection.connect(path)
  await until('the connection', () => accepted.length === 1)
  const server = accepted[0]!
  t.teardown(() => {
    client.close()
    server.close()
    listener.close()
  })
  return { client, server, path }
}

test.serial('messages arrive whole and in order, both ways, and the peer is known', async (t) => {
  const { client, server, path } = await pair(t)
  t.is(statSync(path).mode & 0o777, 0o600)
  t.is(server.peer.pid, process.pid)
  const peer = server.peerProcess()
  if (peer >= 0) closeDescriptor(peer)
  t.true(peer >= 0 || peer === -ENOPROTOOPT)
  const [seenByServer, seenByClient] = [new Seen(), new Seen()]
  client.send(bytes('before anybody reads'))
  server.start(seenByServer)
  client.start(seenByClient)
  t.true(client.send(bytes('second')))
  t.true(client.send(new Uint8Array(MAX_MESSAGE_BYTES).fill(65)))
  t.true(server.send(bytes('answer')))
  await until('the messages', () => seenByServer.messages.length === 3 && seenByClient.messages.length === 1)
  t.deepEqual(seenByServer.messages.slice(0, 2), ['before anybody reads', 'second'])
  t.is(seenByServer.messages[2]!.length, MAX_MESSAGE_BYTES)
  t.deepEqual(seenByClient.messages, ['answer'])
  t.throws(() => client.start(seenByClient))
  for (const length of [0, MAX_MESSAGE_BYTES + 1]) {
    t.throws(() => client.send(new Uint8Array(length)), { code: 'out-of-bounds' })
  }
})

test.serial('descriptors that a handler takes are its own, the others are closed', async (t) => {
  const { client, server } = await pair(t)
  const before = openDescriptors()
  const taken: number[] = []
  const counts: number[] = []
  server.start({
    onMessage: (message, descriptors) => {
      counts.push(descriptors.count)
      if (text(message) === 'take one') taken.push(descriptors.take()!)
      if (text(message) === 'take all') taken.push(...descriptors.takeAll())
    },
    onClose: () => undefined,
  })
  const file = memfdCreate('sent')
  ftruncate(file, 777)
  for (const wish of ['take one', 'take none', 'take all']) client.send(bytes(wish), [file, file])
  closeDescriptor(file)
  await until('three messages', () => counts.length === 3)
  t.deepEqual(counts, [2, 2, 2])
  t.deepEqual(
    taken.map((fd) => fstatSync(fd).size),
    [777, 777, 777],
  )
  for (const fd of taken) closeDescriptor(fd)
  t.is(openDescriptors(), before)
})

test.serial('a message with too many descriptors closes the connection and leaves none of them', async (t) => {
  const { client, server } = await pair(t)
  const seen = new Seen()
  server.start(seen)
  const before = openDescriptors()
  const file = memfdCreate('many')
  client.send(bytes('many'), new Array(65).fill(file))
  closeDescriptor(file)
  await until('the close', () => seen.closes.length === 1)
  t.deepEqual(seen.closes, ['message-refused'])
  t.deepEqual(seen.messages, [])
  t.true(openDescriptors() <= before)
})

test.serial(
  'a handler that throws is an uncaught exception of its own process, keeps no descriptor and breaks nothing later',
  async (t) => {
    const child = Child.start(t, 'throwing-handler.ts', [])
    t.is(await child.line(), 'heard handler, 0 descriptors more')
    t.is(await child.line(), 'lives on')
  },
)

test.serial('what the socket does not take is queued, with its descriptors, and arrives in order', async (t) => {
  const { client, server } = await pair(t)
  const file = memfdCreate('queued')
  ftruncate(file, 99)
  let sent = 0
  while (client.queued < 20) t.true(client.send(bytes(`message ${sent++} ${'x'.repeat(20_000)}`), [file]))
  closeDescriptor(file)
  const numbers: number[] = []
  let wrong = 0
  server.start({
    onMessage: (message, descriptors) => {
      numbers.push(Number(text(message.subarray(0, 20)).split(' ')[1]))
      const fd = descriptors.take()!
      if (fstatSync(fd).size !== 99) wrong++
      closeDescriptor(fd)
    },
    onClose: () => undefined,
  })
  await until('all messages', () => numbers.length === sent)
  t.deepEqual(
    numbers,
    Array.from({ length: sent }, (_, index) => index),
  )
  t.is(wrong, 0)
  t.is(client.queued, 0)
  const seen = new Seen()
  client.start(seen)
  server.send(bytes('back'))
  await until('the answer', () => seen.messages.length === 1)
})

test.serial('a peer that does not read is cut off at the bound, and nothing queued is kept', async (t) => {
  const { client } = await pair(t)
  const seen = new Seen()
  client.start(seen)
  const before = openDescriptors()
  const file = memfdCreate('bound')
  let sends = 0
  while (client.send(bytes('y'), sends % 100 === 0 ? [file] : [])) sends++
  closeDescriptor(file)
  t.deepEqual(seen.closes, ['send-queue-full'])
  t.true(sends >= MAX_QUEUED_MESSAGES)
  t.false(client.open)
  t.false(client.send(bytes('z')))
  t.true(openDescriptors() < before)
})

test.serial('a large queue is bounded in bytes as well', async (t) => {
  const { client } = await pair(t)
  const big = new Uint8Array(MAX_MESSAGE_BYTES)
  let sends = 0
  while (client.send(big)) sends++
  t.true(sends < 100)
})

test.serial('messages sent before a close are delivered, then the close is told exactly once', async (t) => {
  const { client, server } = await pair(t)
  const [seen, own] = [new Seen(), new Seen()]
  client.start(own)
  server.send(bytes('never read'))
  client.send(bytes('last words'))
  client.close()
  client.close()
  t.deepEqual(own.closes, ['closed'])
  server.start(seen)
  await until('the close', () => seen.closes.length > 0)
  t.deepEqual(seen.messages, ['last words'])
  server.close()
  t.deepEqual(seen.closes, ['peer-closed'])
  t.throws(() => server.start(seen))
})

test.serial('sending to a peer that is gone is told by the close, not by an exception', async (t) => {
  const { client, server } = await pair(t)
  const seen = new Seen()
  server.start(seen)
  client.close()
  t.false(server.send(bytes('too late')))
  await until('the close', () => seen.closes.length > 0)
  t.deepEqual(seen.closes, ['peer-closed'])
  const other = await pair(t)
  other.client.close()
  t.false(other.server.send(bytes('nobody listens to the close either')))
  t.false(other.server.open)
})

test.serial('a connection can be closed from its own handler', async (t) => {
  const { client, server } = await pair(t)
  const seen = new Seen()
  server.start({
    onMessage: (message) => {
      seen.messages.push(text(message))
      server.close()
    },
    onClose: (reason) => seen.onClose(reason),
  })
  client.send(bytes('one'))
  client.send(bytes('two'))
  await until('the close', () => seen.closes.length > 0)
  t.deepEqual([seen.messages, seen.closes], [['one'], ['closed']])
})

test.serial('a process killed in the middle is a closed peer', async (t) => {
  const path = socketPath(t)
  const seen = new Seen()
  const sizes: number[] = []
  let connection: SeqpacketConnection | undefined
  const listener = SeqpacketListener.listen({
    path,
    mode: 0o600,
    onConnection: (accepted) => {
      connection = accepted
      accepted.start({
        onMessage: (message, descriptors) => {
          seen.messages.push(text(message))
          sizes.push(descriptors.count)
        },
        onClose: (reason) => seen.onClose(reason),
      })
    },
  })
  t.teardown(() => listener.close())
  const child = Child.start(t, 'seqpacket-peer.ts', [], path)
  await until('the greeting', () => seen.messages.length === 1)
  t.is(connection!.peer.pid, child.pid)
  t.deepEqual([seen.messages, sizes], [['hello'], [1]])
  connection!.send(bytes('echo'))
  await until('the echo', () => seen.messages.length === 2)
  connection!.send(bytes('die'))
  await until('the close', () => seen.closes.length > 0)
  t.deepEqual([seen.messages, seen.closes], [['hello', 'echo', 'die'], ['peer-closed']])
  t.is(await watched('its end', child.exited), 'SIGKILL')
})

test.serial('a listener replaces a dead socket, never a living one, and removes only its own', async (t) => {
  const path = socketPath(t)
  const onConnection = (connection: SeqpacketConnection): void => connection.close()
  closeDescriptor(seqpacketListen(path, 0o600))
  t.true(existsSync(path))
  const first = SeqpacketListener.listen({ path, mode: 0o660, onConnection })
  t.is(statSync(path).mode & 0o777, 0o660)
  t.throws(() => SeqpacketListener.listen({ path, mode: 0o600, onConnection }), { code: 'socket-in-use' })
  rmSync(path)
  const successor = SeqpacketListener.listen({ path, mode: 0o600, onConnection })
  first.close()
  first.close()
  t.true(existsSync(path))
  successor.close()
  t.false(existsSync(path))
  t.throws(() => SeqpacketConnection.connect(path), { code: 'ENOENT' })
  t.throws(() => SeqpacketListener.listen({ path: join(path, 'no', 'folder'), mode: 0o600, onConnection }), {
    code: 'ENOENT',
  })
})

test.serial('idle bells, watches and unreferenced connections let a process end', async (t) => {
  const { path } = await pair(t)
  const child = Child.start(t, 'idle.ts', [], path)
  t.is(await child.line(), 'timeout')
  t.is(await watched('its end', child.exited), 0)
})

test('a raw socket pair is enough for a connection', (t) => {
  const path = socketPath(t)
  const listener = seqpacketListen(path, 0o600)
  const client = new SeqpacketConnection(seqpacketConnect(path))
  const server = new SeqpacketConnection(seqpacketAccept(listener))
  t.true(server.open)
  client.close()
  server.close()
  closeDescriptor(listener)
})
