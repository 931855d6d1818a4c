/** The device of an engine in tests: soft, or the machine's RDMA device where $SHARED_VERBS_TEST_PROVIDER says `verbs` (tests/vm). */
import { openDevice } from '../../broker/provider/open.js'
import type { Device, DeviceCapabilities } from '../../broker/provider/provider.js'
import { openSoftDevice } from '../../broker/provider/soft-device.js'
import type { FaultHooks } from '../../broker/provider/soft-faults.js'

const isVerbs = process.env['SHARED_VERBS_TEST_PROVIDER'] === 'verbs'

/** How long everybody sleeps before it counts as an end: a device has work under way that nobody here turns. */
export const stillMs = isVerbs ? 500 : 0

/** What times of tests are multiplied by: verbs are tried in a machine that is emulated. */
export const patience = isVerbs ? 10 : 1

export function openEngineDevice(name: string, faults?: FaultHooks, limits?: Partial<DeviceCapabilities>): Device {
  if (!isVerbs) {
    return openSoftDevice({
      name: `soft-${name}`,
      host: '127.0.0.1',
      port: 0,
      poisonErrors: true,
      ...(faults === undefined ? {} : { faults }),
      ...(limits === undefined ? {} : { limits }),
    })
  }
  if (faults !== undefined || limits !== undefined) throw new Error('hooks and limits are for the soft provider only')
  const { device, failure } = openDevice({ provider: 'verbs', host: '127.0.0.1', port: 0 })
  if (failure !== null) throw new Error(failure.message)
  return device
}
