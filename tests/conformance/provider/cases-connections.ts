/** Strangers, stale peers and hostile ones at the port of a soft device. */
import fc from 'fast-check'
import type { QueuePairAddress } from '../../../broker/provider/provider.js'
import { openSoftDevice, type SoftDevice } from '../../../broker/provider/soft-device.js'
import type { FaultHooks } from '../../../broker/provider/soft-faults.js'
import { firstSequence } from '../../../broker/provider/soft-requester.js'
import {
  encodeExtension,
  encodeHeader,
  frameFlag,
  frameType,
  frameWord,
  paddingOf,
} from '../../../broker/provider/soft-wire.js'
import type { ProviderCase } from './cases.js'
import { helloOf, madeUpAddress, RawPeer } from './raw-peer.js'
import { defaultAttributes, isSame, type Player, type Rig, withRig } from './rig.js'

const softCounters = (player: Player) => (player.device as SoftDevice).counters

/** A queue pair that waits for the hello of a made-up peer. */
function waitingFor(rig: Rig, peer: QueuePairAddress, faults?: FaultHooks): Player {
  const player = rig.player(rig.open('a', faults))
  rig.control<true>((done) => player.device.toReadyToReceive(player.queuePair, peer, defaultAttributes, done))
  rig.control<true>((done) => player.device.toReadyToSend(player.queuePair, defaultAttributes, done))
  return player
}

/** A pair works: one message each way. */
function proveAlive(rig: Rig, [a, b]: readonly [Player, Player]): void {
  for (const player of [a, b]) {
    const before = player.completions.length
    const there = player.peer.completions.length
    player.peer.receive(1, { length: 8 })
    player.send(2, { length: 8 })
    rig.until(() => player.done(before + 1) && player.peer.done(there + 1), 'a message of an innocent pair')
    if (player.completions[before]!.status !== 'success') throw new Error(player.completions[before]!.status)
  }
}

interface FrameFields {
  readonly type: number
  readonly flags: number
  readonly byteLength: number
  readonly sequence: number
  readonly acknowledged: number
  readonly messageByteLength?: number
  readonly remoteKey?: number
  readonly remoteAddress?: number
}

/** One frame as bytes, its payload counting up. */
function frameBytes(fields: FrameFields): Uint8Array {
  const isExtended = (fields.flags & frameFlag.extended) !== 0
  const header = isExtended ? 32 : 16
  const buffer = new ArrayBuffer(header + fields.byteLength + paddingOf(fields.byteLength))
  const into = { i32: new Int32Array(buffer), f64: new Float64Array(buffer) }
  encodeHeader(into, 0, frameWord(fields.type, fields.flags), fields.byteLength, fields.sequence, fields.acknowledged)
  if (isExtended)
    encodeExtension(into, 0, fields.messageByteLength ?? 0, fields.remoteKey ?? 0, fields.remoteAddress ?? 0)
  const bytes = new Uint8Array(buffer)
  for (let index = 0; index < fields.byteLength; index++) bytes[header + index] = (fields.sequence + index) & 0xff
  return bytes
}

const BOTH = frameFlag.first | frameFlag.last

/** Writes and sends of a correct peer, and what must be in memory afterwards. */
function goodStream(
  player: Player,
  peer: QueuePairAddress,
  lengths: readonly number[],
): { stream: Uint8Array; frames: number } {
  const acknowledged = firstSequence(player.address.packetSequence)
  const frames = lengths.map((byteLength, index) => {
    const sequence = (firstSequence(peer.packetSequence) + index) | 0
    if (index % 2 === 1) return frameBytes({ type: frameType.send, flags: BOTH, byteLength, sequence, acknowledged })
    return frameBytes({
      type: frameType.write,
      flags: BOTH | frameFlag.extended,
      byteLength,
      sequence,
      acknowledged,
      messageByteLength: byteLength,
      remoteKey: player.memory.remoteKey | 0,
      remoteAddress: index << 16,
    })
  })
  return { stream: new Uint8Array(Buffer.concat(frames)), frames: frames.length }
}

const anyFrame = fc.record({
  type: fc.oneof(fc.integer({ min: 0, max: 7 }), fc.integer({ min: 0, max: 255 })),
  flags: fc.integer({ min: 0, max: 8 }),
  byteLength: fc.nat(3000),
  ahead: fc.oneof(fc.constant(0), fc.integer({ min: -3, max: 3 }), fc.integer()),
  answered: fc.oneof(fc.constant(0), fc.integer({ min: -2, max: 3 }), fc.integer()),
  messageByteLength: fc.oneof(fc.nat(4000), fc.integer()),
  isRightKey: fc.boolean(),
  remoteAddress: fc.oneof(fc.nat(10_000_000), fc.double()),
})

export const connectionCases: ProviderCase[] = [
  {
    number: 154,
    name: 'garbage at the port is dropped and counted, and touches nobody',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const pair = rig.pair()
        const [a] = pair
        const property = fc.property(
          fc.uint8Array({ maxLength: 200 }),
          fc.array(fc.integer({ min: 1, max: 70 }), { minLength: 1 }),
          (bytes, pieces) => {
            const stranger = new RawPeer(rig, a.address)
            stranger.say(bytes, pieces)
            stranger.close()
            rig.settle()
          },
        )
        fc.assert(property, { numRuns: 60 })
        proveAlive(rig, pair)
        t.true(softCounters(a).connectionsRefused >= 60)
        t.is(softCounters(a).protocolErrors, 0)
      }),
  },
  {
    number: 155,
    name: 'strangers who say nothing are bounded in number and time',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const device = rig.open('a')
        const a = rig.player(device)
        const b = rig.player(rig.open('b'))
        const strangers = Array.from({ length: 200 }, () => {
          rig.turn()
          return new RawPeer(rig, a.address)
        })
        rig.settle()
        t.true(softCounters(a).connectionsRefused >= 72)
        rig.connect(a, b)
        proveAlive(rig, [a, b])
        rig.pass(6000)
        t.is(softCounters(a).connectionsRefused, 200)
        for (const stranger of strangers) stranger.close()
      }),
  },
  {
    number: 156,
    name: 'a hello that differs from the expected one in anything is refused; the right one is welcomed once',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const peer = madeUpAddress()
        const a = waitingFor(rig, peer)
        const { address } = a
        const wrong: [QueuePairAddress, QueuePairAddress][] = [
          [{ ...peer, number: 3 }, address],
          [{ ...peer, packetSequence: 1 }, address],
          [peer, { ...address, number: address.number ^ 1 }],
          [peer, { ...address, packetSequence: address.packetSequence ^ 1 }],
          [peer, { ...address, path: { ...address.path, token: '00'.repeat(16) } }],
        ]
        for (const [self, target] of wrong) {
          const stranger = new RawPeer(rig, address)
          t.false(stranger.greet(self, target))
          stranger.close()
        }
        t.is(softCounters(a).connectionsRefused, wrong.length)
        const right = new RawPeer(rig, address)
        t.true(right.greet(peer, address))
        const second = new RawPeer(rig, address)
        t.false(second.greet(peer, address), 'a connected queue pair has no second connection')
        second.close()
        right.close()
        rig.settle()
        const third = new RawPeer(rig, address)
        t.false(third.greet(peer, address), 'not even after the first one broke')
        third.close()
      }),
  },
  {
    number: 157,
    name: 'a hello that comes early waits for the queue pair, one at most, and not for ever',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const peer = madeUpAddress()
        const a = rig.player(rig.open('a'))
        const forger = new RawPeer(rig, a.address)
        forger.say(helloOf(peer, { ...a.address, path: { ...a.address.path, token: '00'.repeat(16) } }))
        rig.settle()
        forger.hear()
        t.true(forger.isClosed, 'who does not know the token does not wait')
        const early = new RawPeer(rig, a.address)
        early.say(helloOf(peer, a.address))
        const second = new RawPeer(rig, a.address)
        second.say(helloOf(peer, a.address))
        rig.settle()
        t.is(early.hear().length, 0)
        t.false(early.isClosed)
        second.hear()
        t.true(second.isClosed)
        rig.control<true>((done) => a.device.toReadyToReceive(a.queuePair, peer, defaultAttributes, done))
        t.is(early.hearAll(64).length, 64)
        for (const stranger of [forger, early, second]) stranger.close()
        const b = rig.player(rig.open('b'))
        const patient = new RawPeer(rig, b.address)
        patient.say(helloOf(peer, b.address))
        rig.pass(61_000)
        patient.hear()
        t.true(patient.isClosed)
        patient.close()
      }),
  },
  {
    number: 158,
    name: 'a stream means the same however it is cut into pieces, byte by byte too',
    run: (t, factory) => {
      const lengths = [64, 8, 0, 0, 3, 1, 5000, 100, 40_000, 30_000, 17, 63]
      const property = fc.property(
        fc.array(fc.integer({ min: 1, max: 60_000 }), { minLength: 1, maxLength: 40 }),
        (pieces) => {
          withRig(factory, (rig) => {
            const peer = madeUpAddress()
            const a = waitingFor(rig, peer)
            const { stream, frames } = goodStream(a, peer, lengths)
            for (let id = 0; id < 6; id++) a.receive(id, { at: (id * 2 + 1) << 16, length: 1 << 16 })
            const raw = new RawPeer(rig, a.address)
            if (!raw.greet(peer, a.address)) throw new Error('not welcomed')
            raw.say(stream, pieces)
            rig.until(() => a.done(6), 'all receives')
            const end = (firstSequence(peer.packetSequence) + frames) | 0
            rig.until(() => lastWord(raw.hear()) === end, 'the acknowledgement of all')
            raw.close()
            lengths.forEach((length, index) => {
              const expected = Uint8Array.from(
                { length },
                (_, byte) => (firstSequence(peer.packetSequence) + index + byte) & 0xff,
              )
              if (!isSame(a.slice(index << 16, length), expected))
                throw new Error(`request ${index} of ${length} bytes`)
            })
          })
        },
      )
      fc.assert(property, { numRuns: 12, examples: [[[1]], [[15, 1]], [[31, 33]], [[7]]] })
      t.pass()
    },
  },
  {
    number: 161,
    name: 'a peer that lies after the greeting cannot reach beyond its rights, nor disturb anybody else',
    run: (t, factory) => {
      const property = fc.property(fc.array(anyFrame, { minLength: 1, maxLength: 12 }), (frames) => {
        withRig(factory, (rig) => {
          const peer = madeUpAddress()
          const a = waitingFor(rig, peer)
          const innocent = rig.player(a.device, { memoryByteLength: 4096 })
          innocent.bytes.fill(0x77)
          for (let id = 0; id < 3; id++) a.receive(id, { length: 512 })
          a.write(9, { length: 8 })
          const raw = new RawPeer(rig, a.address)
          if (!raw.greet(peer, a.address)) throw new Error('not welcomed')
          let sequence = firstSequence(peer.packetSequence)
          const acknowledged = firstSequence(a.address.packetSequence)
          for (const { ahead, answered, isRightKey, ...fields } of frames) {
            const remoteKey = isRightKey ? a.memory.remoteKey | 0 : innocent.memory.remoteKey | 0
            raw.say(
              frameBytes({ ...fields, remoteKey, sequence: sequence + ahead, acknowledged: acknowledged + answered }),
            )
            sequence++
          }
          rig.settle()
          raw.close()
          rig.settle()
          if (!innocent.bytes.every((byte) => byte === 0x77)) throw new Error('memory of another domain was written')
          if (new Set(a.ids).size !== a.ids.length) throw new Error('a request completed twice')
        })
      })
      fc.assert(property, { numRuns: 80 })
      t.pass()
    },
  },
  {
    number: 166,
    name: 'a stream that is cut because of garbage leaves its requests to their timeout',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const peer = madeUpAddress()
        const a = waitingFor(rig, peer)
        a.write(1, { length: 8 })
        a.receive(2, { length: 8 })
        const raw = new RawPeer(rig, a.address)
        t.true(raw.greet(peer, a.address))
        raw.say(new Uint8Array(1 << 19).fill(0xff))
        rig.settle()
        t.is(softCounters(a).protocolErrors, 1)
        t.deepEqual(a.ids, [])
        t.is(a.state, 'ready-to-send')
        // 4.096 µs × 2^14 × 7 = 470 ms
        rig.pass(480)
        t.deepEqual(a.statuses, ['retry-exceeded', 'flushed'])
        raw.close()
      }),
  },
  {
    number: 167,
    name: 'segments of any length that nobody wants are passed over, and what follows them is understood',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const peer = madeUpAddress()
        const a = waitingFor(rig, peer)
        const raw = new RawPeer(rig, a.address)
        t.true(raw.greet(peer, a.address))
        const sequence = firstSequence(peer.packetSequence)
        const acknowledged = firstSequence(a.address.packetSequence)
        const lengths = [1 << 20, 300_000, 262_145, 1 << 20, 262_144, 1 << 20]
        for (const [index, byteLength] of lengths.entries()) {
          const fields = { byteLength, messageByteLength: byteLength, sequence: (sequence + index) | 0, acknowledged }
          raw.say(frameBytes({ type: frameType.send, flags: BOTH | frameFlag.extended, ...fields }), [1 << 20])
          rig.settle()
        }
        const refusal = raw.hearAll(32)
        t.is(refusal[0], frameType.refuse)
        a.receive(1, { length: 8 })
        raw.say(frameBytes({ type: frameType.send, flags: BOTH, byteLength: 8, sequence, acknowledged }))
        rig.until(() => a.done(1))
        t.deepEqual(a.statuses, ['success'])
        t.is(softCounters(a).protocolErrors, 0)
        raw.close()
      }),
  },
  {
    number: 165,
    name: 'memory that is deregistered in the middle of a segment gets no more of it',
    run: (t, factory) => {
      for (const length of [600, 5000, 200_000]) {
        withRig(factory, (rig) => {
          const peer = madeUpAddress()
          const a = waitingFor(rig, peer)
          const { stream } = goodStream(a, peer, [length])
          const raw = new RawPeer(rig, a.address)
          t.true(raw.greet(peer, a.address))
          const half = 32 + Math.floor(length / 2)
          raw.say(stream.subarray(0, half))
          rig.settle()
          t.is(a.bytes[half - 33], (firstSequence(peer.packetSequence) + half - 33) & 0xff, 'half of it is there')
          rig.control<true>((done) => a.device.deregisterMemory(a.memory, done))
          raw.say(stream.subarray(half))
          rig.settle()
          t.true(a.slice(half - 32, length - half + 32).every((byte) => byte === 0))
          t.is(a.state, 'error')
          raw.close()
        })
      }
    },
  },
  {
    number: 168,
    name: 'pages of a file: what their owner writes after his queue pair has gone is never delivered',
    run: (t, factory) => {
      // A message that the peer's kernel has whole, one that fills the socket, and one that was in error before.
      for (const [length, isError] of [
        [100 << 10, false],
        [16 << 20, false],
        [100 << 10, true],
      ] as const) {
        withRig(factory, (rig) => {
          const [a, b] = rig.pair({ memoryByteLength: 16 << 20 })
          // The kernel gives the peer more room once it has taken much.
          for (let id = 0; id < 8; id++) a.write(id, { length: 1 << 20 })
          rig.until(() => a.done(8), 'the connection')
          b.receive(1, { length: 16 << 20 })
          a.bytes.fill(1)
          a.send(9, { length })
          for (let turn = 0; turn < 50; turn++) a.device.progress(rig.nowMs)
          if (isError) a.toError()
          a.destroy()
          a.bytes.fill(2)
          rig.settle()
          t.deepEqual(b.statuses, [], 'nothing was delivered')
          t.true(b.events().includes('connection-broken'))
        })
      }
    },
  },
  {
    number: 169,
    name: 'pages of a file: entries at any offset, in any mixture with short ones, arrive as they are',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair({ memoryByteLength: 8 << 20 })
        a.fill(0, 8 << 20, 5)
        // Longer than a page list of the kernel holds, not on pages, ending between words, and behind a hole.
        const entries: [number, number][] = [
          [3, 70_001],
          [200_000, 9],
          [300_007, 1_500_001],
          [2_000_000, 90_000],
        ]
        const length = entries.reduce((sum, [, byteLength]) => sum + byteLength, 0)
        b.receive(1, { length })
        a.send(2, { length, entries })
        rig.until(() => b.done(1) && a.done(1))
        const sent = entries.flatMap(([at, byteLength]) => [...a.slice(at, byteLength)])
        t.deepEqual(b.slice(0, length), Uint8Array.from(sent))
        b.fill(0, 8 << 20, 6)
        a.read(3, { length: 3_000_001, at: 5, to: 12_345 })
        rig.until(() => a.done(2))
        t.deepEqual(a.slice(5, 3_000_001), b.slice(12_345, 3_000_001))
        t.deepEqual(a.statuses, ['success', 'success'])
      }),
  },
  {
    number: 162,
    name: 'numbering goes on over the wrap of 32 bits and over the sign',
    run: (t, factory) => {
      for (const high of [0xff, 0x7f]) {
        const rigged = { ...factory, open: (name: string) => openNear(name, high) }
        withRig(rigged, (rig) => {
          const [a, b] = rig.pair({ limits: { sendDepth: 32 } })
          for (const player of [a, b]) t.is(player.address.packetSequence & 0xffff00, (high << 16) | 0xff00)
          for (let id = 0; id < 70_000; id++) {
            rig.until(() => a.write(id, { length: 1, signaled: id % 8 === 0 }) === 1)
          }
          a.read(70_000, { length: 8 })
          rig.until(() => a.ids.at(-1) === 70_000)
          t.true(a.statuses.every((status) => status === 'success'))
        })
      }
    },
  },
]

/** The `acknowledged` of a frame without extension that ends the bytes. */
function lastWord(bytes: Uint8Array): number {
  return bytes.length < 4 ? Number.NaN : new DataView(bytes.buffer).getInt32(bytes.length - 4, true)
}

/** A device whose queue pairs start shortly before 2^32 (high 0xff) or 2^31 (high 0x7f). */
function openNear(name: string, high: number): SoftDevice {
  const random = (byteLength: number) => {
    const bytes = Uint8Array.from({ length: byteLength }, () => Math.floor(Math.random() * 256))
    if (byteLength === 3) {
      bytes[0] = high
      bytes[1] = 0xff
    }
    return bytes
  }
  return openSoftDevice({ name, host: '127.0.0.1', port: 0, random, poisonErrors: true })
}
