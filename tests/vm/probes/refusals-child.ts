/** Opens the device and registers a mebibyte, as whoever this process is; tells how that went in one line. */
import { openDevice } from '../../../broker/provider/open.js'
import type { ProtectionDomain, ProviderFailure } from '../../../broker/provider/provider.js'
import { mapAnonymous } from '../../../shm/libc.js'

const BYTES = 1 << 20

function attempt(): string {
  const { device, failure } = openDevice({ provider: 'verbs', host: '127.0.0.1', port: 0 })
  if (failure !== null) return failure.message
  const told: ProviderFailure[] = []
  let domain: ProtectionDomain | null = null
  device.allocateProtectionDomain((refused, result) => {
    if (refused !== null) told.push(refused)
    domain = result
  })
  const rights = { localWrite: true, remoteRead: false, remoteWrite: false }
  if (domain !== null) {
    device.registerMemory(domain, mapAnonymous(BYTES), BYTES, rights, (refused) => {
      if (refused !== null) told.push(refused)
    })
  }
  device.close()
  return told[0]?.message ?? 'registered'
}

console.log(attempt())
