import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { closeDescriptor } from '../../../shm/libc.js'
import { createLivenessFile, LivenessMonitor } from '../../../shm/liveness.js'
import { Mapping } from '../../../shm/mapping.js'
import {
  FREE,
  type LivenessOracle,
  ownerGeneration,
  ownerMember,
  ownerWord,
  RobustLock,
  sweepLock,
  WAITERS,
} from '../../../shm/robust-lock.js'
import type { Words } from '../../../shm/words.js'
import { Child } from './fixtures/child.js'

const ME = ownerWord(1, 1)
const BROKER = ownerWord(0, 9)
const everybody: LivenessOracle = { alive: () => true }
const nobody: LivenessOracle = { alive: () => false }

function job(t: ExecutionContext): { words: Words; fds: number[]; mapping: Mapping; liveness: LivenessMonitor } {
  const mapping = Mapping.create('job', 4096)
  const file = createLivenessFile()
  const liveness = new LivenessMonitor(file)
  t.teardown(() => {
    mapping.close()
    liveness.close()
    closeDescriptor(file)
  })
  return { words: mapping.words, fds: [mapping.fd, file], mapping, liveness }
}

/** A clock that moves only when somebody sleeps, and a word array whose sleeps are scripted. */
function scripted(onSleep: (words: Int32Array) => 'woken' | 'changed' | 'timeout') {
  const array = new Int32Array(4)
  let nowMs = 0
  const calls: string[] = []
  const words: Words = {
    load: (index) => array[index]!,
    store: (index, value) => {
      array[index] = value
    },
    peek: (index) => array[index]!,
    put: (index, value) => {
      array[index] = value
    },
    compareExchange: (index, expected, replacement) => {
      const found = array[index]!
      if (found === expected) array[index] = replacement
      return found
    },
    exchange: (index, value) => {
      const found = array[index]!
      array[index] = value
      return found
    },
    add: () => 0,
    or: () => 0,
    and: () => 0,
    wait: (_index, expected, timeoutMs) => {
      calls.push(`wait ${expected >>> 0 === (expected | WAITERS) >>> 0 ? 'marked' : 'plain'} ${timeoutMs}`)
      nowMs += timeoutMs
      return onSleep(array)
    },
    wake: (_index, count) => {
      calls.push(`wake ${count}`)
      return 0
    },
  }
  return { words, array, calls, options: { nowMs: () => nowMs, spins: 0 } }
}

test('an owner word names member and generation and is never free', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2047 }), fc.integer({ min: 1, max: 0xfffff }), (member, generation) => {
      const word = ownerWord(member, generation)
      for (const seen of [word, word | WAITERS]) {
        if (ownerMember(seen) !== member || ownerGeneration(seen) !== generation) return false
      }
      return word !== FREE && (word & WAITERS) === 0
    }),
  )
  t.not(ownerWord(0, 0), FREE)
  t.not(ownerWord(0, 1 << 20), FREE)
})

test('a free lock is taken and given back without sleeping or waking', (t) => {
  const { words, calls, options } = scripted(() => 'timeout')
  const lock = new RobustLock(words, 0, everybody, options)
  t.is(lock.holder(), -1)
  t.is(lock.acquire(ME, 0), 'acquired')
  t.is(words.load(0), ME)
  t.is(lock.holder(), 1)
  t.is(lock.tryAcquire(ownerWord(2, 1)), 'busy')
  t.true(lock.release(ME))
  t.is(lock.tryAcquire(ME), 'acquired')
  t.deepEqual(calls, [])
})

test('a waiter marks the word, sleeps in slices up to its deadline and gives up on a living holder', (t) => {
  const { words, array, calls, options } = scripted(() => 'timeout')
  array[0] = ownerWord(2, 1)
  t.is(new RobustLock(words, 0, everybody, options).acquire(ME, 120), 'busy')
  t.deepEqual(calls, ['wait marked 50', 'wait marked 50', 'wait marked 20'])
  t.is(array[0], ownerWord(2, 1) | WAITERS)
})

test('who may have slept takes the lock with the waiters bit and wakes everybody when done', (t) => {
  const { words, array, calls, options } = scripted((array) => {
    array[0] = FREE
    return 'woken'
  })
  array[0] = ownerWord(2, 1)
  const lock = new RobustLock(words, 0, everybody, options)
  t.is(lock.acquire(ME, 1000), 'acquired')
  t.is(array[0], ME | WAITERS)
  t.true(lock.release(ME))
  t.deepEqual(calls, ['wait marked 50', 'wake 2147483647'])
})

test("a waiter asks the oracle only after a slice has passed, and then takes the dead owner's word", (t) => {
  const { words, array, calls, options } = scripted(() => 'timeout')
  array[0] = ownerWord(2, 1)
  t.is(new RobustLock(words, 0, nobody, options).acquire(ME, 1000), 'owner-died')
  t.is(array[0], ME | WAITERS)
  t.deepEqual(calls, ['wait marked 50'])
})

test('without time to wait, a dead owner is still replaced and a living one is not', (t) => {
  const { words, array, calls, options } = scripted(() => 'timeout')
  array[0] = ownerWord(2, 1)
  t.is(new RobustLock(words, 0, everybody, options).acquire(ME, 0), 'busy')
  t.is(new RobustLock(words, 0, nobody, options).tryAcquire(ME), 'owner-died')
  array[0] = ownerWord(2, 1)
  t.is(new RobustLock(words, 0, nobody, options).acquire(ME, 0), 'owner-died')
  t.deepEqual(calls, [])
})

test('a take-over fails when the word changed after it was judged', (t) => {
  const { words, array, options } = scripted(() => 'timeout')
  array[0] = ownerWord(2, 1)
  const oracle: LivenessOracle = {
    alive: (member) => {
      array[0] = ownerWord(3, 1)
      return member === 3
    },
  }
  t.is(new RobustLock(words, 0, oracle, options).tryAcquire(ME), 'busy')
  t.is(array[0], ownerWord(3, 1))
})

test('a release tells when somebody scribbled over the word', (t) => {
  const { words, array, options } = scripted(() => 'timeout')
  const lock = new RobustLock(words, 0, everybody, options)
  lock.acquire(ME, 0)
  array[0] = 12345
  t.false(lock.release(ME))
})

test('a spinning waiter takes the lock as soon as it is free', (t) => {
  const { words, array } = scripted(() => 'timeout')
  array[0] = ownerWord(2, 1)
  let looks = 0
  const looking: Words = {
    ...words,
    load: (index) => {
      if (++looks === 5) array[0] = FREE
      return words.load(index)
    },
  }
  t.is(new RobustLock(looking, 0, everybody, { spins: 100 }).acquire(ME, 0), 'acquired')
  t.is(array[0], ME)
})

test("the sweep repairs what the dead held under the broker's name, and wakes everybody in any case", (t) => {
  const { words, array, calls } = scripted(() => 'timeout')
  array[0] = ownerWord(2, 1) | WAITERS
  const during: number[] = []
  t.is(
    sweepLock(words, 0, 2, BROKER, () => during.push(array[0]!)),
    'repaired',
  )
  t.deepEqual(during, [BROKER | WAITERS])
  t.is(array[0], FREE)
  array[0] = ownerWord(3, 1)
  t.is(
    sweepLock(words, 0, 2, BROKER, () => t.fail('nothing to repair')),
    'untouched',
  )
  t.is(array[0], ownerWord(3, 1))
  t.deepEqual(calls, ['wake 2147483647', 'wake 2147483647'])
})

test('a writer that changes the word for ever cannot hold the sweep', (t) => {
  const { words, array } = scripted(() => 'timeout')
  const hostile: Words = { ...words, load: () => ownerWord(2, 1) }
  array[0] = ownerWord(2, 7)
  t.is(
    sweepLock(hostile, 0, 2, BROKER, () => t.fail('not ours')),
    'unstable',
  )
})

test('processes that count under the lock lose nothing', async (t) => {
  const { mapping, fds } = job(t)
  const times = 20_000
  const children = [1, 2, 3].map((member) => Child.start(t, 'lock-client.ts', fds, member, 'count', times))
  for (const child of children) {
    t.is(await child.line(), 'counting')
    t.is(await child.line(), 'counted')
  }
  t.is(mapping.memory.i32[16], 3 * times)
  t.is(mapping.words.load(0), FREE)
})

test('a holder killed with SIGKILL is replaced by a waiter that is told to repair', async (t) => {
  const { words, fds } = job(t)
  const holder = Child.start(t, 'lock-client.ts', fds, 5, 'hold')
  t.is(await holder.line(), 'holding')
  t.is(ownerMember(words.load(0)), 5)
  const waiter = Child.start(t, 'lock-client.ts', fds, 6, 'wait', 15_000)
  t.is(await waiter.line(), 'waiting')
  await holder.killed()
  t.regex(await waiter.line(), /^owner-died/)
})

test('a stopped holder is never robbed, and goes on as if nothing had happened', async (t) => {
  const { words, fds, liveness } = job(t)
  const holder = Child.start(t, 'lock-client.ts', fds, 5, 'hold')
  t.is(await holder.line(), 'holding')
  await holder.stop()
  const lock = new RobustLock(words, 0, liveness)
  t.is(lock.acquire(ME, 200), 'busy')
  t.is(lock.tryAcquire(ME), 'busy')
  t.is(ownerMember(words.load(0)), 5)
  holder.kill('SIGCONT')
  holder.say('let go')
  t.is(await holder.line(), 'released')
  t.is(lock.acquire(ME, 15_000), 'acquired')
})

test("the broker's sweep frees waiters of a killed holder at once", async (t) => {
  const { words, fds } = job(t)
  const holder = Child.start(t, 'lock-client.ts', fds, 5, 'hold')
  t.is(await holder.line(), 'holding')
  const waiter = Child.start(t, 'lock-client.ts', fds, 6, 'wait', 15_000)
  t.is(await waiter.line(), 'waiting')
  await holder.killed()
  // The waiter may be faster: its slices end every 50 ms.
  const result = sweepLock(words, 0, 5, BROKER, () => undefined)
  t.regex(await waiter.line(), result === 'repaired' ? /^acquired/ : /^owner-died/)
})

test('a waiter sleeping for the lock is woken by its release', async (t) => {
  const { fds } = job(t)
  const holder = Child.start(t, 'lock-client.ts', fds, 5, 'hold')
  t.is(await holder.line(), 'holding')
  const waiter = Child.start(t, 'lock-client.ts', fds, 6, 'wait', 15_000)
  t.is(await waiter.line(), 'waiting')
  holder.say('let go')
  t.is(await holder.line(), 'released')
  t.regex(await waiter.line(), /^acquired/)
})
