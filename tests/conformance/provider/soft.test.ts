/** The provider cases on the soft provider, and the cases that its fault hooks make possible. */
import test from 'ava'
import { openSoftDevice } from '../../../broker/provider/soft-device.js'
import { providerCases } from './cases.js'
import { softCases } from './cases-soft.js'
import type { DeviceFactory } from './rig.js'

const soft: DeviceFactory = {
  provider: 'soft',
  clockMs: null,
  open: (name, faults) =>
    openSoftDevice({
      name,
      host: '127.0.0.1',
      port: 0,
      poisonErrors: true,
      ...(faults === undefined ? {} : { faults }),
    }),
}

for (const { number, name, run } of [...providerCases, ...softCases]) {
  test(`${number} ${name}`, (t) => run(t, soft))
}
