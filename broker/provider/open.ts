/** The one place that knows which providers exist. */
import type { Device, DeviceDescription, ProviderFailure } from './provider.js'
import { openSoftDevice, type SoftDeviceOptions } from './soft-device.js'

export type ProviderKind = 'soft' | 'verbs'

/** `auto` takes the best provider that has an active device. */
export interface OpenDeviceOptions extends SoftDeviceOptions {
  readonly provider: ProviderKind | 'auto'
}

export type OpenedDevice =
  | { readonly device: Device; readonly failure: null }
  | { readonly device: null; readonly failure: ProviderFailure }

export function openDevice(options: OpenDeviceOptions): OpenedDevice {
  const { provider } = options
  if (provider === 'soft' || provider === 'auto') return openSoft(options)
  return failed('not-supported', `opening device '${options.name}' of provider '${provider}': ${VERBS_IS_MISSING}`)
}

/** Every device that could be opened here, the preferred one first. */
export function listDevices(): readonly DeviceDescription[] {
  return [{ provider: 'soft', name: 'soft0', active: true, detail: 'in software over TCP; needs no device' }]
}

const VERBS_IS_MISSING = 'it comes with the libibverbs provider, which is not built into this version'

function openSoft(options: SoftDeviceOptions): OpenedDevice {
  try {
    return { device: openSoftDevice(options), failure: null }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    return failed('unreachable', `opening soft device '${options.name}' on ${options.host}:${options.port}: ${reason}`)
  }
}

function failed(code: ProviderFailure['code'], message: string): OpenedDevice {
  return { device: null, failure: { code, message: `${code}: ${message}` } }
}
