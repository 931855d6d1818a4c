import { spawn } from 'node:child_process'
import test, { type ExecutionContext } from 'ava'
import { closeDescriptor, duplicate, getSeals, pidfdOpen, SEAL_SHRINK, SEAL_WRITE } from '../../../shm/libc.js'
import {
  createLivenessFile,
  LivenessMonitor,
  LivenessToken,
  watchProcess,
  watchProcessDescriptor,
} from '../../../shm/liveness.js'
import { Child, openDescriptors, stateOfProcess, until, watched } from './fixtures/child.js'

function liveness(t: ExecutionContext): { fd: number; monitor: LivenessMonitor } {
  const fd = createLivenessFile()
  const monitor = new LivenessMonitor(fd)
  t.teardown(() => {
    monitor.close()
    closeDescriptor(fd)
  })
  return { fd, monitor }
}

test('a member lives from taking its token to releasing it', (t) => {
  const { fd, monitor } = liveness(t)
  t.is(getSeals(fd) & (SEAL_SHRINK | SEAL_WRITE), SEAL_SHRINK)
  t.false(monitor.alive(3))
  const token = LivenessToken.hold(fd, 3)
  t.is(token.memberIndex, 3)
  t.true(monitor.alive(3))
  t.false(monitor.alive(2))
  t.false(monitor.alive(4))
  token.release()
  token.release()
  t.false(monitor.alive(3))
})

test('a byte has one holder, and an impossible member none', (t) => {
  const { fd } = liveness(t)
  const token = LivenessToken.hold(fd, 2047)
  const before = openDescriptors()
  t.throws(() => LivenessToken.hold(fd, 2047), { code: 'liveness-token-taken' })
  for (const member of [-1, 2048, 1.5, Number.NaN]) {
    t.throws(() => LivenessToken.hold(fd, member), { code: 'out-of-bounds' })
  }
  t.is(openDescriptors(), before)
  token.release()
})

test('the holder sees itself alive through its own monitor, even one made from a duplicate', (t) => {
  const { fd } = liveness(t)
  const token = LivenessToken.hold(fd, 1)
  const copy = duplicate(fd)
  const monitor = new LivenessMonitor(copy)
  t.true(monitor.alive(1))
  monitor.close()
  closeDescriptor(copy)
  token.release()
})

test('a monitor that knows nothing declares nobody dead', (t) => {
  const { fd } = liveness(t)
  const monitor = new LivenessMonitor(fd)
  t.true(monitor.alive(2048))
  monitor.close()
  monitor.close()
  t.true(monitor.alive(1))
})

test('a stopped process lives, a killed one is dead before anybody reaps it', async (t) => {
  const { fd, monitor } = liveness(t)
  const child = Child.start(t, 'token-holder.ts', [fd], 7)
  t.is(await child.line(), 'held')
  await child.stop()
  t.true(monitor.alive(7))
  child.kill('SIGKILL')
  await until('the token to fall', () => !monitor.alive(7))
  await child.exited
})

test('a worker thread that is terminated loses its token while its process lives', async (t) => {
  const { fd, monitor } = liveness(t)
  const child = Child.start(t, 'token-holder.ts', [fd], 8, 'worker')
  t.is(await child.line(), 'held')
  t.true(monitor.alive(8))
  child.say('end it')
  t.is(await child.line(), 'terminated')
  t.false(monitor.alive(8))
  t.true(['R', 'S'].includes(stateOfProcess(child.pid)))
})

test('a watch tells of a death once, and leaves no descriptor', async (t) => {
  const { fd } = liveness(t)
  const child = Child.start(t, 'token-holder.ts', [fd], 9)
  t.is(await child.line(), 'held')
  const before = openDescriptors()
  let deaths = 0
  const death = new Promise<void>((resolve) => {
    watchProcess(child.pid, () => {
      deaths++
      resolve()
    })
  })
  child.kill('SIGKILL')
  await watched('the death', death)
  await child.exited
  t.is(deaths, 1)
  await until('the descriptors to go', () => openDescriptors() <= before)
})

test('a process that is dead already is reported, later and once', async (t) => {
  const child = spawn(process.execPath, ['--version'], { stdio: 'ignore' })
  const pid = child.pid!
  const pidfd = pidfdOpen(pid)
  await watched('its end', new Promise((resolve) => child.once('exit', resolve)))
  let within = true
  const answer = await watched(
    'the death',
    new Promise<string>((resolve) => {
      watchProcess(pid, () => resolve(within ? 'within' : 'later'))
      within = false
    }),
  )
  t.is(answer, 'later')
  await watched('the death by descriptor', new Promise<void>((resolve) => void watchProcessDescriptor(pidfd, resolve)))
  const unwatched = watchProcess(pid, () => t.fail('closed before it told'))
  unwatched.close()
  await new Promise((resolve) => setImmediate(resolve))
  t.throws(() => watchProcess(-1, () => undefined), { code: 'EINVAL' })
})

test('a closed watch is silent', async (t) => {
  const { fd } = liveness(t)
  const child = Child.start(t, 'token-holder.ts', [fd], 10)
  t.is(await child.line(), 'held')
  const watch = watchProcess(child.pid, () => t.fail('was closed'))
  watch.close()
  watch.close()
  await child.killed()
  t.pass()
})
