import test from 'ava'
import { systemFutex } from '../../../shm/libc.js'
import { atomic64, type Futex, SharedWords } from '../../../shm/words.js'

function words(): SharedWords {
  return new SharedWords(new Int32Array(4), 0, systemFutex)
}

test('every access returns what was there before', (t) => {
  const shared = words()
  shared.store(1, -7)
  t.is(shared.load(1), -7)
  t.is(shared.compareExchange(1, 0, 5), -7)
  t.is(shared.compareExchange(1, -7, 5), -7)
  t.is(shared.exchange(1, 6), 5)
  t.is(shared.add(1, 2), 6)
  t.is(shared.or(1, 0x30), 8)
  t.is(shared.and(1, 0x30), 0x38)
  t.is(shared.load(1), 0x30)
  t.is(shared.load(0), 0)
})

test('words wrap as signed 32-bit numbers', (t) => {
  const shared = words()
  shared.store(0, 0x7fffffff)
  shared.add(0, 1)
  t.is(shared.load(0), -(2 ** 31))
})

test('sleeping is asked of the futex, by the address of the word', (t) => {
  const asked: unknown[] = []
  const futex: Futex = {
    wait: (...call) => {
      asked.push(call)
      return 'changed'
    },
    wake: (...call) => asked.push(call),
  }
  const shared = new SharedWords(new Int32Array(4), 1000, futex)
  t.is(shared.wait(3, 9, 50), 'changed')
  t.is(shared.wake(2, 1), 2)
  t.deepEqual(asked, [
    [1012, 9, 50],
    [1008, 1],
  ])
})

test('64-bit atomics keep all bits', (t) => {
  const array = new BigInt64Array(2)
  atomic64.store(array, 1, 2n ** 62n)
  t.is(atomic64.add(array, 1, 5n), 2n ** 62n)
  t.is(atomic64.compareExchange(array, 1, 0n, 1n), 2n ** 62n + 5n)
  t.is(atomic64.compareExchange(array, 1, 2n ** 62n + 5n, -1n), 2n ** 62n + 5n)
  t.is(atomic64.load(array, 1), -1n)
})
