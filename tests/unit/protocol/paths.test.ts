import test from 'ava'
import {
  controlSocketPath,
  lockPath,
  nodeFilePath,
  runtimeDirectory,
  socketPathByteLength,
} from '../../../protocol/paths.js'

test("the option comes before the variable, the variable before the user's directory, that before /run", (t) => {
  const all = { SHARED_VERBS_DIR: '/of/variable', XDG_RUNTIME_DIR: '/run/user/7' }
  t.is(runtimeDirectory('/of/option', all), '/of/option')
  t.is(runtimeDirectory(undefined, all), '/of/variable')
  t.is(runtimeDirectory(undefined, { XDG_RUNTIME_DIR: '/run/user/7' }), '/run/user/7/shared-verbs')
  t.is(runtimeDirectory(undefined, {}), '/run/shared-verbs')
})

test('what is empty counts as not given', (t) => {
  t.is(runtimeDirectory('', { SHARED_VERBS_DIR: '/of/variable' }), '/of/variable')
  t.is(runtimeDirectory('', { SHARED_VERBS_DIR: '', XDG_RUNTIME_DIR: '' }), '/run/shared-verbs')
})

test('everything lies in the runtime directory under its own name', (t) => {
  const paths = [controlSocketPath('/d'), nodeFilePath('/d'), lockPath('/d')]
  t.deepEqual(paths, ['/d/broker.sock', '/d/node', '/d/broker'])
  t.is(new Set(paths).size, 3)
  t.true(controlSocketPath(runtimeDirectory(undefined, {})).length <= socketPathByteLength)
})
