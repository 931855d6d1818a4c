/**
 * Lists of work requests as the device wants them: encoded into mapped memory, posted by one call for a list.
 *
 *   batch (columns) ──► ibv_send_wr[0] ─next─► [1] ─next─► … [n−1] ─► 0      ibv_sge of all, one after another
 *
 * The chain of `next` pointers is laid once; a shorter list cuts it and mends it afterwards.
 *
 * Memory is registered with iova 0, so an entry's address counts from the start of its memory: the key says which start. An
 * inline entry is copied by the library in this process and keeps its real address.
 */
import { constants } from 'node:os'
import { bytes, layout } from '../../shm/layout.js'
import { storeAddress } from '../../shm/libc.js'
import type { Memory } from '../../shm/memory.js'
import { type ProviderCounters, receiveOpcode, sendFlag, sendOpcode, type WorkRequestBatch } from './provider.js'
import { Arena } from './soft-arena.js'
import {
  ibvConstants as ibv,
  ibvReceiveRequest as receiveRequest,
  ibvScatterGather as scatterGather,
  ibvSendRequest as sendRequest,
} from './verbs-abi.js'
import type { DataPath } from './verbs-library.js'
import { receiveOwner, sendOwner, type VerbsQueuePair } from './verbs-objects.js'

/** Requests posted by one call at most; longer batches take several. */
const REQUESTS_MAX = 128
const ENTRIES_MAX = 1024
/** Entries of one request at most, so that any request fits. */
export const SCATTER_GATHER_MAX = 32

const arenaLayout = layout('posting arena', {
  sends: bytes(REQUESTS_MAX * sendRequest.byteLength),
  receives: bytes(REQUESTS_MAX * receiveRequest.byteLength),
  entries: bytes(ENTRIES_MAX * scatterGather.byteLength),
  bad: bytes(8),
})
const at = arenaLayout.offset

/** The device's opcode by ours. */
const opcodes = [ibv.IBV_WR_SEND, ibv.IBV_WR_RDMA_WRITE, ibv.IBV_WR_RDMA_READ] as const

interface RequestShape {
  readonly byteLength: number
  readonly next: number
}

export class VerbsPosting {
  readonly #arena = new Arena(arenaLayout.byteLength)
  readonly #memory: Memory = this.#arena.memory
  readonly #dataPath: DataPath
  readonly #counters: ProviderCounters
  readonly #maxMessageByteLength: number
  /** Start of each memory by its local key. */
  readonly #starts: ReadonlyMap<number, number>
  #entryCount = 0

  constructor(
    dataPath: DataPath,
    counters: ProviderCounters,
    maxMessageByteLength: number,
    starts: ReadonlyMap<number, number>,
  ) {
    this.#dataPath = dataPath
    this.#counters = counters
    this.#maxMessageByteLength = maxMessageByteLength
    this.#starts = starts
    this.#chain(at.sends, sendRequest)
    this.#chain(at.receives, receiveRequest)
  }

  close(): void {
    this.#arena.close()
  }

  #chain(start: number, shape: RequestShape): void {
    for (let index = 0; index + 1 < REQUESTS_MAX; index++) this.#link(start, shape, index, true)
  }

  /** Sets where the request at `index` leads: to its follower, or nowhere. */
  #link(start: number, shape: RequestShape, index: number, hasNext: boolean): void {
    const request = start + index * shape.byteLength
    const next = hasNext ? this.#memory.address + request + shape.byteLength : 0
    storeAddress(this.#memory.u32, (request + shape.next) >>> 2, next)
  }

  postSend(queuePair: VerbsQueuePair, batch: WorkRequestBatch): number {
    batch.refusal = 'none'
    let accepted = 0
    while (accepted < batch.count && batch.refusal === 'none') {
      const encoded = this.#encodeSends(queuePair, batch, accepted)
      if (encoded === 0) break
      accepted += this.#ring(queuePair, batch, encoded, false)
    }
    return accepted
  }

  postReceive(queuePair: VerbsQueuePair, batch: WorkRequestBatch): number {
    batch.refusal = 'none'
    let accepted = 0
    while (accepted < batch.count && batch.refusal === 'none') {
      const encoded = this.#encodeReceives(queuePair, batch, accepted)
      if (encoded === 0) break
      accepted += this.#ring(queuePair, batch, encoded, true)
    }
    return accepted
  }

  /** Encodes requests from `first` on until one is refused or the arena is full; how many. */
  #encodeSends(queuePair: VerbsQueuePair, batch: WorkRequestBatch, first: number): number {
    this.#entryCount = 0
    const { sends } = queuePair
    let count = 0
    for (let index = first; index < batch.count && count < REQUESTS_MAX; index++, count++) {
      if (sends.room === 0) batch.refusal = 'full'
      else if (!this.#isSendValid(queuePair, batch, index)) batch.refusal = 'invalid'
      else if (this.#entryCount + batch.sgeCount[index]! <= ENTRIES_MAX) {
        const ordinal = sends.push(batch.idLow[index]!, batch.idHigh[index]!, batch.opcode[index]!)
        this.#encodeSend(count, batch, index, ordinal, sendOwner(queuePair.parts.serial))
        continue
      }
      break
    }
    return count
  }

  #isSendValid(queuePair: VerbsQueuePair, batch: WorkRequestBatch, index: number): boolean {
    const { limits } = queuePair
    const opcode = batch.opcode[index]!
    if (batch.sgeCount[index]! > limits.scatterGather || opcode > sendOpcode.read) return false
    const byteLength = lengthOf(batch, index)
    if (byteLength > this.#maxMessageByteLength) return false
    if ((batch.flags[index]! & sendFlag.inline) === 0) return true
    return opcode !== sendOpcode.read && byteLength <= limits.inlineByteLength
  }

  #encodeSend(slot: number, batch: WorkRequestBatch, index: number, ordinal: number, owner: number): void {
    const { u32 } = this.#memory
    const base = (at.sends + slot * sendRequest.byteLength) >>> 2
    const flags = batch.flags[index]!
    const isInline = (flags & sendFlag.inline) !== 0
    const isSignaled = (flags & sendFlag.signaled) !== 0
    u32[base + sendRequest.wr_id / 4] = ordinal
    u32[base + sendRequest.wr_id / 4 + 1] = owner
    storeAddress(u32, base + sendRequest.sg_list / 4, this.#nextEntryAddress())
    u32[base + sendRequest.num_sge / 4] = batch.sgeCount[index]!
    u32[base + sendRequest.opcode / 4] = opcodes[batch.opcode[index]!]!
    u32[base + sendRequest.send_flags / 4] =
      (isSignaled ? ibv.IBV_SEND_SIGNALED : 0) | (isInline ? ibv.IBV_SEND_INLINE : 0)
    storeAddress(u32, base + sendRequest['wr.rdma.remote_addr'] / 4, batch.remoteAddress[index]!)
    u32[base + sendRequest['wr.rdma.rkey'] / 4] = batch.remoteKey[index]!
    this.#counters.messagesSent++
    this.#counters.bytesSent += this.#encodeEntries(batch, index, isInline)
  }

  #encodeReceives(queuePair: VerbsQueuePair, batch: WorkRequestBatch, first: number): number {
    this.#entryCount = 0
    const { receives, limits } = queuePair
    const owner = receiveOwner(queuePair.parts.serial)
    let count = 0
    for (let index = first; index < batch.count && count < REQUESTS_MAX; index++, count++) {
      if (receives.room === 0) batch.refusal = 'full'
      else if (batch.sgeCount[index]! > limits.scatterGather) batch.refusal = 'invalid'
      else if (this.#entryCount + batch.sgeCount[index]! <= ENTRIES_MAX) {
        const ordinal = receives.push(batch.idLow[index]!, batch.idHigh[index]!, receiveOpcode)
        this.#encodeReceive(count, batch, index, ordinal, owner)
        continue
      }
      break
    }
    return count
  }

  #encodeReceive(slot: number, batch: WorkRequestBatch, index: number, ordinal: number, owner: number): void {
    const { u32 } = this.#memory
    const base = (at.receives + slot * receiveRequest.byteLength) >>> 2
    u32[base + receiveRequest.wr_id / 4] = ordinal
    u32[base + receiveRequest.wr_id / 4 + 1] = owner
    storeAddress(u32, base + receiveRequest.sg_list / 4, this.#nextEntryAddress())
    u32[base + receiveRequest.num_sge / 4] = batch.sgeCount[index]!
    this.#encodeEntries(batch, index, false)
  }

  #nextEntryAddress(): number {
    return this.#memory.address + at.entries + this.#entryCount * scatterGather.byteLength
  }

  /** How many bytes the entries have together. */
  #encodeEntries(batch: WorkRequestBatch, index: number, isInline: boolean): number {
    const { u32 } = this.#memory
    const first = batch.sgeFirst[index]!
    const end = first + batch.sgeCount[index]!
    let total = 0
    for (let entry = first; entry < end; entry++) {
      const base = (at.entries + this.#entryCount++ * scatterGather.byteLength) >>> 2
      const key = batch.sgeKey[entry]!
      const start = isInline ? 0 : (this.#starts.get(key) ?? 0)
      storeAddress(u32, base + scatterGather.addr / 4, batch.sgeAddress[entry]! - start)
      u32[base + scatterGather.length / 4] = batch.sgeLength[entry]!
      u32[base + scatterGather.lkey / 4] = key
      total += batch.sgeLength[entry]!
    }
    return total
  }

  /** Hands the first `count` encoded requests to the device; how many it took. */
  #ring(queuePair: VerbsQueuePair, batch: WorkRequestBatch, count: number, isReceive: boolean): number {
    const { address, u32 } = this.#memory
    const shape = isReceive ? receiveRequest : sendRequest
    const start = isReceive ? at.receives : at.sends
    const post = isReceive ? this.#dataPath.postReceive : this.#dataPath.postSend
    this.#link(start, shape, count - 1, false)
    storeAddress(u32, at.bad / 4, 0)
    const result = post(queuePair.pointer, address + start, address + at.bad)
    if (count < REQUESTS_MAX) this.#link(start, shape, count - 1, true)
    this.#counters.systemCalls++
    if (result === 0) return count
    const taken = this.#takenBefore(start, shape.byteLength)
    ;(isReceive ? queuePair.receives : queuePair.sends).drop(count - taken)
    batch.refusal = refusalOf(result)
    return taken
  }

  /** How many requests stand before the one that the device called bad; none if it named none. */
  #takenBefore(start: number, byteLength: number): number {
    const { address, u32 } = this.#memory
    const bad = u32[at.bad / 4]! + u32[at.bad / 4 + 1]! * 2 ** 32
    return bad === 0 ? 0 : (bad - address - start) / byteLength
  }
}

function lengthOf(batch: WorkRequestBatch, index: number): number {
  const first = batch.sgeFirst[index]!
  const end = first + batch.sgeCount[index]!
  let total = 0
  for (let entry = first; entry < end; entry++) total += batch.sgeLength[entry]!
  return total
}

/** Drivers return the error number positive or negative. */
function refusalOf(result: number): WorkRequestBatch['refusal'] {
  const number = Math.abs(result)
  if (number === constants.errno.ENOMEM) return 'full'
  return number === constants.errno.EINVAL ? 'invalid' : 'dead'
}
