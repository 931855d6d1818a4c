/** What a verbs device holds, over a library that is played: mapped pages stand for the structures that the real one gives. */
import test from 'ava'
import type { Done, ProviderFailure } from '../../../broker/provider/provider.js'
import { ibvCompletionQueue, ibvMemoryRegion } from '../../../broker/provider/verbs-abi.js'
import type { VerbsContext } from '../../../broker/provider/verbs-context.js'
import { VerbsHoldings } from '../../../broker/provider/verbs-holdings.js'
import type { VerbsMemory } from '../../../broker/provider/verbs-objects.js'
import { mapAnonymous, munmap, view } from '../../../shm/libc.js'

const rights = { localWrite: true, remoteRead: true, remoteWrite: true }
const MEBIBYTE = 1 << 20

/** A device as far as holdings ask it; counts what it still has. */
class PlayedDevice {
  readonly living = new Set<number>()
  readonly aside: ((result: number) => void)[] = []
  refusesMemory = false
  #lastKey: number

  constructor(firstKey: number) {
    this.#lastKey = firstKey
  }

  get context(): VerbsContext {
    const release = (pointer: number): number => {
      if (!this.living.delete(pointer)) return 22
      munmap(pointer, 4096)
      return 0
    }
    const library = {
      freeDomain: release,
      destroyQueue: release,
      deregisterMemory: release,
      registerMemory: () => (this.refusesMemory ? 0 : this.register()),
      registerMemoryAside: (_: readonly number[], done: (result: number) => void) => this.aside.push(done),
    }
    const played = {
      library,
      allocateDomain: () => this.#make(),
      createQueue: (capacity: number) => this.#queue(capacity),
    }
    return played as unknown as VerbsContext
  }

  register(): number {
    const pointer = this.#make()
    const fields = new DataView(view(pointer, ibvMemoryRegion.byteLength))
    fields.setUint32(ibvMemoryRegion.lkey, ++this.#lastKey, true)
    fields.setUint32(ibvMemoryRegion.rkey, this.#lastKey + 1000, true)
    return pointer
  }

  #make(): number {
    const pointer = mapAnonymous(4096)
    this.living.add(pointer)
    return pointer
  }

  #queue(capacity: number): number {
    const pointer = this.#make()
    new DataView(view(pointer, ibvCompletionQueue.byteLength)).setInt32(ibvCompletionQueue.cqe, capacity, true)
    return pointer
  }
}

const newCounters = () => ({
  ...{ queuePairs: 0, queuePairsCreated: 0, memoryRegions: 0, messagesSent: 0, bytesSent: 0, bytesReceived: 0 },
  ...{ receiverNotReady: 0, systemCalls: 0 },
})

/** The answer of a control call, or nothing yet. */
function answerOf<Result>(call: (done: Done<Result>) => void): {
  failure?: ProviderFailure | null
  result?: Result | null
} {
  const answer: { failure?: ProviderFailure | null; result?: Result | null } = {}
  call((failure, result) => Object.assign(answer, { failure, result }))
  return answer
}

function hold(device: PlayedDevice) {
  const { context } = device
  const counters = newCounters()
  const holdings = new VerbsHoldings(context, counters)
  const domain = answerOf((done: Done<{ handle: number }>) => holdings.allocateDomain(context, done)).result!
  const queue = answerOf((done: Parameters<VerbsHoldings['createQueue']>[2]) => holdings.createQueue(context, 16, done))
    .result!
  const register = (byteLength: number) =>
    answerOf((done: Done<VerbsMemory>) => holdings.registerMemory(context, domain, 4096, byteLength, rights, done))
  return { context, counters, holdings, domain, queue, register }
}

test('a device that comes back has everything again, under other keys, and old handles serve', (t) => {
  const gone = new PlayedDevice(10)
  const { holdings, domain, queue, register, counters } = hold(gone)
  const memory = register(MEBIBYTE).result!
  t.deepEqual([memory.localKey, memory.remoteKey, holdings.starts.get(memory.localKey)], [11, 1011, 4096])
  holdings.leave()
  t.is(gone.living.size, 0)
  t.is(holdings.starts.size, 0)
  const back = new PlayedDevice(50)
  t.is(holdings.enter(back.context), null)
  t.deepEqual([memory.localKey, memory.remoteKey, holdings.starts.get(51)], [51, 1051, 4096])
  t.true(back.living.has(queue.pointer))
  t.is(counters.memoryRegions, 1)
  t.is(answerOf((done: Done<true>) => holdings.deregisterMemory(memory, done)).result, true)
  t.is(answerOf((done: Done<true>) => holdings.destroyQueue(queue, done)).result, true)
  t.is(answerOf((done: Done<true>) => holdings.freeDomain(domain, false, done)).result, true)
  t.is(back.living.size, 0)
})

test('what is given up while the device is away is not made again', (t) => {
  const gone = new PlayedDevice(10)
  const { holdings, domain, queue, register } = hold(gone)
  const memory = register(MEBIBYTE).result!
  holdings.leave()
  for (const answer of [
    answerOf((done: Done<true>) => holdings.deregisterMemory(memory, done)),
    answerOf((done: Done<true>) => holdings.destroyQueue(queue, done)),
    answerOf((done: Done<true>) => holdings.freeDomain(domain, false, done)),
  ]) {
    t.is(answer.result, true)
  }
  const back = new PlayedDevice(50)
  t.is(holdings.enter(back.context), null)
  t.is(back.living.size, 0)
})

test('a device that comes back but refuses memory is left as it was found, and may be tried again', (t) => {
  const { holdings, register } = hold(new PlayedDevice(10))
  const memory = register(MEBIBYTE).result!
  register(MEBIBYTE)
  holdings.leave()
  const back = new PlayedDevice(50)
  back.refusesMemory = true
  t.not(holdings.enter(back.context), null)
  t.is(back.living.size, 0)
  back.refusesMemory = false
  t.is(holdings.enter(back.context), null)
  t.is(memory.localKey, 51)
  t.is(back.living.size, 4)
})

test('long memory is registered aside: its domain stays, the device is not closed under it, and its failure is told', (t) => {
  const device = new PlayedDevice(10)
  const { holdings, domain, register, counters } = hold(device)
  const pending = register(64 * MEBIBYTE)
  t.deepEqual(pending, {})
  t.is(holdings.pending, 1)
  t.is(answerOf((done: Done<true>) => holdings.freeDomain(domain, false, done)).failure?.code, 'invalid')
  device.aside.shift()!(device.register())
  t.is(holdings.pending, 0)
  t.is(pending.result?.localKey, 11)
  const refused = register(64 * MEBIBYTE)
  device.refusesMemory = true
  device.aside.shift()!(0)
  t.regex(refused.failure?.message ?? '', /registering 67108864 bytes/)
  t.is(counters.memoryRegions, 1)
})
