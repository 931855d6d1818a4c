/**
 * Structures of libibverbs as they lie in memory on 64-bit Linux: offsets in bytes from the start of each structure. A test
 * compares them with a C program compiled with the real header (tests/abi/verbs-abi.test.ts).
 *
 * The functions of the data path are inline in the header; `ibvContext.ops_*` is where their pointers lie in a context.
 */

export const ibvContext = {
  byteLength: 328,
  async_fd: 268,
  ops_poll_cq: 96,
  ops_req_notify_cq: 104,
  ops_post_send: 208,
  ops_post_recv: 216,
} as const

export const ibvDeviceAttributes = {
  byteLength: 232,
  max_mr_size: 80,
  max_qp: 108,
  max_qp_wr: 112,
  max_sge: 120,
  max_sge_rd: 124,
  max_cqe: 132,
  max_qp_rd_atom: 144,
  max_qp_init_rd_atom: 156,
  phys_port_cnt: 227,
} as const

export const ibvPortAttributes = {
  byteLength: 52,
  state: 0,
  active_mtu: 8,
  max_msg_sz: 20,
  lid: 34,
  link_layer: 46,
} as const

export const ibvCompletionChannel = { byteLength: 16, fd: 8 } as const
export const ibvCompletionQueue = { byteLength: 128, cqe: 28 } as const
export const ibvMemoryRegion = { byteLength: 48, lkey: 36, rkey: 40 } as const
export const ibvQueuePair = { byteLength: 160, qp_num: 52 } as const

export const ibvQueuePairInit = {
  byteLength: 64,
  send_cq: 8,
  recv_cq: 16,
  'cap.max_send_wr': 32,
  'cap.max_recv_wr': 36,
  'cap.max_send_sge': 40,
  'cap.max_recv_sge': 44,
  'cap.max_inline_data': 48,
  qp_type: 52,
  sq_sig_all: 56,
} as const

export const ibvQueuePairAttributes = {
  byteLength: 144,
  qp_state: 0,
  path_mtu: 8,
  rq_psn: 20,
  sq_psn: 24,
  dest_qp_num: 28,
  qp_access_flags: 32,
  'ah_attr.grh.dgid': 56,
  'ah_attr.grh.sgid_index': 76,
  'ah_attr.grh.hop_limit': 77,
  'ah_attr.grh.traffic_class': 78,
  'ah_attr.dlid': 80,
  'ah_attr.sl': 82,
  'ah_attr.is_global': 85,
  'ah_attr.port_num': 86,
  pkey_index: 120,
  max_rd_atomic: 126,
  max_dest_rd_atomic: 127,
  min_rnr_timer: 128,
  port_num: 129,
  timeout: 130,
  retry_cnt: 131,
  rnr_retry: 132,
} as const

export const ibvSendRequest = {
  byteLength: 128,
  wr_id: 0,
  next: 8,
  sg_list: 16,
  num_sge: 24,
  opcode: 28,
  send_flags: 32,
  'wr.rdma.remote_addr': 40,
  'wr.rdma.rkey': 48,
} as const

export const ibvReceiveRequest = { byteLength: 32, wr_id: 0, next: 8, sg_list: 16, num_sge: 24 } as const
export const ibvScatterGather = { byteLength: 16, addr: 0, length: 8, lkey: 12 } as const

export const ibvCompletion = {
  byteLength: 48,
  wr_id: 0,
  status: 8,
  vendor_err: 16,
  byte_len: 20,
  qp_num: 28,
} as const

export const ibvAsyncEvent = { byteLength: 16, element: 0, event_type: 8 } as const

export const ibvGidEntry = { byteLength: 32, gid: 0, gid_index: 16, port_num: 20, gid_type: 24 } as const

/** Structures under the names of the header, for the test. */
export const ibvStructures = {
  ibv_context: ibvContext,
  ibv_device_attr: ibvDeviceAttributes,
  ibv_port_attr: ibvPortAttributes,
  ibv_comp_channel: ibvCompletionChannel,
  ibv_cq: ibvCompletionQueue,
  ibv_mr: ibvMemoryRegion,
  ibv_qp: ibvQueuePair,
  ibv_qp_init_attr: ibvQueuePairInit,
  ibv_qp_attr: ibvQueuePairAttributes,
  ibv_send_wr: ibvSendRequest,
  ibv_recv_wr: ibvReceiveRequest,
  ibv_sge: ibvScatterGather,
  ibv_wc: ibvCompletion,
  ibv_async_event: ibvAsyncEvent,
  ibv_gid_entry: ibvGidEntry,
} as const

/** Numbers of the header under its names. */
export const ibvConstants = {
  IBV_WR_RDMA_WRITE: 0,
  IBV_WR_SEND: 2,
  IBV_WR_RDMA_READ: 4,
  IBV_SEND_SIGNALED: 2,
  IBV_SEND_INLINE: 8,
  IBV_ACCESS_LOCAL_WRITE: 1,
  IBV_ACCESS_REMOTE_WRITE: 2,
  IBV_ACCESS_REMOTE_READ: 4,
  IBV_QPT_RC: 2,
  IBV_QPS_RESET: 0,
  IBV_QPS_INIT: 1,
  IBV_QPS_RTR: 2,
  IBV_QPS_RTS: 3,
  IBV_QPS_ERR: 6,
  IBV_QP_STATE: 0x1,
  IBV_QP_ACCESS_FLAGS: 0x8,
  IBV_QP_PKEY_INDEX: 0x10,
  IBV_QP_PORT: 0x20,
  IBV_QP_AV: 0x80,
  IBV_QP_PATH_MTU: 0x100,
  IBV_QP_TIMEOUT: 0x200,
  IBV_QP_RETRY_CNT: 0x400,
  IBV_QP_RNR_RETRY: 0x800,
  IBV_QP_RQ_PSN: 0x1000,
  IBV_QP_MAX_QP_RD_ATOMIC: 0x2000,
  IBV_QP_MIN_RNR_TIMER: 0x8000,
  IBV_QP_SQ_PSN: 0x10000,
  IBV_QP_MAX_DEST_RD_ATOMIC: 0x20000,
  IBV_QP_DEST_QPN: 0x100000,
  IBV_GID_TYPE_ROCE_V2: 2,
  IBV_PORT_ACTIVE: 4,
  IBV_LINK_LAYER_INFINIBAND: 1,
  IBV_EVENT_CQ_ERR: 0,
  IBV_EVENT_QP_FATAL: 1,
  IBV_EVENT_QP_REQ_ERR: 2,
  IBV_EVENT_QP_ACCESS_ERR: 3,
  IBV_EVENT_COMM_EST: 4,
  IBV_EVENT_SQ_DRAINED: 5,
  IBV_EVENT_PATH_MIG: 6,
  IBV_EVENT_PATH_MIG_ERR: 7,
  IBV_EVENT_DEVICE_FATAL: 8,
  IBV_EVENT_PORT_ACTIVE: 9,
  IBV_EVENT_PORT_ERR: 10,
  IBV_EVENT_LID_CHANGE: 11,
  IBV_EVENT_PKEY_CHANGE: 12,
  IBV_EVENT_GID_CHANGE: 18,
  IBV_WC_SUCCESS: 0,
  IBV_WC_LOC_LEN_ERR: 1,
  IBV_WC_LOC_QP_OP_ERR: 2,
  IBV_WC_LOC_PROT_ERR: 4,
  IBV_WC_WR_FLUSH_ERR: 5,
  IBV_WC_MW_BIND_ERR: 6,
  IBV_WC_LOC_ACCESS_ERR: 8,
  IBV_WC_REM_INV_REQ_ERR: 9,
  IBV_WC_REM_ACCESS_ERR: 10,
  IBV_WC_REM_OP_ERR: 11,
  IBV_WC_RETRY_EXC_ERR: 12,
  IBV_WC_RNR_RETRY_EXC_ERR: 13,
  IBV_WC_REM_ABORT_ERR: 16,
  IBV_WC_FATAL_ERR: 19,
  IBV_WC_GENERAL_ERR: 21,
} as const
