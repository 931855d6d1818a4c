/** Receivers that are not ready, reads beyond the negotiated number, peers that do not answer, socket and queue limits. */
import type { ProviderCase } from './cases.js'
import { isSame, withRig } from './rig.js'

export const flowCases: ProviderCase[] = [
  {
    number: 120,
    name: 'a message without a receive waits and is counted; what is behind it waits too; nothing is lost or doubled',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const at = { receive: 8 << 20, last: 12 << 20, write: 16 << 20, read: 24 << 20 }
        for (const length of [8, 5000, 600_000, 3_500_000]) {
          const [a, b] = rig.pair({ memoryByteLength: 32 << 20 })
          a.fill(0, length, length)
          a.write(1, { length: 8, to: 4 << 20 })
          a.send(2, { length })
          a.write(3, { length, to: at.write })
          a.read(4, { at: at.read, length, to: at.write })
          a.send(5, { length: 8 })
          rig.until(() => a.done(1))
          rig.pass(20)
          t.deepEqual(a.ids, [1])
          t.true(b.device.counters.receiverNotReady > 0)
          b.receive(10, { at: at.receive, length })
          b.receive(11, { at: at.last, length: 8 })
          rig.pass(10)
          rig.until(() => a.done(5) && b.done(2), `${length} bytes`)
          t.deepEqual(a.ids, [1, 2, 3, 4, 5])
          t.deepEqual(b.ids, [10, 11])
          t.true(isSame(b.slice(at.receive, length), a.slice(0, length)))
          t.true(isSame(a.slice(at.read, length), a.slice(0, length)))
        }
      }),
  },
  {
    number: 121,
    name: 'a receiver that stays not ready exceeds the retries, and the rest is flushed',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair({ attributes: { rnrRetryCount: 3 } })
        a.send(1, { length: 8 })
        a.send(2, { length: 8, signaled: false })
        rig.pass(100)
        rig.until(() => a.done(2))
        t.deepEqual(a.ids, [1, 2])
        t.deepEqual(a.statuses, ['rnr-retry-exceeded', 'flushed'])
        t.is(b.device.counters.receiverNotReady, 4)
        t.is(b.state, 'ready-to-send')
      }),
  },
  {
    number: 122,
    name: 'retries of a receiver that is not ready begin anew with each request',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        // A device on a real clock may have tried again before anybody looks.
        const rnrTimerMs = factory.clockMs === null ? 4 : 200
        const [a, b] = rig.pair({ attributes: { rnrRetryCount: 2, rnrTimerMs } })
        for (let id = 0; id < 5; id++) {
          a.send(id, { length: 8 })
          const before = b.device.counters.receiverNotReady
          rig.until(() => b.device.counters.receiverNotReady > before)
          b.receive(id, { length: 8 })
          rig.pass(10)
          rig.until(() => a.done(id + 1))
        }
        t.true(a.statuses.every((status) => status === 'success'))
      }),
  },
  {
    number: 33,
    name: 'reads beyond the negotiated number stall the send queue, and go on as answers come',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair({ attributes: { readsInitiated: 2, readsAccepted: 2 } })
        b.fill(0, 4096, 9)
        for (let id = 0; id < 40; id++) {
          if (id % 10 === 9) a.write(id, { length: 8, to: 1 << 20 })
          else a.read(id, { at: id * 64, length: 64, to: id * 64 })
        }
        rig.until(() => a.done(40))
        t.deepEqual(
          a.ids,
          Array.from({ length: 40 }, (_, id) => id),
        )
        t.true(a.statuses.every((status) => status === 'success'))
        t.true(isSame(a.slice(0, 576), b.slice(0, 576)))
      }),
  },
  {
    number: 123,
    name: 'more reads at once than the peer accepts are an invalid request',
    only: 'soft',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        for (const length of [64, 100_000]) {
          const [a, b] = rig.pair({ attributes: { readsInitiated: 4 }, responderAttributes: { readsAccepted: 2 } })
          rig.until(() => a.write(0, { length: 8 }) === 1 && a.done(0))
          rig.settle()
          for (let id = 1; id < 5; id++) a.read(id, { length, to: 0 })
          rig.until(() => a.state === 'error' && b.state === 'error')
          rig.settle()
          t.deepEqual(a.ids, [0, 1, 2, 3, 4])
          t.deepEqual(a.statuses, ['success', 'success', 'success', 'remote-invalid-request', 'flushed'])
          t.deepEqual(b.events(), ['queue-pair-error'])
        }
      }),
  },
  {
    number: 72,
    name: 'a peer that is gone is given up only after timeout and retries, the oldest request first',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        // 4.096 µs × 2^14 × 3 = 201 ms
        const [a, b] = rig.pair({ attributes: { timeoutExponent: 14, retryCount: 2 } })
        a.write(1, { length: 8 })
        rig.until(() => a.done(1))
        rig.closeDevice(b.device)
        a.receive(9, { length: 8 })
        a.write(2, { length: 8, signaled: false })
        a.send(3, { length: 8 })
        rig.pass(150)
        t.deepEqual(a.ids, [1])
        t.is(a.state, 'ready-to-send')
        rig.pass(150)
        rig.until(() => a.done(4))
        t.deepEqual(
          a.completions.filter(({ id }) => id < 9).map(({ id, status }) => `${id} ${status}`),
          ['1 success', '2 retry-exceeded', '3 flushed'],
        )
        t.is(a.state, 'error')
      }),
  },
  {
    number: 124,
    name: 'a peer that never gets ready is given up too, and a request without timeout waits for ever',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        for (const timeoutExponent of [10, 0]) {
          const a = rig.player(rig.open('a'))
          const b = rig.player(rig.open('b'))
          a.connect(b, {
            readsInitiated: 1,
            readsAccepted: 1,
            pathMtu: 1024,
            timeoutExponent,
            retryCount: 1,
            rnrRetryCount: 7,
            rnrTimerMs: 1,
            trafficClass: 0,
          })
          a.write(1, { length: 8 })
          rig.pass(50)
          t.deepEqual(a.statuses, timeoutExponent === 0 ? [] : ['retry-exceeded'])
        }
      }),
  },
  {
    number: 125,
    name: 'requests posted before the peer is ready are executed when it is',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        for (const isFirst of [true, false]) {
          const players = [rig.player(rig.open('a')), rig.player(rig.open('b'))]
          const [a, b] = (isFirst ? players : players.toReversed()) as [(typeof players)[0], (typeof players)[0]]
          const attributes = {
            readsInitiated: 1,
            readsAccepted: 1,
            pathMtu: 1024,
            timeoutExponent: 20,
            retryCount: 6,
            rnrRetryCount: 7,
            rnrTimerMs: 1,
            trafficClass: 0,
          }
          a.connect(b, attributes)
          b.receive(1, { length: 8 })
          a.fill(0, 8, 5)
          a.send(2, { length: 8 })
          rig.pass(30)
          t.false(b.done(1))
          b.receiveFrom(a, attributes)
          rig.pass(30)
          rig.until(() => a.done(1) && b.done(1))
          t.true(isSame(b.slice(0, 8), a.slice(0, 8)))
        }
      }),
  },
  {
    number: 126,
    name: 'many queue pairs of two devices each get their turn',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const first = rig.pair({ queueCapacity: 8192 })
        const pairs = [first, ...Array.from({ length: 15 }, () => rig.anotherPair(first))]
        for (const [a] of pairs) a.write(0, { length: 8 })
        rig.until(() => pairs.every(([a]) => a.done(1)), 'all connections')
        pairs.forEach(([a], index) => {
          for (let id = 0; id < 32; id++) a.write(id, { length: 200_000, to: index * 1024 })
        })
        let slowest = -1
        rig.until(() => {
          if (slowest < 0 && pairs.some(([a]) => a.done(33))) {
            slowest = Math.min(...pairs.map(([a]) => a.completions.length))
          }
          return pairs.every(([a]) => a.done(33))
        })
        // Soft-RoCE executes what is posted while it is posted, so the first one is done before the last one begins.
        if (factory.provider === 'soft') t.true(slowest > 1, 'nobody was left out until another had finished')
      }),
  },
  {
    number: 127,
    name: 'a message that takes longer than the timeout is not given up while its bytes go out',
    only: 'soft',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const length = 48 << 20
        const [a] = rig.pair({ memoryByteLength: length, attributes: { timeoutExponent: 12, retryCount: 0 } })
        a.write(0, { length: 8 })
        rig.until(() => a.done(1))
        a.write(1, { length })
        a.read(2, { length })
        rig.pass(200)
        rig.until(() => a.done(3))
        t.deepEqual(a.statuses, ['success', 'success', 'success'])
      }),
  },
]
