/**
 * Memory regions: an arena each, registered with the device once and for its whole life. Clients know a region by a key of row and
 * generation, never by the device's own.
 */
import { SharedVerbsError } from '../../protocol/errors.js'
import { keyGeneration, keySlot, packKey } from '../../protocol/keys.js'
import { limits } from '../../protocol/limits.js'
import { regionRight } from '../../protocol/wire.js'
import { Mapping, wholePages } from '../../shm/mapping.js'
import { accountOf } from '../sessions/completion-queue.js'
import { type LeftRow, ObjectRegistry } from '../sessions/object-registry.js'
import {
  forgiveMissing,
  mapPresented,
  type ObjectServices,
  recordUsage,
  tableFull,
} from '../sessions/object-services.js'
import type { Session } from '../sessions/session.js'
import { type ObjectIdentity, SharedObject } from '../sessions/shared-object.js'

export interface AskedRights {
  readonly remoteRead: boolean
  readonly remoteWrite: boolean
  readonly remoteAtomic: boolean
}

export class Region extends SharedObject {
  /** What was asked for; the mapping is rounded up to whole pages. */
  readonly byteLength: number
  readonly rights: number

  constructor(
    identity: ObjectIdentity & { creator: Session; mapping: Mapping },
    of: { readonly byteLength: number; readonly rights: number },
  ) {
    super(identity)
    this.byteLength = of.byteLength
    this.rights = of.rights
  }

  get key(): number {
    return packKey(this.number, this.generation)
  }
}

const KEY_GENERATION_RANGE = 2 ** 24

export const identityOfKey = (key: number): ObjectIdentity => ({ number: keySlot(key), generation: keyGeneration(key) })

export class Regions extends ObjectRegistry<Region> {
  protected readonly noun = 'memory region'
  readonly #services: ObjectServices

  constructor(services: ObjectServices) {
    super()
    this.#services = services
  }

  async create(session: Session, byteLength: number, asked: AskedRights): Promise<Region> {
    if (byteLength < 1) {
      throw new SharedVerbsError(
        'length-out-of-bounds',
        `a memory region of ${byteLength} bytes; ask for 1 to ${limits.regionByteLength}`,
        { byteLength },
      )
    }
    const mappedByteLength = wholePages(byteLength)
    this.#services.accounts.charge(accountOf(session), { bytes: mappedByteLength })
    const number = this.#services.nodeFile.regions.reserve()
    let region: Region | undefined
    try {
      if (number === undefined) throw tableFull('memory regions', this.#services.nodeFile.regions.rows)
      const generation = this.#bumpGeneration(number)
      const mapping = Mapping.create(`region-${number}`, mappedByteLength)
      const rights = rightsOf(asked)
      region = new Region({ number, generation, creator: session, mapping }, { byteLength, rights })
      await this.#tellEngine(region)
    } catch (error) {
      this.#undo(session, number, region, mappedByteLength)
      throw error
    }
    recordUsage(this.#services, session, { regions: 1, bytes: mappedByteLength })
    await this.keep(region)
    return region
  }

  protected leftRow(number: number): LeftRow | undefined {
    const { regions } = this.#services.nodeFile
    return number < regions.rows ? regions.read(number) : undefined
  }

  protected async revive(creator: Session, number: number, descriptor: number): Promise<Region> {
    const { nodeFile, accounts } = this.#services
    const { generation, rights, byteLength, segmentByteLength } = nodeFile.regions.read(number)
    const mapping = mapPresented(descriptor, segmentByteLength)
    const region = new Region({ number, generation, creator, mapping }, { byteLength, rights })
    try {
      accounts.charge(accountOf(creator), { bytes: mapping.byteLength })
    } catch (error) {
      mapping.close()
      throw error
    }
    try {
      await this.#tellEngine(region)
    } catch (error) {
      accounts.refund(accountOf(creator), { bytes: mapping.byteLength })
      mapping.close()
      throw error
    }
    recordUsage(this.#services, creator, { regions: 1, bytes: mapping.byteLength })
    return region
  }

  protected async remove(region: Region): Promise<void> {
    const { number, generation } = region
    await forgiveMissing(this.#services.engine.call('remove-region', { number, generation }))
    this.forget(region)
    recordUsage(this.#services, region.creator, { regions: -1, bytes: -region.mapping.byteLength })
    this.#undo(region.creator, number, region, region.mapping.byteLength)
  }

  async #tellEngine(region: Region): Promise<void> {
    const { number, generation, mapping, byteLength, rights } = region
    const { deviceKey } = await this.#services.engine.call('add-region', {
      number,
      generation,
      job: region.job.number,
      span: { address: mapping.address, byteLength: mapping.byteLength },
      descriptor: mapping.fd,
      byteLength,
      rights,
    })
    this.#services.nodeFile.regions.fill(number, {
      state: 1,
      job: region.job.number,
      member: region.creator.member,
      generation,
      rights,
      deviceKey,
      byteLength,
      segmentInode: mapping.identity.inode,
      segmentByteLength: mapping.byteLength,
    })
  }

  #bumpGeneration(number: number): number {
    const { nodeFile } = this.#services
    const generation = nodeFile.generationAfter(nodeFile.regions.read(number).generation, KEY_GENERATION_RANGE)
    nodeFile.regions.write(number, { generation })
    return generation
  }

  #undo(session: Session, number: number | undefined, region: Region | undefined, byteLength: number): void {
    region?.mapping.close()
    if (number !== undefined) this.#services.nodeFile.regions.free(number)
    this.#services.accounts.refund(accountOf(session), { bytes: byteLength })
  }
}

function rightsOf(asked: AskedRights): number {
  return (
    regionRight.localWrite |
    (asked.remoteWrite ? regionRight.remoteWrite : 0) |
    (asked.remoteRead ? regionRight.remoteRead : 0) |
    (asked.remoteAtomic ? regionRight.remoteAtomic : 0)
  )
}
