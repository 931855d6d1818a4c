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

/** An entry of a port's table of addresses. */
export interface Gid {
  readonly index: number
  /** Eight groups of four hexadecimal digits. */
  readonly value: string
  /** 'RoCE v2', 'IB/RoCE v1', or empty. */
  readonly type: string
}

const DEVICES = '/sys/class/infiniband'
const NODES = '/sys/class/infiniband_verbs'
const NO_GID = /^(0000:){7}0000$/

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

export function gidsOf(device: string, port: number): readonly Gid[] {
  const folder = `${DEVICES}/${device}/ports/${port}`
  return namesIn(`${folder}/gids`)
    .map((index) => ({
      index: Number(index),
      value: textOf(`${folder}/gids/${index}`),
      type: textOf(`${folder}/gid_attrs/types/${index}`),
    }))
    .filter(({ value }) => value !== '' && !NO_GID.test(value))
    .sort((a, b) => a.index - b.index)
}

const isMappedIpv4 = (gid: Gid): boolean => gid.value.startsWith('0000:0000:0000:0000:0000:ffff:')

/** 10.1.2.3 as it stands in a table of GIDs. */
export function gidOfHost(host: string): string {
  const bytes = host.split('.').map((part) => Number(part).toString(16).padStart(2, '0'))
  return `0000:0000:0000:0000:0000:ffff:${bytes[0]}${bytes[1]}:${bytes[2]}${bytes[3]}`
}

/**
 * The address that peers reach this port by. Ethernet: RoCE v2, because v1 is not routed; the one of `host`, else the first
 * with an IPv4 address, else the first. InfiniBand: the first, which is the port's own.
 */
export function chooseGid(
  gids: readonly Gid[],
  linkLayer: VerbsDeviceEntry['linkLayer'],
  host: string,
): Gid | undefined {
  if (linkLayer === 'infiniband') return gids[0]
  const routed = gids.filter((gid) => gid.type === 'RoCE v2')
  return routed.find((gid) => gid.value === gidOfHost(host)) ?? routed.find(isMappedIpv4) ?? routed[0]
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
