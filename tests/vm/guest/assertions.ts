/** The assertions of ava that the provider cases use, without ava: its start costs half a minute in the slow machine. */
import assert from 'node:assert/strict'
import type { ExecutionContext } from 'ava'

type Used = Pick<ExecutionContext, 'is' | 'not' | 'true' | 'false' | 'deepEqual' | 'fail' | 'pass'>

/** A regular function for each assertion; ava's have more besides, which the cases do not use. */
const used = {
  is: (actual: unknown, expected: unknown, message?: string) =>
    assert.ok(Object.is(actual, expected), differ(actual, expected, message)),
  not: (actual: unknown, expected: unknown, message?: string) =>
    assert.ok(!Object.is(actual, expected), message ?? `${actual} twice`),
  true: (actual: unknown, message?: string) => assert.equal(actual, true, message),
  false: (actual: unknown, message?: string) => assert.equal(actual, false, message),
  deepEqual: (actual: unknown, expected: unknown, message?: string) =>
    assert.deepEqual(actual, expected, differ(JSON.stringify(actual), JSON.stringify(expected), message)),
  fail: (message?: string) => assert.fail(message),
  pass: () => {},
}

function differ(actual: unknown, expected: unknown, message = ''): string {
  return `${message === '' ? '' : `${message}: `}${actual} instead of ${expected}`
}

export const assertions = used as unknown as Used as ExecutionContext
