/**
 * RDMA devices as the kernel lists them under /sys/class: found without the library, so that a machine without RDMA pays
 * nothing for asking.
 */
import { accessSync, constants, readdirSync, readFileSync } from 'node:fs'

export interface VerbsDeviceEntry {
  readonly name: string
  readonly port: number
  readonly isActive: boolean
  readonly linkLayer: 'ethernet' | 'infiniband'
  /** Descriptor node of the device; null when it has none. */
  readonly node: string | null
  /** Whether this process may open the node. */
  readonly isAccessible: boolean
}

const DEVICES = '/sys/class/infiniband'
const NODES = '/sys/class/infiniband_verbs'

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return ''
  }
}

function namesIn(path: string): string[] {
  try {
    return readdirSync(path).sort()
  } catch {
    return []
  }
}

function isAccessible(node: string): boolean {
  try {
    accessSync(node, constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** One entry for each port of each device, active ones first. */
export function verbsDevices(): readonly VerbsDeviceEntry[] {
  const nodes = new Map(
    namesIn(NODES).map((node) => [textOf(`${NODES}/${node}/ibdev`), `/dev/infiniband/${node}`] as const),
  )
  const entries = namesIn(DEVICES).flatMap((name) => {
    const node = nodes.get(name) ?? null
    return namesIn(`${DEVICES}/${name}/ports`).map((port) => entryOf(name, port, node))
  })
  return [...entries.filter((entry) => entry.isActive), ...entries.filter((entry) => !entry.isActive)]
}

function entryOf(name: string, port: string, node: string | null): VerbsDeviceEntry {
  const folder = `${DEVICES}/${name}/ports/${port}`
  return {
    name,
    port: Number(port),
    isActive: textOf(`${folder}/state`).startsWith('4:'),
    linkLayer: textOf(`${folder}/link_layer`) === 'InfiniBand' ? 'infiniband' : 'ethernet',
    node,
    isAccessible: node !== null && isAccessible(node),
  }
}

export function isNodePresent(node: string): boolean {
  try {
    accessSync(node)
    return true
  } catch {
    return false
  }
}

/** Counters of a port in which drivers count messages that met no posted receive. */
const NOT_READY_COUNTERS = ['send_rnr_err', 'out_of_buffer']

/** For the whole device, since it came up; 0 where the driver does not count. */
export function receiverNotReadyCount(device: string, port: number): number {
  for (const name of NOT_READY_COUNTERS) {
    const count = textOf(`${DEVICES}/${device}/ports/${port}/hw_counters/${name}`)
    if (count !== '') return Number(count)
  }
  return 0
}
