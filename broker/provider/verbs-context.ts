/**
 * An opened device of libibverbs: its context, what it can do, its channels of events, and the memory in which cold calls
 * exchange structures with the library.
 */

import { bytes, layout } from '../../shm/layout.js'
import { pollDescriptors, storeAddress, view } from '../../shm/libc.js'
import { Memory } from '../../shm/memory.js'
import type { DeviceCapabilities, ProviderFailure, QueuePairLimits } from './provider.js'
import { Arena } from './soft-arena.js'
import {
  ibvAsyncEvent as asyncEvent,
  ibvCompletionChannel as channelField,
  ibvDeviceAttributes as device,
  ibvGidEntry as gidField,
  ibvConstants as ibv,
  ibvContext,
  ibvQueuePairAttributes,
  ibvQueuePairInit as init,
  ibvPortAttributes as portField,
} from './verbs-abi.js'
import { type Gid, gidText } from './verbs-gid.js'
import type { VerbsDeviceEntry } from './verbs-inventory.js'
import {
  type DataPath,
  dataPathOf,
  lastErrorNumber,
  libraryRefusal,
  type VerbsLibrary,
  verbsLibrary,
} from './verbs-library.js'
import { SCATTER_GATHER_MAX } from './verbs-posting.js'
import { failureOf } from './verbs-status.js'
import { mtuBytes, type Transition } from './verbs-transitions.js'

/** Valid entries of all ports that are looked at; tables have a few. */
const GIDS_MAX = 256

const arenaLayout = layout('verbs control arena', {
  device: bytes(device.byteLength),
  init: bytes(init.byteLength),
  attributes: bytes(ibvQueuePairAttributes.byteLength),
  port: bytes(portField.byteLength + 4),
  event: bytes(asyncEvent.byteLength),
  queue: bytes(8),
  queueContext: bytes(8),
  gids: bytes(GIDS_MAX * gidField.byteLength),
})
const at = arenaLayout.offset

const SEND_DEPTH_MAX = 16_384
const QUEUE_DEPTH_MAX = 65_536
const INLINE_TRIALS = [512, 256, 128, 64, 0]
const CHUNK_BYTES = 256 * 1024

export interface PortFacts {
  readonly isActive: boolean
  readonly mtu: number
  readonly lid: number
  readonly maxMessageByteLength: number
  readonly linkLayer: 'ethernet' | 'infiniband'
}

export interface NativeEvent {
  readonly type: number
  /** Pointer of the queue pair or completion queue, or number of the port. */
  readonly element: number
}

export class VerbsContext {
  readonly library: VerbsLibrary
  readonly dataPath: DataPath
  readonly port: number
  readonly asyncDescriptor: number
  readonly channelDescriptor: number
  readonly #arena = new Arena(arenaLayout.byteLength)
  readonly #memory: Memory = this.#arena.memory
  readonly #pointer: number
  readonly #channel: number
  readonly #asyncDescriptors: readonly number[]
  readonly #channelDescriptors: readonly number[]

  private constructor(library: VerbsLibrary, pointer: number, port: number) {
    this.library = library
    this.#pointer = pointer
    this.port = port
    this.dataPath = dataPathOf(pointer)
    this.#channel = library.createChannel(pointer)
    this.asyncDescriptor = fieldsOf(pointer, ibvContext.byteLength).getInt32(ibvContext.async_fd, true)
    const channel = this.#channel === 0 ? null : fieldsOf(this.#channel, channelField.byteLength)
    this.channelDescriptor = channel?.getInt32(channelField.fd, true) ?? -1
    this.#asyncDescriptors = [this.asyncDescriptor]
    this.#channelDescriptors = [this.channelDescriptor]
  }

  /** Opens a device by name; a failure says which step failed. */
  static open(entry: VerbsDeviceEntry): VerbsContext | ProviderFailure {
    const library = verbsLibrary()
    if (library === null) return { code: 'not-supported', message: `not-supported: ${libraryRefusal()}` }
    const attempted = `opening device '${entry.name}'`
    const arena = new Arena(8)
    const list = library.getDeviceList(arena.memory.address)
    if (list === 0) return failureOf('listing devices', lastErrorNumber())
    try {
      const pointer = findDevice(library, list, arena.memory.u32[0]!, entry.name)
      if (pointer === 0) return { code: 'not-supported', message: `not-supported: ${attempted}: no driver serves it` }
      const context = library.openDevice(pointer)
      if (context === 0) return failureOf(attempted, lastErrorNumber(), `its node is ${entry.node ?? 'not there'}`)
      const opened = new VerbsContext(library, context, entry.port)
      if (opened.#channel !== 0) return opened
      opened.close()
      return failureOf(`${attempted}: completion channel`, lastErrorNumber())
    } finally {
      library.freeDeviceList(list)
      arena.close()
    }
  }

  queryPort(): PortFacts {
    const base = at.port
    this.#memory.u8.fill(0, base, base + portField.byteLength)
    const result = this.library.queryPort(this.#pointer, this.port, this.#memory.address + base)
    const { view: fields } = this.#memory
    return {
      isActive: result === 0 && fields.getUint32(base + portField.state, true) === ibv.IBV_PORT_ACTIVE,
      mtu: mtuBytes(fields.getUint32(base + portField.active_mtu, true)),
      lid: fields.getUint16(base + portField.lid, true),
      maxMessageByteLength: fields.getUint32(base + portField.max_msg_sz, true),
      linkLayer:
        fields.getUint8(base + portField.link_layer) === ibv.IBV_LINK_LAYER_INFINIBAND ? 'infiniband' : 'ethernet',
    }
  }

  /** Addresses of the port as they are now. */
  queryGids(): readonly Gid[] {
    const { address, view: fields, u8 } = this.#memory
    const count = this.library.queryGids(this.#pointer, address + at.gids, GIDS_MAX, 0, gidField.byteLength)
    return Array.from({ length: Math.max(0, count) }, (_, index) => at.gids + index * gidField.byteLength)
      .filter((base) => fields.getUint32(base + gidField.port_num, true) === this.port)
      .map((base) => ({
        index: fields.getUint32(base + gidField.gid_index, true),
        value: gidText(u8.slice(base, base + 16)),
        isRouted: fields.getUint32(base + gidField.gid_type, true) === ibv.IBV_GID_TYPE_ROCE_V2,
      }))
  }

  queryCapabilities(): DeviceCapabilities {
    this.library.queryDevice(this.#pointer, this.#memory.address + at.device)
    const field = (offset: number): number => this.#memory.view.getInt32(at.device + offset, true)
    const entries = Math.min(field(device.max_sge), SCATTER_GATHER_MAX)
    const depth = Math.min(field(device.max_qp_wr), SEND_DEPTH_MAX)
    return {
      maxSendDepth: depth,
      maxReceiveDepth: depth,
      // Zero in max_sge_rd: an old driver that does not say.
      maxScatterGather: field(device.max_sge_rd) > 0 ? Math.min(entries, field(device.max_sge_rd)) : entries,
      maxInlineByteLength: this.#findInlineByteLength(),
      maxCompletionQueueDepth: Math.min(field(device.max_cqe), QUEUE_DEPTH_MAX),
      maxMessageByteLength: this.queryPort().maxMessageByteLength,
      maxReadsInitiated: Math.min(Math.max(1, field(device.max_qp_init_rd_atom)), 128),
      maxReadsAccepted: Math.min(Math.max(1, field(device.max_qp_rd_atom)), 128),
      preferredChunkByteLength: CHUNK_BYTES,
    }
  }

  /** No attribute of a device tells it: tried with queue pairs that are destroyed at once. */
  #findInlineByteLength(): number {
    const domain = this.library.allocateDomain(this.#pointer)
    const queue = this.createQueue(2, 0)
    const limits = { sendDepth: 1, receiveDepth: 1, scatterGather: 1 }
    for (const inlineByteLength of INLINE_TRIALS) {
      if (domain === 0 || queue === 0) break
      const pointer = this.createQueuePair(domain, queue, queue, { ...limits, inlineByteLength })
      if (pointer === 0) continue
      this.library.destroyQueuePair(pointer)
      this.#destroyTrial(domain, queue)
      return inlineByteLength
    }
    this.#destroyTrial(domain, queue)
    return 0
  }

  #destroyTrial(domain: number, queue: number): void {
    if (queue !== 0) this.library.destroyQueue(queue)
    if (domain !== 0) this.library.freeDomain(domain)
  }

  allocateDomain(): number {
    return this.library.allocateDomain(this.#pointer)
  }

  /** Its events come with `handle`. */
  createQueue(capacity: number, handle: number): number {
    return this.library.createQueue(this.#pointer, capacity, handle, this.#channel, 0)
  }

  createQueuePair(domain: number, sendQueue: number, receiveQueue: number, limits: QueuePairLimits): number {
    const base = at.init
    const { view: fields, u32, u8 } = this.#memory
    u8.fill(0, base, base + init.byteLength)
    storeAddress(u32, (base + init.send_cq) / 4, sendQueue)
    storeAddress(u32, (base + init.recv_cq) / 4, receiveQueue)
    fields.setUint32(base + init['cap.max_send_wr'], limits.sendDepth, true)
    fields.setUint32(base + init['cap.max_recv_wr'], limits.receiveDepth, true)
    fields.setUint32(base + init['cap.max_send_sge'], Math.max(1, limits.scatterGather), true)
    fields.setUint32(base + init['cap.max_recv_sge'], Math.max(1, limits.scatterGather), true)
    fields.setUint32(base + init['cap.max_inline_data'], limits.inlineByteLength, true)
    fields.setUint32(base + init.qp_type, ibv.IBV_QPT_RC, true)
    return this.library.createQueuePair(domain, this.#memory.address + base)
  }

  /** 0 or an error number. */
  modifyQueuePair(pointer: number, transition: Transition): number {
    const mask = transition(this.#memory, at.attributes)
    return this.library.modifyQueuePair(pointer, this.#memory.address + at.attributes, mask)
  }

  /** ibv_qp_state, or the error state when it cannot be told. */
  queryState(pointer: number): number {
    const { address, view: fields } = this.#memory
    const result = this.library.queryQueuePair(pointer, address + at.attributes, ibv.IBV_QP_STATE, address + at.init)
    return result === 0 ? fields.getUint32(at.attributes + ibvQueuePairAttributes.qp_state, true) : ibv.IBV_QPS_ERR
  }

  /**
   * The next asynchronous event, already acknowledged: a queue pair or completion queue with an unacknowledged one could
   * never be destroyed. Null when none waits.
   */
  takeAsyncEvent(): NativeEvent | null {
    if (pollDescriptors(this.#asyncDescriptors, 0) < 0) return null
    const address = this.#memory.address + at.event
    if (this.library.getAsyncEvent(this.#pointer, address) !== 0) return null
    const type = this.#memory.u32[(at.event + asyncEvent.event_type) / 4]!
    const element = this.#addressAt(at.event + asyncEvent.element)
    this.library.acknowledgeAsyncEvent(address)
    return { type, element }
  }

  /** Handle of the next completion queue that has an event, acknowledged; 0 when none waits. */
  takeQueueEvent(): number {
    if (pollDescriptors(this.#channelDescriptors, 0) < 0) return 0
    const { address } = this.#memory
    if (this.library.getQueueEvent(this.#channel, address + at.queue, address + at.queueContext) !== 0) return 0
    this.library.acknowledgeQueueEvents(this.#addressAt(at.queue), 1)
    return this.#addressAt(at.queueContext)
  }

  #addressAt(offset: number): number {
    const { u32 } = this.#memory
    return u32[offset / 4]! + u32[offset / 4 + 1]! * 2 ** 32
  }

  /** After everything that was made in it. */
  close(): void {
    if (this.#channel !== 0) this.library.destroyChannel(this.#channel)
    this.library.closeDevice(this.#pointer)
    this.#arena.close()
  }
}

/** Fields of a structure that the library owns. */
export function fieldsOf(pointer: number, byteLength: number): DataView {
  return new DataView(view(pointer, byteLength))
}

function findDevice(library: VerbsLibrary, list: number, count: number, name: string): number {
  const pointers = new Memory(view(list, Math.max(1, count) * 8), list)
  for (let index = 0; index < count; index++) {
    const pointer = pointers.u32[index * 2]! + pointers.u32[index * 2 + 1]! * 2 ** 32
    if (library.deviceName(pointer) === name) return pointer
  }
  return 0
}
