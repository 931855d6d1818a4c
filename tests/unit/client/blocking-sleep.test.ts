import test, { type ExecutionContext } from 'ava'
import { BlockingSleep } from '../../../client/blocking-sleep.js'
import { closeDescriptor, eventfdCreate, eventfdSignal } from '../../../shm/libc.js'

/** Stands for a connection: an eventfd that nobody writes never hangs up. */
function sleeper(t: ExecutionContext): { readonly bell: number; readonly sleep: BlockingSleep } {
  const bell = eventfdCreate()
  const connection = eventfdCreate()
  const sleep = new BlockingSleep(bell, connection)
  t.teardown(() => {
    sleep.close()
    closeDescriptor(bell)
    closeDescriptor(connection)
  })
  return { bell, sleep }
}

function slept(sleep: BlockingSleep, timeoutMs: number): number {
  const start = performance.now()
  sleep.sleep(timeoutMs)
  return performance.now() - start
}

test('each ring ends one sleep, also the one before the first sleep, and nothing is read', (t) => {
  const { bell, sleep } = sleeper(t)
  eventfdSignal(bell)
  t.true(slept(sleep, 5000) < 2500)
  t.true(slept(sleep, 30) >= 29)
  eventfdSignal(bell)
  eventfdSignal(bell)
  t.true(slept(sleep, 5000) < 2500)
  t.true(slept(sleep, 30) >= 29)
})

test('a sleep shorter than the clock of the kernel ends, and a closed sleeper may be closed again', (t) => {
  const { sleep } = sleeper(t)
  t.true(slept(sleep, 0.2) < 2500)
  sleep.close()
  sleep.close()
  t.pass()
})
