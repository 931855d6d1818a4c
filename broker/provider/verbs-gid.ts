/** Addresses of a port (GIDs), and which of them peers reach it by. */

/** An entry of a port's table of addresses. */
export interface Gid {
  readonly index: number
  /** Eight groups of four hexadecimal digits. */
  readonly value: string
  /** RoCE v2, the one that is routed: IP and UDP below it. */
  readonly isRouted: boolean
}

/** As the kernel prints it. */
export function gidText(bytes: Uint8Array): string {
  return Buffer.from(bytes)
    .toString('hex')
    .replace(/(.{4})(?=.)/g, '$1:')
}

const GID = /^([0-9a-f]{4}:){7}[0-9a-f]{4}$/

export const isGid = (value: unknown): value is string => typeof value === 'string' && GID.test(value)

export function gidBytes(gid: string): Uint8Array {
  return Buffer.from(gid.replaceAll(':', ''), 'hex')
}

const MAPPED = '0000:0000:0000:0000:0000:ffff:'

/** 10.1.2.3 as it stands in a table of GIDs. */
export function gidOfHost(host: string): string {
  return MAPPED + gidText(Uint8Array.from(host.split('.'), Number))
}

/**
 * The one of `index` if there is one. Ethernet: a routed one; the one of `host`, else the first with an IPv4 address, else the first. InfiniBand: the first,
 * which is the port's own.
 */
export function chooseGid(
  gids: readonly Gid[],
  linkLayer: 'ethernet' | 'infiniband',
  host: string,
  index: number | null = null,
): Gid | undefined {
  if (index !== null) return gids.find((gid) => gid.index === index)
  if (linkLayer === 'infiniband') return gids[0]
  const routed = gids.filter((gid) => gid.isRouted)
  const isMapped = (gid: Gid): boolean => gid.value.startsWith(MAPPED)
  return routed.find((gid) => gid.value === gidOfHost(host)) ?? routed.find(isMapped) ?? routed[0]
}
