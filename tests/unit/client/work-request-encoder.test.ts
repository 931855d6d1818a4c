import test from 'ava'
import fc from 'fast-check'
import type { SendWorkRequest } from '../../../client/index.js'
import {
  opcodeNames,
  operationFlags,
  operationOpcode,
  operationSgeCount,
  workRequestFlag,
} from '../../../protocol/opcodes.js'
import { receiveSlot, scatterGatherEntry, sendSlot } from '../../../protocol/queue-pair-segment.js'
import { attached } from './attached.js'
import type { FakeQueuePair, Taken } from './fake-broker.js'

const unsigned32 = fc.integer({ min: 0, max: 0xffffffff })
const offset = fc.maxSafeNat()
const id = fc.maxSafeInteger()
const entry = fc.record({ key: offset, offset: unsigned32, length: unsigned32 })
const local = fc.array(entry, { maxLength: 4 })
const remote = fc.record({ key: offset, offset })
const operand = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n })
const inline = fc.uint8Array({ maxLength: 128 })
const optional = { fence: fc.boolean(), signaled: fc.boolean() }

/** A request with these fields required, and with or without the optional ones. */
const request = (
  opcode: SendWorkRequest['opcode'],
  required: Record<string, fc.Arbitrary<unknown>>,
  more: Record<string, fc.Arbitrary<unknown>> = {},
): fc.Arbitrary<Record<string, unknown>> =>
  fc
    .tuple(
      fc.record({ id, opcode: fc.constant(opcode), ...required }),
      fc.record({ ...optional, ...more }, { requiredKeys: [] }),
    )
    .map(([always, sometimes]) => ({ ...always, ...sometimes }))

/** Every kind of request, with any values that the slot can hold. */
const requests = fc.oneof(
  request('send', {}, { local, solicited: fc.boolean() }),
  request('send', { inline }),
  request('send-with-immediate', { immediate: unsigned32 }, { local }),
  request('write', { remote }, { local, replayable: fc.boolean() }),
  request('write-with-immediate', { inline, remote, immediate: unsigned32 }),
  request('read', { remote }, { local }),
  request('compare-and-swap', { local, remote, compare: operand, swap: operand }),
  request('fetch-and-add', { local, remote, add: operand }),
)

/** What a broker would read, as the request that must have been posted. */
function decode(fake: FakeQueuePair, { slot }: Taken): Record<string, unknown> {
  const found = fake.readSend(slot)
  const { memory } = fake.mapping
  const base = fake.slotOffset('send', slot)
  const first = base + sendSlot.offset.firstEntry
  const further = base + sendSlot.offset.furtherEntries
  const flags = operationFlags(found.operation)
  const count = operationSgeCount(found.operation)
  return {
    id: found.id,
    opcode: opcodeNames[operationOpcode(found.operation) as 1],
    local: Array.from({ length: count }, (_, index) => {
      const { byteLength: length, ...rest } = scatterGatherEntry.read(
        memory,
        index === 0 ? first : further + (index - 1) * scatterGatherEntry.byteLength,
      )
      return { ...rest, length }
    }),
    inline:
      (flags & workRequestFlag.inline) === 0 ? undefined : memory.u8.slice(further, further + found.inlineByteLength),
    remote: { key: found.remoteKey, offset: found.remoteOffset },
    immediate: found.immediate,
    compare: found.compare,
    swap: found.swap,
    add: found.swap,
    signaled: (flags & workRequestFlag.signaled) !== 0,
    fence: (flags & workRequestFlag.fence) !== 0,
    solicited: (flags & workRequestFlag.solicited) !== 0,
    replayable: (flags & workRequestFlag.replayable) !== 0,
  }
}

/** The same request with defaults filled in and 64-bit operands as they are stored. */
const normalised = (posted: Record<string, unknown>): Record<string, unknown> => ({
  local: [],
  inline: undefined,
  signaled: true,
  fence: false,
  solicited: false,
  replayable: false,
  ...Object.fromEntries(
    Object.entries(posted).map(([name, value]) => [name, typeof value === 'bigint' ? BigInt.asIntN(64, value) : value]),
  ),
})

test('what is read from a slot is what was posted, whatever the slot held before', async (t) => {
  const { cq, qp, fake } = await attached(t, { maxSend: 8, maxInline: 128 })
  fc.assert(
    fc.property(fc.array(requests, { minLength: 1, maxLength: 8 }), (list) => {
      t.is(qp.postSend(list as unknown as SendWorkRequest[]), list.length)
      const taken = fake.take('send')
      for (const [index, one] of taken.entries()) {
        const expected = normalised(list[index]!)
        const found = decode(fake, one)
        for (const name of Object.keys(expected)) t.deepEqual(found[name], expected[name], name)
        t.is(fake.readSend(one.slot).generation, one.generation)
        fake.complete(one)
      }
      t.is(cq.poll().length, list.length)
    }),
    { numRuns: 300 },
  )
})

test('inline true copies what local names, which may change afterwards', async (t) => {
  const { qp, fake, region } = await attached(t, { maxInline: 64 })
  region.bytes.set([1, 2, 3, 4, 5, 6, 7, 8])
  const pieces = [
    { region, offset: 4, length: 3 },
    { region, offset: 0, length: 0 },
    { region, offset: 1, length: 2 },
  ]
  qp.postSend({ id: 1, opcode: 'send', inline: true, local: pieces })
  qp.postSend({ id: 2, opcode: 'send', inline: new Uint8Array(0) })
  region.bytes.fill(0)
  const [first, second] = fake.take('send')
  t.deepEqual(decode(fake, first!)['inline'], new Uint8Array([5, 6, 7, 2, 3]))
  t.deepEqual(decode(fake, second!)['inline'], new Uint8Array(0))
})

test('a receive is read as it was posted', async (t) => {
  const { qp, fake, region } = await attached(t)
  qp.postReceive({ id: -5, local: [{ region, offset: 7, length: 2 ** 32 - 1 }] })
  const [taken] = fake.take('receive')
  const found = fake.readReceive(taken!.slot)
  t.is(found.id, -5)
  t.is(operationSgeCount(found.operation), 1)
  const entries = fake.slotOffset('receive', taken!.slot) + receiveSlot.offset.firstEntry
  t.deepEqual(scatterGatherEntry.read(fake.mapping.memory, entries), {
    key: region.localKey,
    offset: 7,
    byteLength: 2 ** 32 - 1,
  })
})
