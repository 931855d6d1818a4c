/** What only the soft provider can be made to do: its fault hooks, with its record of executed requests as oracle. */
import { FaultHooks } from '../../../broker/provider/soft-faults.js'
import type { ProviderCase } from './cases.js'
import { isSame, type PairOptions, type Player, type Rig, withRig } from './rig.js'

const shortTimeout = { attributes: { timeoutExponent: 12, retryCount: 1 } }
const LONGER_THAN_TIMEOUT_MS = 60

function faultyPair(rig: Rig, options: PairOptions = shortTimeout): { a: Player; b: Player; faults: FaultHooks } {
  const faults = new FaultHooks()
  const [a, b] = rig.pair({ ...options, faults })
  return { a, b, faults }
}

const SCRIPT_LENGTH = 14
const SCRIPT_BYTES = [8, 700, 5000, 40_000, 300_000]

/** Sends, writes and reads of several lengths; each leaves a mark of its own at the peer. */
function postScript(a: Player, b: Player): void {
  for (let id = 0; id < SCRIPT_LENGTH; id++) {
    const length = SCRIPT_BYTES[id % SCRIPT_BYTES.length]!
    a.fill(id << 19, length, id + 1)
    if (id % 3 === 0) b.receive(100 + id, { at: id << 19, length })
  }
  for (let id = 0; id < SCRIPT_LENGTH; id++) {
    const span = { at: id << 19, length: SCRIPT_BYTES[id % SCRIPT_BYTES.length]!, to: id << 19, signaled: id % 4 !== 1 }
    if (id % 3 === 0) a.send(id, span)
    else if (id % 3 === 1) a.write(id, span)
    else a.read(id, { ...span, at: 15 << 19 })
  }
}

const opcodeOf = (id: number) => (id % 3 === 0 ? 'send' : id % 3 === 1 ? 'write' : 'read')

/** Says what is wrong with the verdicts of a script that was cut after `executed` requests; empty if nothing is. */
function problemOfScript(a: Player, b: Player, executed: number): string {
  const failed = a.completions.findIndex(({ status }) => status !== 'success')
  const succeeded = a.ids.slice(0, failed)
  const rest = a.completions.slice(failed)
  if (failed < 0) return 'nothing failed'
  if (succeeded.some((id) => id >= executed)) return `success of ${succeeded}, executed ${executed}`
  if (rest[0]!.status !== 'retry-exceeded') return `the cause is ${rest[0]!.status}`
  if (rest.slice(1).some(({ status }) => status !== 'flushed')) return 'the rest is not flushed'
  const expected = Array.from({ length: SCRIPT_LENGTH - rest[0]!.id }, (_, index) => rest[0]!.id + index)
  if (rest.map(({ id }) => id).join() !== expected.join()) return `failed ${rest.map(({ id }) => id)}`
  for (let id = 0; id < SCRIPT_LENGTH; id++) {
    if (opcodeOf(id) === 'read') continue
    const length = SCRIPT_BYTES[id % SCRIPT_BYTES.length]!
    if (isSame(b.slice(id << 19, length), a.slice(id << 19, length)) !== id < executed) return `effect of request ${id}`
  }
  return ''
}

export const faultCases: ProviderCase[] = [
  {
    number: 60,
    name: 'a connection that ends after any request of a script: what succeeded was executed, the rest is told once, in order',
    run: (t, factory) => {
      for (let cut = 0; cut < SCRIPT_LENGTH; cut++) {
        withRig(factory, (rig) => {
          const { a, b, faults } = faultyPair(rig)
          faults.of(b.queuePair.number).cutAfterExecuting = cut
          postScript(a, b)
          rig.settle()
          rig.pass(LONGER_THAN_TIMEOUT_MS)
          t.deepEqual(
            faults.executed.map(({ opcode }) => opcode),
            Array.from({ length: cut + 1 }, (_, id) => opcodeOf(id)),
          )
          t.is(problemOfScript(a, b, cut + 1), '', `cut after request ${cut}`)
          t.is(b.state, 'ready-to-send', 'the responder sees nothing of it')
        })
      }
    },
  },
  {
    number: 61,
    name: 'a write that is cut in the middle has changed a prefix only, and does not succeed',
    run: (t, factory) => {
      for (const [length, byteLength] of [
        [64, 0],
        [64, 10],
        [5000, 4096],
        [1 << 20, 100],
        [1 << 20, 700_001],
      ] as const) {
        withRig(factory, (rig) => {
          const { a, b, faults } = faultyPair(rig)
          faults.of(b.queuePair.number).partialWriteThenCut = { request: 1, byteLength }
          a.fill(0, length, 9)
          a.write(0, { length: 8, to: 4 << 20 })
          rig.until(() => a.done(1))
          a.write(1, { length, to: 0 })
          a.write(2, { length: 8, to: 5 << 20 })
          rig.settle()
          rig.pass(LONGER_THAN_TIMEOUT_MS)
          t.deepEqual(a.statuses, ['success', 'retry-exceeded', 'flushed'])
          t.true(isSame(b.slice(0, byteLength), a.slice(0, byteLength)))
          t.true(b.slice(byteLength, length - byteLength).every((byte) => byte === 0))
          t.is(faults.executed.length, 1)
        })
      }
    },
  },
  {
    number: 150,
    name: 'requests whose answers are lost are executed and do not succeed',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const { a, b, faults } = faultyPair(rig)
        a.write(0, { length: 8 })
        rig.until(() => a.done(1))
        faults.of(b.queuePair.number).dropAcknowledgements = true
        b.receive(9, { length: 8 })
        a.write(1, { length: 8 })
        a.send(2, { length: 8 })
        a.read(3, { length: 8 })
        rig.until(() => b.done(1))
        b.write(8, { length: 8 })
        rig.pass(LONGER_THAN_TIMEOUT_MS)
        t.deepEqual(a.statuses, ['success', 'retry-exceeded', 'flushed', 'flushed'])
        t.deepEqual(b.statuses, ['success', 'success'], 'its own requests are answered')
        t.is(faults.executed.length, 4)
      }),
  },
  {
    number: 151,
    name: 'a responder that stands still executes nothing; when it goes on in time nobody notices',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const { a, b, faults } = faultyPair(rig, { attributes: { timeoutExponent: 18, retryCount: 6 } })
        const hooks = faults.of(b.queuePair.number)
        hooks.stopExecuting = true
        for (let id = 0; id < 20; id++) a.write(id, { length: 300_000 })
        rig.pass(500)
        t.is(faults.executed.length, 0)
        t.deepEqual(a.ids, [])
        hooks.stopExecuting = false
        rig.until(() => a.done(20))
        t.true(a.statuses.every((status) => status === 'success'))
      }),
  },
  {
    number: 152,
    name: 'delay delays',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const { a, b, faults } = faultyPair(rig, {})
        a.write(0, { length: 8 })
        rig.until(() => a.done(1))
        rig.settle()
        faults.of(b.queuePair.number).delayMs = 50
        a.write(1, { length: 8 })
        rig.pass(40)
        t.false(a.done(2))
        rig.pass(40)
        rig.until(() => a.done(2))
        t.is(a.statuses[1], 'success')
      }),
  },
  {
    number: 73,
    name: 'a device that vanishes gives no completion and no event, takes no request, and its peer runs into the timeout',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const { a, b, faults } = faultyPair(rig)
        a.write(0, { length: 8 })
        rig.until(() => a.done(1))
        b.receive(1, { length: 8 })
        b.write(2, { length: 8 })
        faults.vanish()
        a.write(1, { length: 8 })
        t.is(b.write(3, { length: 8 }), 0)
        t.is(b.refusal, 'dead')
        rig.pass(LONGER_THAN_TIMEOUT_MS)
        t.deepEqual(b.completions, [])
        t.deepEqual(b.events(), [])
        t.false(b.device.port().active)
        t.deepEqual(a.statuses, ['success', 'retry-exceeded'])
        const { failure } = rig.attempt((done) => b.device.createCompletionQueue(8, done))
        t.is(failure?.code, 'device-gone')
      }),
  },
  {
    number: 153,
    name: 'an overrun completion queue loses one completion, says so once, and goes on',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const faults = new FaultHooks()
        const [a, b] = rig.pair({ faults })
        for (let id = 0; id < 3; id++) b.receive(id, { length: 8 })
        faults.overrunCompletionQueue(b.queue)
        for (let id = 0; id < 3; id++) a.send(id, { length: 8 })
        rig.until(() => a.done(3) && b.done(2))
        t.deepEqual(b.ids, [1, 2])
        t.deepEqual(b.events(), ['completion-queue-error'])
      }),
  },
  {
    number: 159,
    name: 'a queue pair whose peer does not read is parked alone',
    run: (t, factory) =>
      withRig(factory, (rig) => {
        const faults = new FaultHooks()
        const attributes = { timeoutExponent: 20 }
        const first = rig.pair({ faults, memoryByteLength: 16 << 20, attributes })
        const second = rig.anotherPair(first, { attributes })
        faults.of(first[1].queuePair.number).stopExecuting = true
        for (let id = 0; id < 20; id++) first[0].write(id, { length: 8 << 20 })
        for (let id = 0; id < 300; id++) {
          rig.until(() => second[0].write(id, { length: 10_000 }) === 1)
          rig.until(() => second[0].done(id + 1))
        }
        t.is(first[0].completions.length, 0)
        const calls = first[0].device.counters.systemCalls
        for (let turn = 0; turn < 1000; turn++) first[0].device.progress(rig.nowMs)
        t.true(first[0].device.counters.systemCalls - calls < 1500, 'a full socket is not asked again and again')
        faults.of(first[1].queuePair.number).stopExecuting = false
        rig.until(() => first[0].done(20))
        t.true(first[0].statuses.every((status) => status === 'success'))
      }),
  },
]
