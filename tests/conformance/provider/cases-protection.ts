/** Keys, bounds, rights and lengths, at both ends. */
import type { ProtectionDomain, RegisteredMemory } from '../../../broker/provider/provider.js'
import type { StatusName } from '../../../protocol/statuses.js'
import type { ProviderCase } from './cases.js'
import { allRights, isSame, type Player, type Rig, type Span, withRig } from './rig.js'

/** One bad request between good ones: the peer refuses it, and both ends are in error. */
function refusedAtPeer(
  rig: Rig,
  post: (a: Player, b: Player) => void,
  why: StatusName,
): { a: Player; b: Player; problem: string } {
  const [a, b] = rig.pair()
  b.receive(50, { length: 8 })
  a.bytes.fill(7)
  a.write(1, { length: 8, to: 1024 })
  post(a, b)
  a.write(3, { length: 8, to: 0 })
  rig.until(() => a.done(3) && b.done(1), `refusal with ${why}`)
  rig.settle()
  const problems: string[] = []
  if (a.ids.join() !== '1,2,3') problems.push(`completed ${a.ids}`)
  if (a.statuses.join() !== `success,${why},flushed`) problems.push(`statuses ${a.statuses}`)
  if (b.ids.join() !== '50') problems.push(`peer completed ${b.ids}`)
  if (a.state !== 'error' || b.state !== 'error') problems.push(`states ${a.state} and ${b.state}`)
  const written = b.bytes.reduce((count, byte) => count + (byte === 0 ? 0 : 1), 0)
  if (written !== 8) problems.push(`${written} bytes were written where the first request has 8`)
  return { a, b, problem: problems.join('; ') }
}

interface BadAccess {
  readonly what: string
  readonly opcode: 'write' | 'read'
  span(a: Player, b: Player): Span
}

const badAccesses: BadAccess[] = [
  { what: 'unknown key', opcode: 'write', span: () => ({ length: 8, remoteKey: 0xabcdef01 }) },
  { what: 'unknown key', opcode: 'read', span: () => ({ length: 8, remoteKey: 0 }) },
  { what: 'other generation', opcode: 'write', span: (_, b) => ({ length: 8, remoteKey: b.memory.remoteKey ^ 1 }) },
  { what: 'one byte too far', opcode: 'write', span: (_, b) => ({ length: 8, to: b.memory.byteLength - 7 }) },
  { what: 'one byte too far', opcode: 'read', span: (_, b) => ({ length: 8, to: b.memory.byteLength - 7 }) },
  { what: 'far outside', opcode: 'write', span: () => ({ length: 8, to: 2 ** 50 }) },
  {
    what: 'long message over the end',
    opcode: 'write',
    span: (_, b) => ({ length: 1 << 20, to: b.memory.byteLength - (1 << 20) + 1 }),
  },
  {
    what: 'no right',
    opcode: 'write',
    span: (_, b) => ({ length: 8, remoteKey: b.register({ ...allRights, remoteWrite: false }).remoteKey }),
  },
  {
    what: 'no right',
    opcode: 'read',
    span: (_, b) => ({ length: 8, remoteKey: b.register({ ...allRights, remoteRead: false }).remoteKey }),
  },
  { what: 'foreign domain', opcode: 'write', span: (_, b) => ({ length: 8, remoteKey: foreignMemory(b).remoteKey }) },
  { what: 'foreign domain', opcode: 'read', span: (_, b) => ({ length: 8, remoteKey: foreignMemory(b).remoteKey }) },
]

function foreignMemory(player: Player): RegisteredMemory {
  const domain = player.rig.control<ProtectionDomain>((done) => player.device.allocateProtectionDomain(done))
  return player.register(allRights, player.mapping.byteLength, domain)
}

/** Soft-RoCE knows bad memory of one's own by its range, and takes an unknown key for any other trouble (kernel 6.1). */
const badMemory = {
  soft: ['local-protection-error'],
  verbs: ['local-protection-error', 'local-qp-error'],
} as const

/** A message that is too long is any other trouble too, and the sender hears no more than that. */
const tooLong = {
  soft: { here: 'remote-invalid-request', there: 'local-length-error' },
  verbs: { here: 'remote-operation-error', there: 'local-qp-error' },
} as const

/** One request whose own memory is bad, between good ones. */
const badMemories: { what: string; opcode: 'send' | 'write' | 'read'; span: (a: Player) => Span }[] = [
  { what: 'unknown key', opcode: 'send', span: () => ({ length: 8, key: 0x777 }) },
  { what: 'outside', opcode: 'write', span: (a) => ({ at: a.memory.byteLength - 4, length: 8 }) },
  { what: 'before the start', opcode: 'write', span: () => ({ at: -8, length: 8 }) },
  {
    what: 'second entry outside',
    opcode: 'send',
    span: (a) => ({
      length: 0,
      entries: [
        [0, 8],
        [a.memory.byteLength, 8],
      ],
    }),
  },
  {
    what: 'long message outside',
    opcode: 'write',
    span: (a) => ({ at: a.memory.byteLength - (1 << 20) + 1, length: 1 << 20 }),
  },
  { what: 'foreign domain', opcode: 'send', span: (a) => ({ length: 8, key: foreignMemory(a).localKey }) },
  {
    what: 'read into memory without write right',
    opcode: 'read',
    span: (a) => ({ length: 8, key: a.register({ localWrite: false, remoteRead: true, remoteWrite: false }).localKey }),
  },
]

export const protectionCases: ProviderCase[] = [
  {
    number: 110,
    name: 'a bad remote key, range, right or domain is a remote access error, and both queue pairs fail',
    run: (t, factory) => {
      for (const { what, opcode, span } of badAccesses) {
        withRig(factory, (rig) => {
          const { b, problem } = refusedAtPeer(rig, (a, peer) => a[opcode](2, span(a, peer)), 'remote-access-error')
          t.is(problem, '', `${opcode}: ${what}`)
          t.deepEqual(b.statuses, ['flushed'])
          if (b.device.kind === 'soft') t.deepEqual(b.events(), ['access-error'], `${opcode}: ${what}`)
        })
      }
    },
  },
  {
    number: 111,
    name: 'a message longer than the receive is a length error there and an invalid request here',
    run: (t, factory) => {
      for (const length of [9, 5000, 1 << 20]) {
        withRig(factory, (rig) => {
          const { here, there } = tooLong[factory.provider]
          const { b, problem } = refusedAtPeer(rig, (a) => a.send(2, { length }), here)
          t.is(problem, '')
          t.deepEqual(b.statuses, [there])
        })
      }
    },
  },
  {
    number: 112,
    name: 'a receive into bad memory is a protection error there and an operation error here',
    run: (t, factory) => {
      for (const length of [8, 5000, 1 << 20]) {
        withRig(factory, (rig) => {
          const [a, b] = rig.pair()
          b.receive(1, { length, key: 0x123 })
          b.receive(2, { length })
          a.send(3, { length })
          a.send(4, { length: 8 })
          rig.until(() => a.done(2) && b.done(2))
          t.deepEqual(a.statuses, ['remote-operation-error', 'flushed'])
          t.deepEqual(b.ids, [1, 2])
          const expected = badMemory[factory.provider].map((status) => `${status},flushed`)
          t.true(expected.includes(b.statuses.join()), b.statuses.join())
        })
      }
    },
  },
  {
    number: 113,
    name: 'a request with bad memory of its own fails in its turn, after what was before it and before what follows',
    run: (t, factory) => {
      for (const { what, opcode, span } of badMemories) {
        withRig(factory, (rig) => {
          const [a, b] = rig.pair()
          b.receive(50, { length: 1 << 20 })
          a.write(1, { length: 300_000, to: 0 })
          a[opcode](2, { to: 0, ...span(a) })
          a.write(3, { length: 8, to: 0 })
          rig.until(() => a.done(3), `${opcode}: ${what}`)
          t.deepEqual(a.ids, [1, 2, 3])
          const expected = badMemory[factory.provider].map((status) => `success,${status},flushed`)
          t.true(expected.includes(a.statuses.join()), `${opcode}: ${what}: ${a.statuses}`)
          t.is(a.state, 'error')
        })
      }
    },
  },
  {
    number: 114,
    name: 'requests of no length look at no key',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair()
        b.receive(9, { length: 0, key: 0x999 })
        a.write(1, { length: 0, remoteKey: 0xbad, to: 2 ** 40 })
        a.read(2, { length: 0, remoteKey: 0xbad, key: 0x888 })
        a.send(3, { length: 0, key: 0x777 })
        a.send(4, { length: 0, entries: [] })
        b.receive(10, { length: 0, entries: [] })
        rig.until(() => a.done(4) && b.done(2))
        t.true([...a.statuses, ...b.statuses].every((status) => status === 'success'))
        t.deepEqual(
          b.completions.map(({ byteLength }) => byteLength),
          [0, 0],
        )
      }),
  },
  {
    number: 52,
    name: 'memory that is deregistered under incoming writes breaks the queue pair and is not touched any more',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair()
        const extra = b.register(allRights)
        for (let id = 0; id < 32; id++) a.write(id, { length: 1 << 20, to: 0, remoteKey: extra.remoteKey })
        rig.until(() => a.done(2))
        rig.control<true>((done) => b.device.deregisterMemory(extra, done))
        const before = b.slice(0, 1 << 20)
        a.fill(0, 1 << 20, 77)
        rig.until(() => a.done(32))
        t.true(isSame(b.slice(0, 1 << 20), before))
        const cause = a.statuses.find((status) => status !== 'success')
        // Soft-RoCE may have executed all of them while they were posted.
        if (factory.provider === 'verbs' && cause === undefined) return
        t.is(cause, 'remote-access-error')
        t.is(b.state, 'error')
      }),
  },
  {
    number: 115,
    name: 'memory that is deregistered under outgoing requests fails them, and its pages are not read any more',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a] = rig.pair()
        const extra = a.register(allRights)
        for (let id = 0; id < 32; id++) a.write(id, { length: 1 << 20, key: extra.localKey })
        rig.until(() => a.done(2))
        rig.control<true>((done) => a.device.deregisterMemory(extra, done))
        rig.until(() => a.done(32))
        const cause = a.statuses.findIndex((status) => status !== 'success')
        if (factory.provider === 'verbs' && cause < 0) return
        const expected: readonly string[] = badMemory[factory.provider]
        t.true(expected.includes(a.statuses[cause]!), a.statuses[cause])
        t.true(a.statuses.slice(cause + 1).every((status) => status === 'flushed'))
      }),
  },
  {
    number: 116,
    name: 'keys of one memory differ from those of the next one in its place, and stale ones are refused',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const player = rig.player(rig.open('a'))
        const keys = new Set<number>()
        let last = -1
        for (let round = 0; round < 200; round++) {
          const memory = player.register(allRights)
          t.not(memory.localKey, last)
          t.false(keys.has(memory.remoteKey) && memory.remoteKey === last)
          keys.add(memory.remoteKey)
          last = memory.localKey
          rig.control<true>((done) => player.device.deregisterMemory(memory, done))
          const again = rig.attempt<true>((done) => player.device.deregisterMemory(memory, done))
          t.is(again.failure?.code, 'invalid')
        }
      }),
  },
  {
    number: 117,
    name: "from its error completion on, the memory of a request is its owner's: what he writes then goes nowhere (pages of files: 168)",
    run: (t, factory) => {
      for (const ending of ['error', 'deregistration'] as const) {
        withRig(factory, (rig) => {
          const [a, b] = rig.pair({ memoryByteLength: 48 << 20 })
          const extra = a.registerWithoutFile(allRights)
          a.write(100, { length: 0 })
          rig.until(() => a.done(1), 'the connection')
          a.bytes.fill(1)
          // More than the sockets hold, and the peer does not turn: some of it is under way, some waits.
          for (let id = 0; id < 12; id++) a.write(id, { length: 4 << 20, to: id << 22, key: extra.localKey })
          for (let turn = 0; turn < 200; turn++) a.device.progress(rig.nowMs)
          if (ending === 'error') a.toError()
          else rig.control<true>((done) => a.device.deregisterMemory(extra, done))
          a.bytes.fill(2)
          rig.until(() => a.done(13), 'all completions')
          rig.settle()
          t.false(b.bytes.includes(2), ending)
          t.true(b.bytes.includes(1), 'something was under way')
        })
      }
    },
  },
]
