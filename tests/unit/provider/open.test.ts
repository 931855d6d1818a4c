import test from 'ava'
import { listDevices, openDevice } from '../../../broker/provider/open.js'

const options = { name: 'soft0', host: '127.0.0.1', port: 0 }

test('soft and auto open the soft provider', (t) => {
  for (const provider of ['soft', 'auto'] as const) {
    const { device, failure } = openDevice({ ...options, provider })
    t.is(failure, null)
    t.is(device?.kind, 'soft')
    t.is(device?.port().linkLayer, 'tcp')
    t.true(device?.port().active)
    device?.close()
  }
})

test('verbs without its library or such a device says what is missing', (t) => {
  const { device, failure } = openDevice({ ...options, provider: 'verbs' })
  t.is(device, null)
  t.is(failure?.code, 'not-supported')
  t.regex(failure?.message ?? '', /libibverbs/)
})

test('a port that is taken is a failure, not an exception', (t) => {
  const first = openDevice({ ...options, provider: 'soft' })
  const port = Number(first.device?.port().address.split(':')[1])
  const second = openDevice({ ...options, port, provider: 'soft' })
  t.is(second.failure?.code, 'unreachable')
  t.regex(second.failure?.message ?? '', /EADDRINUSE/)
  first.device?.close()
})

test('the soft device is always listed', (t) => {
  t.true(listDevices().some(({ provider, active }) => provider === 'soft' && active))
})
