/** Memory shared with the broker: what local entries of work requests name, and what peers reach by its key. */
import type { ObjectHandle } from '../protocol/address.js'
import type { RequestResult } from '../protocol/control.js'
import { keyGeneration, keySlot } from '../protocol/keys.js'
import type { Mapping } from '../shm/mapping.js'
import type { Attachment } from './attachment.js'
import type { Presentable } from './reattachment.js'
import { mapSegment } from './segments.js'

/** What peers may do with a region. All default to false; the owner's job may always use it locally. */
export interface MemoryRights {
  readonly remoteRead?: boolean
  readonly remoteWrite?: boolean
  readonly remoteAtomic?: boolean
}

export class MemoryRegion {
  /** The shared pages, zeroed at first. After `close()` the view stays harmless but is shared with nobody. */
  readonly bytes: Uint8Array
  readonly byteLength: number
  /** Names the region in local entries (`{ key, offset, length }`), in any process of the job on this node. */
  readonly localKey: number
  /** Names the region in `remote: { key, offset }` of peers. A safe integer: send it by whatever means. */
  readonly remoteKey: number
  /** @internal */
  readonly attachment: Attachment
  readonly #mapping: Mapping
  #closing: Promise<void> | undefined

  /** @internal Applications call `session.registerMemory` or `session.openMemory`. */
  constructor(attachment: Attachment, grant: RequestResult<'registerMemory'>, fd: number | undefined) {
    const mapping = mapSegment(fd, grant.mappedByteLength, true)
    this.attachment = attachment
    this.#mapping = mapping
    this.byteLength = grant.byteLength
    this.localKey = grant.key
    this.remoteKey = grant.key
    this.bytes = mapping.memory.u8.subarray(0, grant.byteLength)
    attachment.regions.add(this)
  }

  /** False from the call of `close()` on: work requests that name it are refused. */
  get open(): boolean {
    return this.#closing === undefined
  }

  /** Plain JSON with which another process of the job on this node opens the same memory (`session.openMemory`). */
  share(): ObjectHandle {
    return { kind: 'memory-region', number: keySlot(this.localKey), generation: keyGeneration(this.localKey) }
  }

  /** Resolves when no work request, here or at a peer, uses the memory any more. May be called again. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  /** @internal */
  get presentable(): Presentable {
    const number = keySlot(this.localKey)
    const generation = keyGeneration(this.localKey)
    return { number, generation, descriptor: this.#mapping.fd, closing: !this.open, presented: () => {} }
  }

  /** @internal For the end of the session, which closes everything at the broker by one request. */
  release(): void {
    this.#closing ??= Promise.resolve()
    this.attachment.regions.delete(this)
    this.#mapping.close()
  }

  async #close(): Promise<void> {
    try {
      await this.attachment.request('closeMemory', { key: this.localKey })
    } finally {
      this.release()
    }
  }
}
