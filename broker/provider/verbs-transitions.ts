/** What ibv_modify_qp is told at each step of a queue pair's life, and which attributes are refused before it is asked. */
import type { Memory } from '../../shm/memory.js'
import type { DeviceCapabilities, QueuePairAddress, QueuePairAttributes } from './provider.js'
import { ibvQueuePairAttributes as field, ibvConstants as ibv } from './verbs-abi.js'
import { gidBytes, isGid } from './verbs-gid.js'

/** Written at `base` of `memory`, and which of the attributes are meant. */
export type Transition = (memory: Memory, base: number) => number

const MTU_BYTES = [256, 512, 1024, 2048, 4096]
const HOP_LIMIT = 64

/** ibv_mtu of the longest packet that fits. */
export function mtuCode(byteLength: number): number {
  let code = 1
  MTU_BYTES.forEach((bytes, index) => {
    if (bytes <= byteLength) code = index + 1
  })
  return code
}

export const mtuBytes = (code: number): number => MTU_BYTES[code - 1] ?? 256

/** Waiting times of a receiver that is not ready, hundredths of a millisecond, by code 1..31; code 0 is the longest. */
const RNR_TIMES = [
  1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192,
  12_288, 16_384, 24_576, 32_768, 49_152,
]

/** Code of the shortest time that is not shorter. */
export function rnrTimerCode(timeMs: number): number {
  return (RNR_TIMES.findIndex((time) => time >= timeMs * 100) + 1) % 32
}

function begin(memory: Memory, base: number, state: number): void {
  memory.u8.fill(0, base, base + field.byteLength)
  memory.view.setUint32(base + field.qp_state, state, true)
}

export const toInit =
  (port: number): Transition =>
  (memory, base) => {
    begin(memory, base, ibv.IBV_QPS_INIT)
    memory.view.setUint8(base + field.port_num, port)
    // What may be done to memory is decided by each memory's own rights.
    const access = ibv.IBV_ACCESS_LOCAL_WRITE | ibv.IBV_ACCESS_REMOTE_WRITE | ibv.IBV_ACCESS_REMOTE_READ
    memory.view.setUint32(base + field.qp_access_flags, access, true)
    return ibv.IBV_QP_STATE | ibv.IBV_QP_PKEY_INDEX | ibv.IBV_QP_PORT | ibv.IBV_QP_ACCESS_FLAGS
  }

export interface PathOfPort {
  readonly port: number
  readonly linkLayer: 'ethernet' | 'infiniband'
  readonly gidIndex: number
  readonly mtu: number
  /** For those that ask for none. */
  readonly trafficClass: number
  readonly serviceLevel: number
}

export const toReadyToReceive =
  (remote: QueuePairAddress, attributes: QueuePairAttributes, path: PathOfPort): Transition =>
  (memory, base) => {
    begin(memory, base, ibv.IBV_QPS_RTR)
    const { view } = memory
    const mtu = Math.min(attributes.pathMtu, path.mtu, Number(remote.path.mtu))
    view.setUint32(base + field.path_mtu, mtuCode(mtu), true)
    view.setUint32(base + field.rq_psn, remote.packetSequence, true)
    view.setUint32(base + field.dest_qp_num, remote.number, true)
    view.setUint8(base + field.max_dest_rd_atomic, Math.max(1, attributes.readsAccepted))
    view.setUint8(base + field.min_rnr_timer, rnrTimerCode(attributes.rnrTimerMs))
    view.setUint8(base + field['ah_attr.port_num'], path.port)
    view.setUint16(base + field['ah_attr.dlid'], Number(remote.path.lid), true)
    view.setUint8(base + field['ah_attr.sl'], path.serviceLevel)
    if (path.linkLayer === 'ethernet') {
      view.setUint8(base + field['ah_attr.is_global'], 1)
      gidBytes(String(remote.path.gid)).forEach((byte, index) => {
        view.setUint8(base + field['ah_attr.grh.dgid'] + index, byte)
      })
      view.setUint8(base + field['ah_attr.grh.sgid_index'], path.gidIndex)
      view.setUint8(base + field['ah_attr.grh.hop_limit'], HOP_LIMIT)
      view.setUint8(base + field['ah_attr.grh.traffic_class'], attributes.trafficClass || path.trafficClass)
    }
    return (
      ibv.IBV_QP_STATE |
      ibv.IBV_QP_AV |
      ibv.IBV_QP_PATH_MTU |
      ibv.IBV_QP_DEST_QPN |
      ibv.IBV_QP_RQ_PSN |
      ibv.IBV_QP_MAX_DEST_RD_ATOMIC |
      ibv.IBV_QP_MIN_RNR_TIMER
    )
  }

export const toReadyToSend =
  (packetSequence: number, attributes: QueuePairAttributes): Transition =>
  (memory, base) => {
    begin(memory, base, ibv.IBV_QPS_RTS)
    const { view } = memory
    view.setUint32(base + field.sq_psn, packetSequence, true)
    view.setUint8(base + field.timeout, attributes.timeoutExponent)
    view.setUint8(base + field.retry_cnt, attributes.retryCount)
    view.setUint8(base + field.rnr_retry, attributes.rnrRetryCount)
    view.setUint8(base + field.max_rd_atomic, Math.max(1, attributes.readsInitiated))
    return (
      ibv.IBV_QP_STATE |
      ibv.IBV_QP_SQ_PSN |
      ibv.IBV_QP_TIMEOUT |
      ibv.IBV_QP_RETRY_CNT |
      ibv.IBV_QP_RNR_RETRY |
      ibv.IBV_QP_MAX_QP_RD_ATOMIC
    )
  }

export const toError: Transition = (memory, base) => {
  begin(memory, base, ibv.IBV_QPS_ERR)
  return ibv.IBV_QP_STATE
}

const isIndex = (value: number, most: number): boolean => Number.isInteger(value) && value >= 0 && value <= most

/** Which attribute is out of range, or null. */
export function problemOfAttributes(attributes: QueuePairAttributes, most: DeviceCapabilities): string | null {
  const { readsInitiated, readsAccepted, timeoutExponent, retryCount, rnrRetryCount, rnrTimerMs } = attributes
  if (!isIndex(readsInitiated, most.maxReadsInitiated)) return `${readsInitiated} reads initiated`
  if (!isIndex(readsAccepted, most.maxReadsAccepted)) return `${readsAccepted} reads accepted`
  if (!isIndex(timeoutExponent, 31)) return `timeout exponent ${timeoutExponent}`
  // 7 is endless on some devices: a dead peer would never be given up.
  if (!isIndex(retryCount, 6)) return `retry count ${retryCount}`
  if (!isIndex(rnrRetryCount, 7)) return `RNR retry count ${rnrRetryCount}`
  return rnrTimerMs >= 0 && rnrTimerMs <= 655 ? null : `RNR timer of ${rnrTimerMs} ms`
}

export function problemOfAddress(remote: QueuePairAddress, linkLayer: PathOfPort['linkLayer']): string | null {
  const { gid, lid, mtu } = remote.path
  if (!isIndex(remote.number, 0xffffff) || !isIndex(remote.packetSequence, 0xffffff)) return 'number out of range'
  if (linkLayer === 'ethernet' && !isGid(gid)) return `GID '${gid}'`
  if (typeof lid !== 'number' || !isIndex(lid, 0xffff)) return `LID ${lid}`
  return typeof mtu === 'number' && MTU_BYTES.includes(mtu) ? null : `MTU ${mtu}`
}
