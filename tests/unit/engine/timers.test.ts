/** Timers turned by hand. */
import test from 'ava'
import { Timers } from '../../../broker/engine/timers.js'

test('what is due runs once; what was cancelled never; new ones of a callback wait for their own time', (t) => {
  const timers = new Timers()
  const ran: string[] = []
  timers.after(0, 10, () => {
    ran.push('first')
    timers.after(10, 0, () => ran.push('of the callback'))
  })
  const cancelled = timers.after(0, 5, () => ran.push('cancelled'))
  timers.after(0, 20, () => ran.push('second'))
  t.is(timers.nextMs(0), 5)
  timers.cancel(cancelled)
  timers.cancel(cancelled)
  t.is(timers.nextMs(0), 10)
  t.is(timers.run(9), 0)
  t.is(timers.run(10), 1)
  t.deepEqual(ran, ['first'])
  t.is(timers.run(10), 1)
  t.is(timers.nextMs(10), 10)
  t.is(timers.run(1000), 1)
  t.deepEqual(ran, ['first', 'of the callback', 'second'])
  t.is(timers.nextMs(0), Number.POSITIVE_INFINITY)
})
