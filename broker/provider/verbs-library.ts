/**
 * libibverbs by foreign calls: its exported functions, and those of the data path whose pointers lie in a context.
 *
 * Rules as in shm/libc.ts: what the library is given by address is mapped memory, addresses are plain numbers, no named
 * foreign types. errno is read directly after the call.
 */
import koffi from 'koffi'
import { view } from '../../shm/libc.js'
import { ibvContext } from './verbs-abi.js'

type Call = (...values: number[]) => number
/** A call on a thread of the pool; its result comes to the caller's event loop. */
type CallAside = (values: readonly number[], done: (result: number) => void) => void

const NAME = 'libibverbs.so.1'

export interface VerbsLibrary {
  readonly getDeviceList: Call
  readonly freeDeviceList: Call
  readonly deviceName: (device: number) => string
  readonly openDevice: Call
  readonly closeDevice: Call
  readonly queryDevice: Call
  readonly queryPort: Call
  /** Behind the inline ibv_query_gid_table. */
  readonly queryGids: Call
  readonly allocateDomain: Call
  readonly freeDomain: Call
  readonly registerMemory: Call
  readonly registerMemoryAside: CallAside
  readonly deregisterMemory: Call
  readonly createChannel: Call
  readonly destroyChannel: Call
  readonly createQueue: Call
  readonly destroyQueue: Call
  readonly getQueueEvent: Call
  readonly acknowledgeQueueEvents: Call
  readonly createQueuePair: Call
  readonly modifyQueuePair: Call
  readonly queryQueuePair: Call
  readonly destroyQueuePair: Call
  readonly getAsyncEvent: Call
  readonly acknowledgeAsyncEvent: Call
}

const ADDRESS = 'uintptr_t'

function bind(): VerbsLibrary {
  const library = koffi.load(NAME)
  const call = (name: string, result: string, ...parameters: string[]): Call =>
    library.func(name, result, parameters) as Call
  const registerMemory = library.func('ibv_reg_mr_iova', ADDRESS, [ADDRESS, ADDRESS, ADDRESS, 'uint64', 'int'])
  return {
    getDeviceList: call('ibv_get_device_list', ADDRESS, ADDRESS),
    freeDeviceList: call('ibv_free_device_list', 'void', ADDRESS),
    deviceName: library.func('ibv_get_device_name', 'str', [ADDRESS]) as (device: number) => string,
    openDevice: call('ibv_open_device', ADDRESS, ADDRESS),
    closeDevice: call('ibv_close_device', 'int', ADDRESS),
    queryDevice: call('ibv_query_device', 'int', ADDRESS, ADDRESS),
    queryPort: call('ibv_query_port', 'int', ADDRESS, 'uint8', ADDRESS),
    queryGids: call('_ibv_query_gid_table', 'int', ADDRESS, ADDRESS, ADDRESS, 'uint', ADDRESS),
    allocateDomain: call('ibv_alloc_pd', ADDRESS, ADDRESS),
    freeDomain: call('ibv_dealloc_pd', 'int', ADDRESS),
    registerMemory: registerMemory as Call,
    registerMemoryAside: (values, done) => {
      registerMemory.async(...values, (failure: Error | null, pointer: number) => done(failure === null ? pointer : 0))
    },
    deregisterMemory: call('ibv_dereg_mr', 'int', ADDRESS),
    createChannel: call('ibv_create_comp_channel', ADDRESS, ADDRESS),
    destroyChannel: call('ibv_destroy_comp_channel', 'int', ADDRESS),
    createQueue: call('ibv_create_cq', ADDRESS, ADDRESS, 'int', ADDRESS, ADDRESS, 'int'),
    destroyQueue: call('ibv_destroy_cq', 'int', ADDRESS),
    getQueueEvent: call('ibv_get_cq_event', 'int', ADDRESS, ADDRESS, ADDRESS),
    acknowledgeQueueEvents: call('ibv_ack_cq_events', 'void', ADDRESS, 'uint'),
    createQueuePair: call('ibv_create_qp', ADDRESS, ADDRESS, ADDRESS),
    modifyQueuePair: call('ibv_modify_qp', 'int', ADDRESS, ADDRESS, 'int'),
    queryQueuePair: call('ibv_query_qp', 'int', ADDRESS, ADDRESS, 'int', ADDRESS),
    destroyQueuePair: call('ibv_destroy_qp', 'int', ADDRESS),
    getAsyncEvent: call('ibv_get_async_event', 'int', ADDRESS, ADDRESS),
    acknowledgeAsyncEvent: call('ibv_ack_async_event', 'void', ADDRESS),
  }
}

let bound: VerbsLibrary | null = null
let refusal = ''

/** The library, or null and `libraryRefusal()`: a machine without it is an ordinary machine. */
export function verbsLibrary(): VerbsLibrary | null {
  if (bound !== null || refusal !== '') return bound
  try {
    bound = bind()
  } catch (error) {
    refusal = `${NAME} cannot be loaded: ${error instanceof Error ? error.message : String(error)}`
  }
  return bound
}

export const libraryRefusal = (): string => refusal

/** Functions that the header defines inline: they belong to the driver of a device. */
export interface DataPath {
  readonly pollQueue: Call
  readonly armQueue: Call
  readonly postSend: Call
  readonly postReceive: Call
}

/** Decoded once for a context: calling the result costs a quarter of decoding at each call. */
export function dataPathOf(context: number): DataPath {
  const fields = new DataView(view(context, ibvContext.byteLength))
  const operation = (offset: number, ...parameters: string[]): Call =>
    koffi.decode(fields.getBigUint64(offset, true), koffi.proto('int', parameters)) as Call
  return {
    pollQueue: operation(ibvContext.ops_poll_cq, ADDRESS, 'int', ADDRESS),
    armQueue: operation(ibvContext.ops_req_notify_cq, ADDRESS, 'int'),
    postSend: operation(ibvContext.ops_post_send, ADDRESS, ADDRESS, ADDRESS),
    postReceive: operation(ibvContext.ops_post_recv, ADDRESS, ADDRESS, ADDRESS),
  }
}

/** The error number of the call just made. */
export const lastErrorNumber = (): number => koffi.errno()
