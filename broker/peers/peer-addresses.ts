/**
 * Where other nodes are: what the operator said, else the peers file, else what the node itself said on an earlier link (kept in the
 * node file), else the name itself as the resolver knows it. The file is
 * read again whenever a name is asked for, so that nodes can be added without a restart.
 */
import { readFileSync } from 'node:fs'
import { SharedVerbsError } from '../../protocol/errors.js'

export interface PeerAddress {
  readonly host: string
  readonly port: number
}

/** Port of the control link where none is named. */
export const defaultLinkPort = 7471
const LONGEST_FILE_BYTES = 1 << 20

export class PeerAddresses {
  readonly #told = new Map<string, PeerAddress>()
  readonly #learned = new Map<string, PeerAddress>()
  readonly #file: string | null

  /** Throws `invalid-argument` for an address that makes no sense. */
  constructor(peers: Readonly<Record<string, string>>, file: string | null) {
    for (const [name, address] of Object.entries(peers)) this.set(name, address)
    this.#file = file
  }

  get names(): string[] {
    return [...this.#told.keys()]
  }

  set(name: string, address: string): void {
    this.#told.set(name, parseAddress(address, name))
  }

  /** Where a peer said that it listens, or where an earlier broker of this node found it. */
  learn(name: string, address: PeerAddress): void {
    if (address.port > 0 && address.host !== '') this.#learned.set(name, address)
  }

  find(name: string): PeerAddress {
    const known = this.#told.get(name) ?? this.#fromFile(name) ?? this.#learned.get(name)
    return known ?? { host: name, port: defaultLinkPort }
  }

  #fromFile(name: string): PeerAddress | undefined {
    if (this.#file === null) return undefined
    for (const line of readLines(this.#file)) {
      const [found, address] = line.replace(/#.*/, '').trim().split(/\s+/)
      if (found === name && address !== undefined) return parseAddress(address, name)
    }
    return undefined
  }
}

/** A file that is not there yet says nothing. */
function readLines(file: string): string[] {
  try {
    return readFileSync(file, 'utf8').slice(0, LONGEST_FILE_BYTES).split('\n')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw new SharedVerbsError('access-denied', `cannot read the peers file ${file}`, { file }, error)
  }
}

/** 'host', 'host:port' or '[IPv6 address]:port'. */
export function parseAddress(text: string, name: string): PeerAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+))(?::(\d{1,5}))?$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = match?.[3] === undefined ? defaultLinkPort : Number(match[3])
  if (host !== undefined && port >= 1 && port <= 65535) return { host, port }
  throw new SharedVerbsError(
    'invalid-argument',
    `address '${text}' of node ${name} is not host:port; write for example ${name}.example:${defaultLinkPort}`,
    { node: name, address: text },
  )
}

export const printAddress = ({ host, port }: PeerAddress): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
