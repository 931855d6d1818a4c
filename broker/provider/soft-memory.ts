/**
 * Registered memory: keys to regions in one step.
 *
 *   local key    index << 8 | random 8 bits
 *   remote key   (index ^ mask) << 8 | other random 8 bits, mask random for each device
 *
 * A key is only as good as its random bits (as on real devices): it keeps stale and mistaken keys out, not an attacker who
 * may try often. A slot is used again last of all, with new random bits that differ from its previous ones.
 */
import { view } from '../../shm/libc.js'
import { Memory } from '../../shm/memory.js'
import type { MemoryFile, MemoryRights, RegisteredMemory } from './provider.js'
import { NO_FILE } from './soft-output.js'

const INDEX_BITS = 24
/** The longest span that typed arrays reach. */
export const REGION_BYTES_MAX = 2 ** 32

/** One registration. Hot paths read the fields; only the table writes them. */
export class SoftRegion implements RegisteredMemory {
  readonly memory: Memory
  readonly address: number
  readonly byteLength: number
  readonly domain: number
  readonly localKey: number
  readonly remoteKey: number
  readonly localWrite: boolean
  readonly remoteRead: boolean
  readonly remoteWrite: boolean
  /** Descriptor of the file that its first byte stands at `fileOffset` of, or NO_FILE. */
  readonly file: number
  readonly fileOffset: number
  /** False from the moment of deregistration: whoever holds on to the region must stop touching its memory. */
  alive = true

  constructor(
    memory: Memory,
    byteLength: number,
    domain: number,
    keys: Keys,
    rights: MemoryRights,
    file: MemoryFile | null,
  ) {
    this.memory = memory
    this.address = memory.address
    this.byteLength = byteLength
    this.domain = domain
    this.localKey = keys.local
    this.remoteKey = keys.remote
    this.localWrite = rights.localWrite
    this.remoteRead = rights.remoteRead
    this.remoteWrite = rights.remoteWrite
    this.file = file === null ? NO_FILE : file.descriptor
    this.fileOffset = file === null ? 0 : file.offset
  }
}

interface Keys {
  readonly local: number
  readonly remote: number
}

export type RandomBytes = (byteLength: number) => Uint8Array

export class MemoryTable {
  readonly #regions: (SoftRegion | null)[] = []
  readonly #lastKeys: Keys[] = []
  /** Slots that may be used again, oldest first. */
  readonly #free: number[] = []
  readonly #random: RandomBytes
  readonly #mask: number

  constructor(random: RandomBytes) {
    this.#random = random
    const [a, b, c] = random(3)
    this.#mask = (a! << 16) | (b! << 8) | c!
  }

  get count(): number {
    return this.#regions.length - this.#free.length
  }

  /** Null when no index is left. */
  register(
    address: number,
    byteLength: number,
    domain: number,
    rights: MemoryRights,
    file: MemoryFile | null = null,
  ): SoftRegion | null {
    const index = this.#takeIndex()
    if (index < 0) return null
    const keys = this.#newKeys(index)
    // Views of words need a whole number of them; nobody touches the bytes beyond `byteLength`.
    const memory = new Memory(view(address, Math.ceil(byteLength / 8) * 8), address)
    const region = new SoftRegion(memory, byteLength, domain, keys, rights, file)
    this.#regions[index] = region
    this.#lastKeys[index] = keys
    return region
  }

  /** False if it is not (or no longer) in the table. */
  deregister(memory: RegisteredMemory): boolean {
    const index = memory.localKey >>> 8
    const region = this.#regions[index]
    if (region === null || region === undefined || region !== memory) return false
    region.alive = false
    this.#regions[index] = null
    this.#free.push(index)
    return true
  }

  byLocalKey(key: number): SoftRegion | null {
    const region = this.#regions[key >>> 8]
    return region !== undefined && region !== null && region.localKey === key >>> 0 ? region : null
  }

  byRemoteKey(key: number): SoftRegion | null {
    const region = this.#regions[(key >>> 8) ^ this.#mask]
    return region !== undefined && region !== null && region.remoteKey === key >>> 0 ? region : null
  }

  usesDomain(domain: number): boolean {
    return this.#regions.some((region) => region?.domain === domain)
  }

  /** A few slots always stay unused, so that a key of the region before is not soon valid again. */
  #takeIndex(): number {
    if (this.#free.length > 16) return this.#free.shift()!
    if (this.#regions.length < 1 << INDEX_BITS) return this.#regions.length
    return this.#free.shift() ?? -1
  }

  #newKeys(index: number): Keys {
    const last = this.#lastKeys[index]
    for (;;) {
      const [local, remote] = this.#random(2)
      const keys = { local: ((index << 8) | local!) >>> 0, remote: (((index ^ this.#mask) << 8) | remote!) >>> 0 }
      if (last === undefined || (keys.local !== last.local && keys.remote !== last.remote)) return keys
    }
  }
}
