import test, { type ExecutionContext } from 'ava'
import { Doorbell } from '../../../shm/doorbell.js'
import { eventfdSignal } from '../../../shm/libc.js'
import { Mapping } from '../../../shm/mapping.js'
import { Child, openDescriptors, until, watched } from './fixtures/child.js'

function bell(t: ExecutionContext): Doorbell {
  const made = Doorbell.create()
  t.teardown(() => made.close())
  return made
}

test('rings are remembered until they are drained', (t) => {
  const door = bell(t)
  t.false(door.drain())
  door.ring()
  door.ring()
  t.true(door.drain())
  t.false(door.drain())
})

test('a blocking wait ends by a ring from before, or at its deadline', (t) => {
  const door = bell(t)
  t.is(door.wait(2), 'timeout')
  door.ring()
  t.is(door.wait(15_000), 'rung')
  t.is(door.wait(0), 'timeout')
})

test('an asynchronous wait ends by a ring, a deadline or an abort', async (t) => {
  const door = bell(t)
  const rung = door.waitAsync({ timeoutMs: 15_000 })
  door.ring()
  t.is(await rung, 'rung')
  t.is(await door.waitAsync({ timeoutMs: 1 }), 'timeout')
  t.is(await door.waitAsync({ timeoutMs: -1 }), 'timeout')
  const controller = new AbortController()
  const aborted = door.waitAsync({ signal: controller.signal })
  controller.abort()
  t.is(await aborted, 'aborted')
  t.is(await door.waitAsync({ signal: controller.signal }), 'aborted')
  t.false(door.drain())
})

test('a ring before the wait is not lost, and a ring after the drain ends the next wait', async (t) => {
  const door = bell(t)
  door.ring()
  t.is(await watched('the ring', door.waitAsync()), 'rung')
  const pending = door.waitAsync({ timeoutMs: 15_000 })
  eventfdSignal(door.fd)
  t.is(await pending, 'rung')
})

test('one ring ends every wait of the thread, whoever drains it', async (t) => {
  const door = bell(t)
  const waits = [door.waitAsync(), door.waitAsync({ timeoutMs: 15_000 }), door.waitAsync()]
  door.ring()
  t.deepEqual(await watched('all waits', Promise.all(waits)), ['rung', 'rung', 'rung'])
  const pending = door.waitAsync()
  door.ring()
  t.true(door.drain())
  t.is(await watched('the wait of a drained ring', pending), 'rung')
})

test('closing ends the waits and makes later use harmless', async (t) => {
  const door = Doorbell.create()
  const pending = door.waitAsync()
  door.close()
  door.close()
  t.is(await pending, 'aborted')
  t.is(await door.waitAsync(), 'aborted')
  t.is(door.wait(1000), 'timeout')
  t.false(door.drain())
  t.notThrows(() => door.ring())
})

test('many waits in a row leave no descriptor, timer or listener behind', async (t) => {
  const door = bell(t)
  const controller = new AbortController()
  await door.waitAsync({ timeoutMs: 0 })
  const descriptors = openDescriptors()
  const active = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
  const timers = active()
  for (let round = 0; round < 3000; round++) {
    const pending = door.waitAsync({ timeoutMs: 15_000, signal: controller.signal })
    door.ring()
    if ((await pending) !== 'rung') t.fail(`round ${round}`)
  }
  t.true(openDescriptors() <= descriptors)
  t.true(active() <= timers)
})

test('a pending wait survives the collection of everything that is not reachable', async (t) => {
  const { setFlagsFromString } = await import('node:v8')
  const { runInNewContext } = await import('node:vm')
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  let fd = -1
  const start = (): Promise<string> => {
    const forgotten = Doorbell.create()
    fd = forgotten.fd
    return forgotten.waitAsync().then((result) => {
      forgotten.close()
      return result
    })
  }
  const pending = start()
  for (let round = 0; round < 5; round++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
  }
  eventfdSignal(fd)
  t.is(await watched('the forgotten wait', pending), 'rung')
})

for (const how of ['bell', 'bell-async']) {
  test(`a process that sleeps on its bell (${how}) is woken by another`, async (t) => {
    const mapping = Mapping.create('bell', 4096)
    t.teardown(() => mapping.close())
    const door = bell(t)
    const child = Child.start(t, 'sleeper.ts', [mapping.fd, door.fd], how)
    await until('the sleeper', () => mapping.words.load(1) === 1)
    door.ring()
    t.is(await child.line(), 'rung')
    await watched('its end', child.exited)
  })
}
