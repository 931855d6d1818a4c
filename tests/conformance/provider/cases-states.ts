/** Objects, their states, what may be done when, and how a device sleeps and ends. */
import { pollDescriptors } from '../../../shm/libc.js'
import type { ProviderCase } from './cases.js'
import { allRights, defaultAttributes, defaultLimits, isSame, withRig } from './rig.js'

export const stateCases: ProviderCase[] = [
  {
    number: 130,
    name: 'a queue pair goes init, ready to receive, ready to send, error; sends are refused before, steps not skipped',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const a = rig.player(rig.open('a'))
        const b = rig.player(rig.open('b'))
        t.is(a.state, 'init')
        t.is(a.send(1, { length: 8 }), 0)
        t.is(a.refusal, 'invalid')
        const early = rig.attempt<true>((done) => a.device.toReadyToSend(a.queuePair, defaultAttributes, done))
        t.is(early.failure?.code, 'invalid')
        a.receiveFrom(b, defaultAttributes)
        t.is(a.state, 'ready-to-receive')
        t.is(a.send(1, { length: 8 }), 0)
        const again = rig.attempt<true>((done) =>
          a.device.toReadyToReceive(a.queuePair, b.address, defaultAttributes, done),
        )
        t.is(again.failure?.code, 'invalid')
        rig.control<true>((done) => a.device.toReadyToSend(a.queuePair, defaultAttributes, done))
        t.is(a.state, 'ready-to-send')
        a.toError()
        t.is(a.state, 'error')
        a.toError()
        t.is(a.state, 'error')
      }),
  },
  {
    number: 131,
    name: 'receives may be posted from init on, and are used in that order',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const a = rig.player(rig.open('a'))
        const b = rig.player(rig.open('b'))
        b.receive(1, { length: 8 })
        b.receive(2, { length: 8 })
        rig.connect(a, b)
        a.send(3, { length: 8 })
        a.send(4, { length: 8 })
        rig.until(() => b.done(2))
        t.deepEqual(b.ids, [1, 2])
      }),
  },
  {
    number: 132,
    name: 'attributes and addresses out of range are refused and change nothing',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const a = rig.player(rig.open('a'))
        const b = rig.player(rig.open('b'))
        const bad = [{ retryCount: 7 }, { rnrRetryCount: 8 }, { timeoutExponent: 32 }, { readsInitiated: 100_000 }]
        for (const attributes of bad) {
          const { failure } = rig.attempt<true>((done) =>
            a.device.toReadyToReceive(a.queuePair, b.address, { ...defaultAttributes, ...attributes }, done),
          )
          t.is(failure?.code, 'invalid', JSON.stringify(attributes))
        }
        const self = rig.attempt<true>((done) =>
          a.device.toReadyToReceive(a.queuePair, { ...b.address, number: 2 ** 24 }, defaultAttributes, done),
        )
        t.is(self.failure?.code, 'invalid')
        t.is(a.state, 'init')
      }),
  },
  {
    number: 133,
    name: 'limits beyond the device are refused by name; bad requests are refused where they stand in the list',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a] = rig.pair()
        const most = a.device.capabilities
        const bad = [
          { sendDepth: most.maxSendDepth + 1 },
          { receiveDepth: most.maxReceiveDepth + 1 },
          { scatterGather: most.maxScatterGather + 1 },
          { inlineByteLength: most.maxInlineByteLength + 1 },
          { sendDepth: 0 },
        ]
        for (const limits of bad) {
          const { failure } = rig.attempt((done) =>
            a.device.createQueuePair(a.domain, a.queue, a.queue, { ...defaultLimits, ...limits }, done),
          )
          t.is(failure?.code, 'limit', JSON.stringify(limits))
        }
        const entries = Array.from({ length: 5 }, () => [0, 8] as const)
        t.is(a.send(1, { length: 0, entries }), 0)
        t.is(a.refusal, 'invalid')
        t.is(a.send(1, { length: 65, inline: true }), 0)
        t.is(a.refusal, 'invalid')
        t.is(a.read(1, { length: 8, inline: true }), 0)
        t.is(
          a.send(1, {
            length: most.maxMessageByteLength,
            entries: [
              [0, most.maxMessageByteLength],
              [0, 1],
            ],
          }),
          0,
        )
        t.is(a.refusal, 'invalid')
        t.is(a.state, 'ready-to-send')
        const capacity = rig.attempt((done) => a.device.createCompletionQueue(most.maxCompletionQueueDepth + 1, done))
        t.is(capacity.failure?.code, 'limit')
      }),
  },
  {
    number: 134,
    name: 'what is in use cannot be taken away: domains, completion queues',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a] = rig.pair()
        const { device } = a
        t.not(rig.attempt<true>((done) => device.freeProtectionDomain(a.domain, done)).failure, null)
        t.not(rig.attempt<true>((done) => device.destroyCompletionQueue(a.queue, done)).failure, null)
        a.destroy()
        t.is(rig.attempt<true>((done) => device.destroyCompletionQueue(a.queue, done)).failure, null)
        t.not(rig.attempt<true>((done) => device.freeProtectionDomain(a.domain, done)).failure, null)
        rig.control<true>((done) => device.deregisterMemory(a.memory, done))
        t.is(rig.attempt<true>((done) => device.freeProtectionDomain(a.domain, done)).failure, null)
        rig.players.splice(rig.players.indexOf(a), 1)
      }),
  },
  {
    number: 135,
    name: 'two queue pairs of one device can be connected to each other',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const device = rig.open('a')
        const a = rig.player(device)
        const b = rig.player(device)
        rig.connect(a, b)
        a.fill(0, 100_000, 4)
        b.receive(1, { at: 1 << 20, length: 100_000 })
        a.send(2, { length: 100_000 })
        rig.until(() => a.done(1) && b.done(1))
        t.true(isSame(b.slice(1 << 20, 100_000), a.slice(0, 100_000)))
      }),
  },
  {
    number: 136,
    name: 'numbers are 24 bits, unique among the living, and not soon used again',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const first = rig.player(rig.open('a'))
        const numbers = new Set<number>([first.queuePair.number])
        for (let round = 0; round < 50; round++) {
          const player = rig.player(first.device, { sharing: first })
          const { number } = player.queuePair
          t.true(number > 0 && number < 2 ** 24 && !numbers.has(number))
          numbers.add(number)
          player.destroy()
        }
        t.is(first.device.counters.queuePairs, 1)
        t.is(first.device.counters.queuePairsCreated, 51)
      }),
  },
  {
    number: 74,
    name: 'events that nobody took keep nothing from being destroyed',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair()
        a.write(1, { length: 8, remoteKey: 0 })
        rig.until(() => a.done(1))
        b.destroy()
        a.destroy()
        rig.control<true>((done) => b.device.destroyCompletionQueue(b.queue, done))
        if (b.device.kind === 'soft') t.deepEqual(b.events(), ['access-error'])
        t.deepEqual(b.events(), [])
        rig.players.length = 0
      }),
  },
  {
    number: 87,
    name: 'a queue pair with a stale packet sequence or number of its peer never gets through',
    only: 'soft',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const a = rig.player(rig.open('a'))
        const b = rig.player(rig.open('b'))
        const attributes = { ...defaultAttributes, timeoutExponent: 12, retryCount: 1 }
        const stale = { ...b.address, packetSequence: b.address.packetSequence ^ 0x10 }
        rig.control<true>((done) => a.device.toReadyToReceive(a.queuePair, stale, attributes, done))
        rig.control<true>((done) => a.device.toReadyToSend(a.queuePair, attributes, done))
        b.connect(a, attributes)
        b.receive(1, { length: 8 })
        a.send(2, { length: 8 })
        b.send(3, { length: 8 })
        rig.pass(100)
        t.deepEqual(a.statuses, ['retry-exceeded'])
        t.true(b.statuses.every((status) => status !== 'success'))
      }),
  },
  {
    number: 137,
    name: 'the error state stops execution: nothing of the peer gets in after it, and the peer runs into its timeout',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair({ attributes: { timeoutExponent: 12, retryCount: 1 } })
        b.receive(1, { length: 8 })
        b.toError()
        b.bytes.fill(0, 0, 64)
        a.fill(0, 64, 1)
        a.write(2, { length: 8, to: 0 })
        a.send(3, { length: 8 })
        rig.pass(100)
        t.deepEqual(a.statuses, ['retry-exceeded', 'flushed'])
        t.deepEqual(b.statuses, ['flushed'])
        t.true(b.slice(0, 64).every((byte) => byte === 0))
      }),
  },
  {
    number: 138,
    name: 'a sleeping device is woken by what arrives, and goes to sleep only when nothing is left to do',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair()
        a.write(1, { length: 8 })
        rig.until(() => a.done(1))
        for (let round = 0; round < 100; round++) {
          b.receive(round, { length: 8 })
          rig.until(() => {
            rig.turn()
            return a.device.prepareSleep() && b.device.prepareSleep()
          })
          t.is(pollDescriptors(b.device.wakeDescriptors(), 0), -1, 'nothing happens')
          a.send(round, { length: 8 })
          a.device.progress(rig.nowMs)
          t.is(pollDescriptors(b.device.wakeDescriptors(), 5000), 0, 'the message wakes')
          rig.until(() => b.done(round + 1) && a.done(round + 2))
        }
      }),
  },
  {
    number: 139,
    name: 'answers that are held back are sent before the device sleeps',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair()
        a.write(0, { length: 8 })
        rig.until(() => a.done(1))
        for (let round = 1; round < 20; round++) {
          a.write(round, { length: 8 })
          // Nobody else turns: what the peer owes leaves in its preparation to sleep or not at all.
          for (let turn = 0; turn < 20_000 && !a.done(round + 1); turn++) {
            a.device.progress(rig.nowMs)
            a.collect()
            if (round % 2 === 0) b.device.progress(rig.nowMs)
            b.device.prepareSleep()
          }
        }
        t.is(a.completions.length, 20)
      }),
  },
  {
    number: 140,
    name: 'timers are told: the next one of a waiting request is near its timeout, and none is due when nothing waits',
    only: 'soft',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair({ attributes: { timeoutExponent: 14, retryCount: 2 } })
        a.write(1, { length: 8 })
        rig.until(() => a.done(1))
        t.is(a.device.nextTimerMs(rig.nowMs), Number.POSITIVE_INFINITY)
        rig.closeDevice(b.device)
        a.write(2, { length: 8 })
        rig.pass(2)
        const next = a.device.nextTimerMs(rig.nowMs)
        t.true(next > 100 && next <= 202, `${next} ms`)
      }),
  },
  {
    number: 141,
    name: 'a closed device answers nothing and may be closed again; its sockets are free at once',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a] = rig.pair()
        a.device.close()
        a.device.close()
        t.is(a.send(1, { length: 8 }), 0)
        t.is(a.refusal, 'dead')
        t.is(a.device.progress(rig.nowMs), 0)
        t.false(a.device.port().active)
        const { failure } = rig.attempt((done) =>
          a.device.registerMemory(a.domain, a.mapping.address, 4096, allRights, done),
        )
        t.is(failure?.code, 'device-gone')
      }),
  },
  {
    number: 142,
    name: 'an answer that has arrived counts, however late somebody looks at it',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const quiet = rig.pair({ attributes: { timeoutExponent: 12, retryCount: 1 } })
        const busy = rig.anotherPair(quiet, { attributes: { timeoutExponent: 20 } })
        const [a, b] = quiet
        for (let round = 0; round < 12; round++) {
          rig.until(() => a.done(round))
          rig.settle()
          busy[0].write(round, { length: 8 })
          rig.until(() => busy[0].done(round + 1))
          // From here on only the peer turns until it is late.
          a.write(round, { length: 8 })
          a.device.progress(rig.nowMs)
          rig.skip(2)
          a.device.progress(rig.nowMs)
          for (let turn = 0; turn < 200; turn++) b.device.progress(rig.nowMs)
          b.device.prepareSleep()
          rig.skip(10_000)
          a.device.progress(rig.nowMs)
        }
        rig.until(() => a.done(12))
        t.true(a.statuses.every((status) => status === 'success'))
      }),
  },
]
