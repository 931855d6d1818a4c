/** Order of requests and of their data. */
import { receiveOpcode, sendOpcode } from '../../../broker/provider/provider.js'
import type { ProviderCase } from './cases.js'
import { isSame, type Player, type Rig, withRig } from './rig.js'

/** One below, at and above every length at which some provider changes its ways (MTU, copy, direct, segment, chunk). */
const edges = [1, 8, 64, 256, 1024, 2048, 4096, 8192, 16_384, 65_536, 262_144, 1 << 20, 3 << 20]
const lengths = [0, ...edges.flatMap((edge) => [edge - 1, edge, edge + 1])]

function roundTrips(rig: Rig, a: Player, b: Player, round: number, length: number): Uint8Array {
  const at = round % 61
  a.fill(at, length, round)
  b.receive(round, { length: 8, at: 7 << 20 })
  a.write(round, { at, length, to: at + 3, signaled: false })
  a.send(round, { at, length: Math.min(length, 8) })
  rig.until(() => b.done(round + 1), `arrival of round ${round}`)
  const arrived = b.slice(at + 3, length)
  rig.until(() => a.done(round + 1), `completion of round ${round}`)
  return arrived
}

export const orderingCases: ProviderCase[] = [
  {
    number: 1,
    name: 'sends arrive in the order of posting, each in the receive that was posted for it',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair()
        for (let id = 0; id < 500; id++) {
          rig.until(() => b.receive(id, { at: (id % 64) * 64, length: 64 }) === 1)
          a.bytes[id % 64] = id & 0xff
          rig.until(() => a.send(id, { at: id % 64, length: 1 }) === 1)
          if (id % 7 === 0) rig.until(() => b.done(id + 1) && a.done(id + 1))
          if (b.done(id + 1)) t.is(b.bytes[(id % 64) * 64], id & 0xff)
        }
        rig.until(() => a.done(500) && b.done(500))
        t.deepEqual(
          b.ids,
          Array.from({ length: 500 }, (_, id) => id),
        )
        t.deepEqual(a.ids, b.ids)
        t.true(b.completions.every((completion) => completion.opcode === receiveOpcode && completion.byteLength === 1))
      }),
  },
  {
    number: 2,
    name: 'a write before a send is in place when the receive completes',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair()
        lengths.forEach((length, round) => {
          const arrived = roundTrips(rig, a, b, round, length)
          t.true(isSame(arrived, a.slice(round % 61, length)), `${length} bytes`)
        })
        for (let round = lengths.length; round < 3000; round++) {
          const length = (round * 7919) % 5000
          const arrived = roundTrips(rig, a, b, round, length)
          if (Buffer.compare(arrived, a.slice(round % 61, length)) !== 0) t.fail(`round ${round}, ${length} bytes`)
        }
        t.true(a.statuses.every((status) => status === 'success'))
      }),
  },
  {
    number: 3,
    name: 'a read sees the write before it',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair({ attributes: { readsInitiated: 2, readsAccepted: 2 } })
        lengths.forEach((length, round) => {
          a.fill(0, length, round)
          a.write(round * 2, { length, to: 5 })
          a.read(round * 2 + 1, { at: 4 << 20, length, to: 5 })
          rig.until(() => a.done(round * 2 + 2), `${length} bytes`)
          t.true(isSame(a.slice(4 << 20, length), a.slice(0, length)), `${length} bytes`)
          t.true(isSame(b.slice(5, length), a.slice(0, length)), `${length} bytes`)
        })
        t.true(a.statuses.every((status) => status === 'success'))
      }),
  },
  {
    number: 4,
    name: 'requests of all kinds complete in the order of posting',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair()
        const opcodes: number[] = []
        for (let id = 0; id < 300; id++) {
          const length = (id * 1237) % 70_000
          const kind = (id * 5 + (id >> 3)) % 3
          opcodes.push(kind)
          if (kind === 0) {
            rig.until(() => b.receive(id, { at: 1 << 20, length: 1 << 17 }) === 1)
            rig.until(() => a.send(id, { length }) === 1)
          } else if (kind === 1) rig.until(() => a.write(id, { length, to: 2 << 20 }) === 1)
          else rig.until(() => a.read(id, { at: 3 << 20, length, to: 4 << 20 }) === 1)
        }
        rig.until(() => a.done(300))
        t.deepEqual(
          a.ids,
          Array.from({ length: 300 }, (_, id) => id),
        )
        t.deepEqual(
          a.completions.map((completion) => completion.opcode),
          opcodes,
        )
        t.is(b.completions.length, opcodes.filter((opcode) => opcode === sendOpcode.send).length)
      }),
  },
  {
    number: 90,
    name: 'every length arrives whole by send, write and read, and nothing beside it is touched',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair({ memoryByteLength: 16 << 20 })
        const target = 8 << 20
        lengths.forEach((length, round) => {
          const at = 9 + (round % 5)
          a.fill(at, length, round)
          b.bytes.fill(0xee, target - 16, target + length + 16)
          b.receive(1, { at: target, length })
          a.send(2, { at, length })
          rig.until(() => a.done(round * 3 + 1) && b.done(round + 1), `send of ${length} bytes`)
          t.is(b.completions[round]!.byteLength, length)
          t.true(isSame(b.slice(target, length), a.slice(at, length)), `send of ${length} bytes`)
          t.true(b.slice(target + length, 16).every((byte) => byte === 0xee))
          b.bytes.fill(0xdd, target - 16, target + length + 16)
          a.write(3, { at, length, to: target })
          rig.until(() => a.done(round * 3 + 2), `write of ${length} bytes`)
          t.true(isSame(b.slice(target, length), a.slice(at, length)), `write of ${length} bytes`)
          t.true(b.slice(target - 16, 16).every((byte) => byte === 0xdd))
          t.true(b.slice(target + length, 16).every((byte) => byte === 0xdd))
          a.bytes.fill(0xcc, target - 16, target + length + 16)
          a.read(4, { at: target, length, to: target })
          rig.until(() => a.done(round * 3 + 3), `read of ${length} bytes`)
          t.true(isSame(a.slice(target, length), a.slice(at, length)), `read of ${length} bytes`)
          t.true(a.slice(target + length, 16).every((byte) => byte === 0xcc))
        })
        t.true(a.statuses.every((status) => status === 'success'))
      }),
  },
  {
    number: 100,
    name: 'entries are gathered and scattered in order, empty ones skipped, at any length',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair()
        ;[12, 300, 9000, 300_000, 700_001].forEach((length, round) => {
          const third = Math.floor(length / 3)
          a.fill(0, length, round)
          const from = [0, third, third * 2].map((at, index) => [at, index < 2 ? third : length - third * 2] as const)
          const entries = [from[0]!, [5, 0] as const, from[1]!, from[2]!]
          const to = [1 << 20, 2 << 20].map((at, index) => [at, index < 1 ? third + 5 : length] as const)
          b.receive(round, { length: 0, entries: [to[0]!, [0, 0], to[1]!] })
          a.send(round, { length: 0, entries })
          a.write(round, { length: 0, entries, to: 4 << 20 })
          a.read(round, {
            length: 0,
            entries: [
              [3 << 20, third],
              [(3 << 20) + third, length - third],
            ],
            to: 4 << 20,
          })
          rig.until(() => a.done(round * 3 + 3) && b.done(round + 1), `${length} bytes`)
          const arrived = Buffer.concat([b.slice(1 << 20, third + 5), b.slice(2 << 20, length - third - 5)])
          t.true(isSame(arrived, a.slice(0, length)), `send of ${length} bytes`)
          t.true(isSame(b.slice(4 << 20, length), a.slice(0, length)), `write of ${length} bytes`)
          t.true(isSame(a.slice(3 << 20, length), a.slice(0, length)), `read of ${length} bytes`)
        })
        t.true(a.statuses.every((status) => status === 'success'))
      }),
  },
  {
    number: 101,
    name: 'an inline payload is taken when it is posted, whatever happens to its memory then',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair()
        // The first one is posted before there is a connection, so it has to be kept for a while.
        for (const length of [64, 0, 1, 63]) {
          const before = b.completions.length
          a.fill(0, length, length)
          const expected = a.slice(0, length)
          b.receive(1, { at: 4096, length: 64 })
          a.send(2, { length, inline: true })
          a.write(3, { length, inline: true, to: 8192 })
          a.bytes.fill(0, 0, 64)
          rig.until(() => b.done(before + 1) && a.done(before * 2 + 2))
          t.true(isSame(b.slice(4096, length), expected))
          t.true(isSame(b.slice(8192, length), expected))
        }
      }),
  },
  {
    number: 102,
    name: 'large writes and reads cross in both directions without stopping each other',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair({ memoryByteLength: 16 << 20 })
        const both = [a, b] as const
        for (const [index, player] of both.entries()) player.fill(0, 4 << 20, index + 1)
        for (let id = 0; id < 12; id++) {
          for (const player of both) {
            if (id % 3 === 2) player.read(id, { at: 8 << 20, length: 3 << 20, to: 0 })
            else player.write(id, { length: 4 << 20, to: 4 << 20 })
          }
        }
        rig.until(() => a.done(12) && b.done(12))
        for (const player of both) {
          t.true(player.statuses.every((status) => status === 'success'))
          t.true(isSame(player.slice(8 << 20, 3 << 20), player.peer.slice(0, 3 << 20)))
          t.true(isSame(player.slice(4 << 20, 4 << 20), player.peer.slice(0, 4 << 20)))
        }
      }),
  },
]
