import test from 'ava'
import { promisesNoEffect, type Status, status, statusName, statusNames } from '../../../protocol/statuses.js'

const all = Object.values(status) as Status[]

test('each status has a number and a name of its own', (t) => {
  t.is(new Set(all).size, all.length)
  t.is(statusNames.length, all.length)
  t.deepEqual(new Set(all.map(statusName)), new Set(statusNames))
  for (const name of statusNames) t.regex(name, /^[a-z]+(-[a-z]+)*$/)
  t.is(statusName(status.success), 'success')
  t.is(status.success, 0, 'a word of zeroes reads as success with nothing done')
})

test('numbers are those of the verbs where the verbs have the status', (t) => {
  // ibv_wc_status in ibv_poll_cq(3)
  t.like(status, {
    localLengthError: 1,
    localQueuePairError: 2,
    localProtectionError: 4,
    flushed: 5,
    remoteInvalidRequest: 9,
    remoteAccessError: 10,
    remoteOperationError: 11,
    retryExceeded: 12,
    rnrRetryExceeded: 13,
    generalError: 21,
  })
})

test('a number that is no status reads as a general error', (t) => {
  for (const value of [3, 6, 33, -1, 0.5, 2 ** 32, Number.NaN]) t.is(statusName(value), 'general-error')
})

test('only statuses that prove it promise that nothing happened', (t) => {
  const promised = all.filter(promisesNoEffect).map(statusName).sort()
  t.deepEqual(promised, [
    'flushed',
    'local-length-error',
    'local-protection-error',
    'local-qp-error',
    'remote-access-error',
    'rnr-retry-exceeded',
  ])
})
