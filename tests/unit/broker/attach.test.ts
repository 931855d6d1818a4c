import { readdirSync } from 'node:fs'
import test from 'ava'
import { clientFingerprint } from '../../../protocol/version.js'
import { openDescriptors } from '../../support/leaks.js'
import { until } from '../../support/until.js'
import { RawClient } from './raw-client.js'
import { exists, startTestBroker } from './start-test-broker.js'

test('a client attaches and gets its number and five descriptors', async (t) => {
  const { directory, engine } = await startTestBroker(t)
  const client = new RawClient(t, directory)
  const { result, descriptors } = await client.attach()
  t.is(result.node, 'alpha')
  t.true(result.member >= 1)
  t.true(result.memberGeneration >= 1)
  t.is(descriptors.length, 5)
  t.deepEqual([...engine.objects].sort(), ['job 1', `member ${result.member}`])
})
