/**
 * What does a fenced request wait for? Nobody answers the request before it, because its peer is gone: packets that leave behind it say that
 * the fence let its request through.
 */
import { readFileSync } from 'node:fs'
import { Arena } from '../../../broker/provider/soft-arena.js'
import { ibvConstants as ibv, ibvSendRequest as sendRequest } from '../../../broker/provider/verbs-abi.js'
import { type RawEnd, rawPair } from './raw-end.js'

const SENT = '/sys/class/infiniband/rxe0/ports/1/hw_counters/sent_pkts'
/** ibv_send_flags */
const FENCED = 1
const sentPackets = (): number => Number(readFileSync(SENT, 'utf8'))

/** A write of no bytes, as raw as it gets: the provider never sets the flag. */
function postWrite(end: RawEnd, flags: number): void {
  const arena = new Arena(2 * sendRequest.byteLength)
  const { view, address } = arena.memory
  view.setUint32(sendRequest.opcode, ibv.IBV_WR_RDMA_WRITE, true)
  view.setUint32(sendRequest.send_flags, flags, true)
  const refused = end.context.dataPath.postSend(end.queuePair.pointer, address, address + sendRequest.byteLength)
  arena.close()
  if (refused !== 0) throw new Error(`posting a write: error ${refused}`)
}

/** Packets that leave for a write behind an unanswered `before`. */
function packetsBehind(before: 'write' | 'read', flags: number): number {
  // Nothing is sent again for 4 s.
  const [a, b] = rawPair({ timeoutExponent: 20 })
  b.close()
  a.post(before, 1, b.remoteKey)
  a.watch(100)
  const sent = sentPackets()
  postWrite(a, flags)
  a.watch(300)
  const packets = sentPackets() - sent
  a.close()
  return packets
}

export function probeFence(): Record<string, unknown> {
  return {
    packetsBehindRead: { free: packetsBehind('read', 0), fenced: packetsBehind('read', FENCED) },
    packetsBehindWrite: { free: packetsBehind('write', 0), fenced: packetsBehind('write', FENCED) },
  }
}
