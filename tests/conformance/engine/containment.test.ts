/** Every way a client's request can be wrong: its own status is exact, the shared queue pair stays, the neighbour's operations succeed. */
import type { ExecutionContext } from 'ava'
import { packKey } from '../../../protocol/keys.js'
import { packOperation, workRequestFlag } from '../../../protocol/opcodes.js'
import { scatterGatherEntry, sendSlot } from '../../../protocol/queue-pair-segment.js'
import { activityLayout } from '../../../shm/activity.js'
import { Mapping } from '../../../shm/mapping.js'
import type { Memory } from '../../../shm/memory.js'
import type { TestRegion, TestSend } from '../../support/engine-node.js'
import type { End, Stage } from '../../support/engine-stage.js'
import { type EngineCase, play } from './case.js'

interface Offence {
  readonly number: string
  readonly name: string
  readonly expected: string
  request(left: End, right: End, stage: Stage): TestSend | Promise<TestSend>
}

const spoilEntry = (change: (memory: Memory, entry: number) => void) => (memory: Memory, slot: number) =>
  change(memory, slot + sendSlot.offset.firstEntry)

const spoilOperation = (operation: number) => (memory: Memory, slot: number) => {
  memory.u32[(slot + sendSlot.offset.operation) / 4] = operation
}

const send = (left: End, more: Partial<TestSend> = {}): TestSend => ({
  id: 1,
  opcode: 'send',
  local: left.at(0, 64),
  ...more,
})

const write = (left: End, key: number, offset: number, length = 64): TestSend => ({
  id: 1,
  opcode: 'write',
  local: left.at(0, length),
  remote: { key, offset },
})

/** A region of a job that the queue pairs do not belong to. */
async function foreignRegion(stage: Stage, side: 'left' | 'right'): Promise<TestRegion> {
  const node = stage[side]
  const activity = Mapping.create('activity', activityLayout.byteLength)
  await node.call('add-job', { job: 2, activity: { address: activity.address, byteLength: activity.byteLength } })
  const mapping = Mapping.create('foreign', 4096)
  const number = node.takeNumber()
  await node.call('add-region', {
    number,
    generation: 1,
    job: 2,
    span: mapping,
    descriptor: mapping.fd,
    byteLength: 4096,
    rights: 15,
  })
  return { key: packKey(number, 1), mapping }
}

const offences: readonly Offence[] = [
  {
    number: '39',
    name: 'local offset behind the end of its region',
    expected: 'local-protection-error',
    request: (left) => send(left, { local: left.at((1 << 16) - 63, 64) }),
  },
  {
    number: '39',
    name: 'local offset and length whose sum leaves 32 bits',
    expected: 'local-protection-error',
    request: (left) => send(left, { local: left.at(0xffffffff, 0xffffffff) }),
  },
  {
    number: '40',
    name: 'local region of an earlier generation',
    expected: 'local-protection-error',
    request: (left) =>
      send(left, {
        spoil: spoilEntry((memory, entry) => {
          memory.f64[(entry + scatterGatherEntry.offset.key) / 8] = left.memory.key + 2 ** 24
        }),
      }),
  },
  ...[Number.NaN, Number.POSITIVE_INFINITY, -1, 0.5, 2 ** 60, 0].map((key) => ({
    number: '40',
    name: `local key ${key}`,
    expected: 'local-protection-error',
    request: (left: End) =>
      send(left, {
        spoil: spoilEntry((memory, entry) => {
          memory.f64[(entry + scatterGatherEntry.offset.key) / 8] = key
        }),
      }),
  })),
  {
    number: '40',
    name: 'remote region of another generation',
    expected: 'remote-access-error',
    request: (left, right) => write(left, right.memory.key + 2 ** 24, 0),
  },
  ...[-1, 0.5, (1 << 16) - 63, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY].map((offset) => ({
    number: '41',
    name: `remote offset ${offset}`,
    expected: 'remote-access-error',
    request: (left: End, right: End) => write(left, right.memory.key, offset),
  })),
  ...(['read', 'write', 'write-with-immediate', 'fetch-and-add', 'compare-and-swap'] as const).map((opcode) => ({
    number: '42',
    name: `${opcode} without the remote right for it`,
    expected: 'remote-access-error',
    request: async (left: End, _right: End, stage: Stage): Promise<TestSend> => {
      const rights = { read: 11, write: 13, 'write-with-immediate': 13, 'fetch-and-add': 7, 'compare-and-swap': 7 }[
        opcode
      ]
      const region = await stage.right.region(4096, rights)
      return { id: 1, opcode, local: left.at(0, 8), remote: { key: region.key, offset: 0 } }
    },
  })),
  {
    number: '42',
    name: 'read into a region without the right to be written',
    expected: 'local-protection-error',
    request: async (_left, right, stage) => {
      const region = await stage.left.region(4096, 14)
      const remote = { key: right.memory.key, offset: 0 }
      return { id: 1, opcode: 'read', local: [{ region, offset: 0, length: 8 }], remote }
    },
  },
  {
    number: '43',
    name: 'local key of another job',
    expected: 'local-protection-error',
    request: async (left, _right, stage) =>
      send(left, { local: [{ region: await foreignRegion(stage, 'left'), offset: 0, length: 64 }] }),
  },
  {
    number: '43',
    name: 'remote key of another job',
    expected: 'remote-access-error',
    request: async (left, _right, stage) => write(left, (await foreignRegion(stage, 'right')).key, 0),
  },
  ...[5, 64, 255].map((count) => ({
    number: '44',
    name: `${count} scatter/gather entries`,
    expected: 'local-qp-error',
    request: (left: End) => send(left, { spoil: spoilOperation(packOperation(1, workRequestFlag.signaled, count)) }),
  })),
  ...[0, 8, 16, 17, 200, 255].map((operation) => ({
    number: '46',
    name: `opcode ${operation}`,
    expected: 'local-qp-error',
    request: (left: End) =>
      send(left, { spoil: spoilOperation(packOperation(operation, workRequestFlag.signaled, 1)) }),
  })),
  {
    number: '46',
    name: 'flags that do not exist',
    expected: 'local-qp-error',
    request: (left) => send(left, { spoil: spoilOperation(packOperation(1, 0xe1, 1)) }),
  },
  {
    number: '46',
    name: 'inline read',
    expected: 'local-qp-error',
    request: (left, right) => ({
      ...write(left, right.memory.key, 0),
      spoil: spoilOperation(packOperation(5, workRequestFlag.signaled | workRequestFlag.inline, 0)),
    }),
  },
  {
    number: '48',
    name: 'more bytes than a message can have',
    expected: 'local-length-error',
    request: async (_left, right, stage) => {
      // No machine maps so much for a test: the engine is told a length that its span does not have, and must refuse before it touches it.
      const number = stage.left.takeNumber()
      const span = Mapping.create('short', 4096)
      const grant = { number, generation: 1, job: 1, span, descriptor: span.fd, byteLength: 0xf0000000, rights: 15 }
      await stage.left.call('add-region', grant)
      const region = { key: packKey(number, 1), mapping: span }
      const entry = { region, offset: 0, length: 0xf0000000 }
      return {
        id: 1,
        opcode: 'write',
        local: [entry, entry, entry, entry],
        remote: { key: right.memory.key, offset: 0 },
      }
    },
  },
  ...[65, 1000, 0xffffffff].map((length) => ({
    number: '49',
    name: `${length} inline bytes`,
    expected: 'local-length-error',
    request: (left: End) =>
      send(left, {
        local: [],
        inline: new Uint8Array(8),
        spoil: (memory, slot) => {
          memory.u32[(slot + sendSlot.offset.inlineByteLength) / 4] = length
        },
      }),
  })),
]

const NEIGHBOURS = 1000

async function offend(t: ExecutionContext, stage: Stage, offence: Offence): Promise<void> {
  const [left, right] = await stage.pair()
  const [near, far] = await stage.pair()
  const lane = stage.isLocal ? null : stage.lane
  const created = stage.left.engine.device.counters.queuePairsCreated
  right.queuePair.receive({ id: 7, local: right.at(0, 64) })
  const request = await offence.request(left, right, stage)
  left.queuePair.send(request, send(left, { id: 2 }))
  await neighbourWorks(t, stage, near, far)
  await stage.completed([
    [left, 2],
    [right, 1],
  ])
  t.deepEqual(left.story, [`1 ${offence.expected}`, '2 success'], 'the offender alone, and it goes on')
  t.deepEqual(right.story, ['7 success'])
  t.is(stage.left.engine.device.counters.queuePairsCreated, created)
  if (lane) t.is(stage.lane, lane)
  t.deepEqual(
    stage.nodes.flatMap((node) => node.events),
    [],
  )
}

async function neighbourWorks(t: ExecutionContext, stage: Stage, near: End, far: End): Promise<void> {
  let sent = 0
  let received = 0
  await stage.until(() => {
    while (received < NEIGHBOURS && far.queuePair.receive({ id: received, local: far.at(0, 64) }) > 0) received++
    while (sent < received && near.queuePair.send(send(near, { id: sent })) > 0) sent++
    far.poll()
    return near.poll() >= NEIGHBOURS && far.done.length >= NEIGHBOURS
  }, 'the neighbour works')
  t.true([...near.done, ...far.done].every(({ status }) => status === 'success'))
}

const tooLong: readonly [string, number, number][] = [
  ['eager', 64, 65],
  ['in segments', 5000, 10_000],
  ['announced', 20_000, 40_000],
]

const cases: readonly EngineCase[] = [
  ...offences.map(
    (offence): EngineCase => ({
      number: offence.number,
      name: offence.name,
      where: 'both',
      run: (t, stage) => offend(t, stage, offence),
    }),
  ),
  {
    number: '44b',
    name: 'no entries and entries of length 0 are messages of length 0, or left out',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair()
      for (let id = 0; id < 3; id++) right.queuePair.receive({ id, local: [...right.at(0, 0), ...right.at(64, 64)] })
      left.fill(0, 16, 3)
      left.queuePair.send(
        send(left, { local: [] }),
        send(left, { local: [...left.at(0, 0), ...left.at(0, 0)] }),
        send(left, { local: [...left.at(0, 0), ...left.at(0, 16), ...left.at(0, 0)] }),
      )
      await stage.completed([
        [left, 3],
        [right, 3],
      ])
      t.deepEqual(
        right.done.map(({ byteLength }) => byteLength),
        [0, 0, 16],
      )
      t.true(right.holds(64, 16, 3))
    },
  },
  ...tooLong.map(
    ([how, room, length]): EngineCase => ({
      number: '45',
      name: `a message (${how}) longer than the receive: both ends are told, both queue pairs and the lane go on`,
      where: 'both',
      run: async (t, stage) => {
        const [left, right] = await stage.pair({ memoryByteLength: 1 << 18 })
        const [near, far] = await stage.pair()
        for (let id = 0; id < 4; id++) right.queuePair.receive({ id, local: right.at(id * 65_536, room) })
        for (let id = 0; id < 4; id++)
          left.queuePair.send(send(left, { id, local: left.at(0, id % 2 === 0 ? room : length) }))
        await neighbourWorks(t, stage, near, far)
        await stage.completed([
          [left, 4],
          [right, 4],
        ])
        t.deepEqual(left.story, ['0 success', '1 remote-invalid-request', '2 success', '3 remote-invalid-request'])
        t.deepEqual(right.story, ['0 success', '1 local-length-error', '2 success', '3 local-length-error'])
      },
    }),
  ),
  {
    number: '45b',
    name: 'a refused message between a large one before it and small ones behind it is told in its place',
    where: 'remote',
    run: async (t, stage) => {
      const [left, right] = await stage.pair({ memoryByteLength: 4 << 20 })
      right.queuePair.receive({ id: 0, local: right.at(0, 3 << 20) })
      for (let id = 1; id < 6; id++) right.queuePair.receive({ id, local: right.at(3 << 20, 64) })
      left.queuePair.send(
        send(left, { id: 0, local: left.at(0, 3 << 20) }),
        send(left, { id: 1, local: left.at(0, 65) }),
        ...[2, 3, 4, 5].map((id) => send(left, { id })),
      )
      await stage.completed([
        [left, 6],
        [right, 6],
      ])
      const verdicts = ['0 success', '1 remote-invalid-request', '2 success', '3 success', '4 success', '5 success']
      t.deepEqual(left.story, verdicts)
      t.deepEqual(
        right.story,
        verdicts.map((verdict) => verdict.replace('remote-invalid-request', 'local-length-error')),
      )
    },
  },
  {
    number: '45c',
    name: 'a receive whose memory is not writable or gone fails alone; its sender learns remote-operation-error',
    where: 'both',
    run: async (t, stage) => {
      const [left, right] = await stage.pair()
      const readOnly = await stage.right.region(4096, 14)
      right.queuePair.receive({ id: 0, local: [{ region: readOnly, offset: 0, length: 64 }] })
      right.queuePair.receive({ id: 1, local: right.at(0, 64) })
      left.queuePair.send(send(left, { id: 0 }), send(left, { id: 1 }))
      await stage.completed([
        [left, 2],
        [right, 2],
      ])
      t.deepEqual(left.story, ['0 remote-operation-error', '1 success'])
      t.deepEqual(right.story, ['0 local-protection-error', '1 success'])
    },
  },
]

play(cases)
