/** Who gets a completion, when, and in which order on errors. */
import type { ProviderCase } from './cases.js'
import { withRig } from './rig.js'

export const completionCases: ProviderCase[] = [
  {
    number: 14,
    name: 'an unsignalled request succeeds silently, and its slot is used again and again',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const depth = 16
        const [a, b] = rig.pair({ limits: { sendDepth: depth } })
        for (let id = 0; id < depth * 100; id++) {
          const signaled = id % 8 === 7
          rig.until(() => b.receive(id, { at: 4096, length: 64 }) === 1)
          rig.until(() => a.send(id, { length: id % 65, signaled }) === 1, `slot for request ${id}`)
        }
        rig.until(() => b.done(depth * 100) && a.done((depth * 100) / 8))
        t.deepEqual(
          a.ids,
          Array.from({ length: (depth * 100) / 8 }, (_, index) => index * 8 + 7),
        )
        t.true(a.statuses.every((status) => status === 'success'))
      }),
  },
  {
    number: 15,
    name: 'an unsignalled request that fails completes all the same',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a] = rig.pair()
        a.write(1, { length: 8, signaled: false })
        a.write(2, { length: 8, signaled: false, remoteKey: 0xdead00 })
        a.write(3, { length: 8, signaled: false })
        rig.until(() => a.done(2))
        rig.settle()
        t.deepEqual(a.ids, [2, 3])
        t.deepEqual(a.statuses, ['remote-access-error', 'flushed'])
      }),
  },
  {
    number: 16,
    name: 'on an error every outstanding request completes exactly once, the cause first, the rest flushed in order',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair()
        for (let id = 100; id < 105; id++) a.receive(id, { length: 8 })
        for (let id = 200; id < 203; id++) b.receive(id, { length: 8 })
        b.read(300, { length: 8, to: 0, remoteKey: b.memory.remoteKey ^ 0x5500 })
        for (let id = 1; id < 10; id++) {
          if (id === 4) a.write(id, { length: 8, to: 0, remoteKey: 0x12345678 })
          else a.write(id, { length: 8, to: 0, signaled: id % 2 === 0 })
        }
        rig.until(() => a.state === 'error' && b.state === 'error')
        rig.settle()
        const sends = a.completions.filter(({ id }) => id < 100)
        const failed = sends.filter(({ status }) => status !== 'success').map(({ id }) => id)
        t.deepEqual(
          failed,
          failed.toSorted((x, y) => x - y),
        )
        t.deepEqual(
          a.ids.filter((id) => id >= 100),
          [100, 101, 102, 103, 104],
        )
        t.deepEqual(
          b.ids.toSorted((x, y) => x - y),
          [200, 201, 202, 300],
        )
        t.is(new Set(a.ids).size, a.ids.length)
      }),
  },
  {
    number: 17,
    name: 'an error completion is routed by its id: nothing else of it can be used',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const first = rig.pair()
        const second = rig.anotherPair(first)
        first[0].read(2 ** 40 + 7, { length: 8, remoteKey: 1 })
        first[0].receive(2 ** 41 + 9, { length: 8 })
        second[0].write(3, { length: 8 })
        rig.until(() => first[0].done(2) && second[0].done(1))
        t.deepEqual(
          first[0].ids.toSorted((x, y) => x - y),
          [2 ** 40 + 7, 2 ** 41 + 9],
        )
        t.true(first[0].completions.every(({ queuePair }) => queuePair === first[0].queuePair.number))
        t.deepEqual(second[0].statuses, ['success'])
      }),
  },
  {
    number: 18,
    name: 'a completion queue for all outstanding requests survives the flush of all; a smaller one says that it lost some',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const limits = { sendDepth: 8, receiveDepth: 8 }
        for (const queueCapacity of [32, 31]) {
          const first = rig.pair({ limits, queueCapacity })
          const second = rig.anotherPair(first, { limits })
          const capacity = first[0].queue.capacity
          first[0].isPolling = false
          for (const [a] of [first, second]) {
            for (let id = 0; id < 8; id++) {
              a.send(id, { length: 8, signaled: false })
              a.receive(100 + id, { length: 8 })
            }
            a.toError()
          }
          const isLost = capacity < 32
          rig.settle()
          t.deepEqual(first[0].events().includes('completion-queue-error'), isLost)
          first[0].isPolling = true
          rig.settle()
          t.is(first[0].completions.length + second[0].completions.length, isLost ? capacity : 32)
          const [a, b] = rig.anotherPair(first, { limits })
          a.write(1, { length: 8 })
          rig.until(() => a.done(1))
          t.deepEqual(a.statuses, ['success'])
          t.is(b.state, 'ready-to-send')
        }
      }),
  },
  {
    number: 103,
    name: 'a full send queue refuses without loss; polling a signalled completion frees it and all before it',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a] = rig.pair({ limits: { sendDepth: 4 } })
        a.isPolling = false
        for (let id = 0; id < 4; id++) t.is(a.write(id, { length: 8, signaled: id === 2 }), 1)
        t.is(a.write(4, { length: 8 }), 0)
        t.is(a.refusal, 'full')
        rig.settle()
        a.isPolling = true
        rig.until(() => a.done(1))
        t.deepEqual(a.ids, [2])
        for (let id = 4; id < 7; id++) t.is(a.write(id, { length: 8, signaled: id === 6 }), 1)
        rig.until(() => a.done(2))
        t.deepEqual(a.ids, [2, 6])
      }),
  },
  {
    number: 104,
    name: 'a full receive queue refuses; a polled receive makes room',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a, b] = rig.pair({ limits: { receiveDepth: 3 } })
        for (let id = 0; id < 3; id++) t.is(b.receive(id, { length: 8 }), 1)
        t.is(b.receive(3, { length: 8 }), 0)
        t.is(b.refusal, 'full')
        a.send(1, { length: 8 })
        rig.until(() => b.done(1))
        t.is(b.receive(3, { length: 8 }), 1)
      }),
  },
  {
    number: 105,
    name: 'what is posted in the error state is accepted and flushed',
    only: 'soft',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const [a] = rig.pair()
        a.toError()
        t.is(a.send(1, { length: 8, signaled: false }), 1)
        t.is(a.receive(2, { length: 8 }), 1)
        t.is(a.read(3, { length: 8 }), 1)
        rig.until(() => a.done(3))
        t.deepEqual(a.ids, [1, 2, 3])
        t.true(a.statuses.every((status) => status === 'flushed'))
      }),
  },
  {
    number: 106,
    name: 'a destroyed queue pair takes its completions along and leaves those of others',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const first = rig.pair()
        const second = rig.anotherPair(first)
        first[0].isPolling = false
        for (let id = 0; id < 6; id++) (id % 2 === 0 ? first : second)[0].write(id, { length: 8 })
        rig.settle()
        first[0].destroy()
        first[0].isPolling = true
        rig.until(() => second[0].done(3))
        rig.settle()
        t.deepEqual(second[0].ids, [1, 3, 5])
        t.deepEqual(first[0].ids, [])
      }),
  },
]
