/** The one place that knows which providers exist. */
import { type Device, type DeviceDescription, noPathChoice, type PathChoice, type ProviderFailure } from './provider.js'
import { openSoftDevice, type SoftDeviceOptions } from './soft-device.js'
import { openVerbsDevice } from './verbs-device.js'
import { type VerbsDeviceEntry, verbsDevices } from './verbs-inventory.js'
import { libraryRefusal, verbsLibrary } from './verbs-library.js'

export type ProviderKind = 'soft' | 'verbs'

/** `auto` takes the best provider that has an active device. */
export interface OpenDeviceOptions extends Omit<SoftDeviceOptions, 'name'> {
  readonly provider: ProviderKind | 'auto'
  /** Default: the first device that can be used. */
  readonly name?: string
  readonly path?: PathChoice
}

export type OpenedDevice =
  | { readonly device: Device; readonly failure: null }
  | { readonly device: null; readonly failure: ProviderFailure }

const SOFT_NAME = 'soft0'

export function openDevice(options: OpenDeviceOptions): OpenedDevice {
  const { provider, name } = options
  if (provider === 'soft') return openSoft(options)
  const { port } = options.path ?? noPathChoice
  const isMeant = (entry: VerbsDeviceEntry): boolean =>
    (name === undefined || entry.name === name) && (port === null || entry.port === port)
  const entries = verbsDevices().filter(isMeant)
  if (provider === 'verbs') return openVerbs(entries[0], options)
  const usable = entries.find(isUsable)
  return usable === undefined ? openSoft(options) : openVerbs(usable, options)
}

/** Every device that could be opened here, the preferred one first. */
export function listDevices(): readonly DeviceDescription[] {
  const soft: DeviceDescription = {
    provider: 'soft',
    name: SOFT_NAME,
    active: true,
    detail: 'in software over TCP; needs no device',
  }
  return [...verbsDevices().map(describeVerbs), soft]
}

/** A container may see devices of its host that it has no node for: those are not for this process. */
function isUsable(entry: VerbsDeviceEntry): boolean {
  return entry.isActive && entry.isAccessible && verbsLibrary() !== null
}

function describeVerbs(entry: VerbsDeviceEntry): DeviceDescription {
  const { name, port, linkLayer, node, isAccessible } = entry
  const obstacle = isAccessible
    ? ''
    : node === null
      ? '; it has no node in /dev/infiniband'
      : `; no permission for ${node}`
  return { provider: 'verbs', name, active: isUsable(entry), detail: `port ${port}, ${linkLayer}${obstacle}` }
}

function openVerbs(entry: VerbsDeviceEntry | undefined, { name, host, path }: OpenDeviceOptions): OpenedDevice {
  const attempted = `opening ${name === undefined ? 'a device' : `device '${name}'`} of provider 'verbs'`
  if (verbsLibrary() === null) return failed('not-supported', `${attempted}: ${libraryRefusal()}`)
  if (entry === undefined)
    return failed('not-supported', `${attempted}: libibverbs is here, but no such RDMA device or port`)
  if (entry.node === null) return failed('not-supported', `${attempted}: ${entry.name} has no node in /dev/infiniband`)
  if (!entry.isAccessible) return failed('permission', `${attempted}: ${entry.node} may not be read and written`)
  const opened = openVerbsDevice({ entry, host, path: path ?? noPathChoice })
  return 'code' in opened ? { device: null, failure: opened } : { device: opened, failure: null }
}

function openSoft(options: OpenDeviceOptions): OpenedDevice {
  const { name = SOFT_NAME, host, port } = options
  try {
    return { device: openSoftDevice({ ...options, name }), failure: null }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    return failed('unreachable', `opening soft device '${name}' on ${host}:${port}: ${reason}`)
  }
}

function failed(code: ProviderFailure['code'], message: string): OpenedDevice {
  return { device: null, failure: { code, message: `${code}: ${message}` } }
}
