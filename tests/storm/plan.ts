/**
 * What the supervisor and the processes of a storm agree on: who posts where, where everything lies in memory, what ids and payloads say.
 *
 *   node                     queue pairs 0…3 connected (0 and 2 complete into queue 0, 1 and 3 into queue 1), 4 datagram (queue 0)
 *   seat s of a node         posts to s % 4 and (s + 2) % 4, the even ones to the datagram queue pair too, and polls queue s % 2
 *   process p                one life of a seat, numbered over both nodes; a respawned one has a new number
 *
 * The memory of a node belongs to its keeper, which is never killed:
 *
 *   0        counters        eight bytes for each queue pair: fetch-and-add by the other node
 *   4096     pattern         what the other node reads
 *   16384    areas           one for each process of either node: flags and results of its own, landing of the other node's
 *   …        buffers         receives
 */
import { crc32 } from 'node:zlib'

export const nodeNames = ['alpha', 'beta'] as const
export type NodeName = (typeof nodeNames)[number]

export const PAIRS = 4
export const DATAGRAM = 4
export const QUEUE_PAIRS = PAIRS + 1
export const QUEUES = 2
export const MOST_PROCESSES = 2048
export const POLL_BATCH = 16

export const queueOf = (queuePair: number): number => (queuePair === DATAGRAM ? 0 : queuePair % QUEUES)
export const queueOfSeat = (seat: number): number => seat % QUEUES
export const queuePairsOf = (seat: number): number[] => [
  seat % PAIRS,
  (seat + 2) % PAIRS,
  ...(seat % 2 === 0 ? [DATAGRAM] : []),
]

export const kinds = [
  'send',
  'send-with-immediate',
  'write',
  'write-with-immediate',
  'read',
  'compare-and-swap',
  'fetch-and-add',
] as const
export type Kind = (typeof kinds)[number]
export const kindNumber = (kind: Kind): number => kinds.indexOf(kind)
const TWO_SIDED: readonly Kind[] = ['send', 'send-with-immediate', 'write-with-immediate']
export const isTwoSided = (kind: number): boolean => TWO_SIDED.includes(kinds[kind]!)

// ------------------------------------------------------------------------------------------------------------ memory

export const counterOffset = (queuePair: number): number => queuePair * 8
export const PATTERN_OFFSET = 4096
export const PATTERN_BYTES = 4096
const AREAS_OFFSET = 16_384

export const SMALL_BYTES = 1024
export const SMALL_SLOTS = 16
/** Slots of the process's own region. */
export const OWN_BYTES = 8192
export const OWN_SLOTS = 16
/** Slots of the landing for each queue pair and kind of write. */
export const LANDING_SLOTS = 8
const LANDINGS = 4 * LANDING_SLOTS
const RESULTS_OFFSET = 1024
const LANDING_OFFSET = RESULTS_OFFSET + SMALL_SLOTS * SMALL_BYTES
const AREA_BYTES = LANDING_OFFSET + LANDINGS * SMALL_BYTES
export const BUFFER_BYTES = 8192

const areaOffset = (process: number): number => AREAS_OFFSET + process * AREA_BYTES
/** Word index: not 0 while the slot is used by a request whose completion nobody has taken. */
export const flagIndex = (process: number, slot: number): number => areaOffset(process) / 4 + slot
export const resultOffset = (process: number, slot: number): number =>
  areaOffset(process) + RESULTS_OFFSET + slot * SMALL_BYTES
/** Compared and swapped by the process of the other node, one word for each process. */
export const swapOffset = (process: number): number => areaOffset(process) + 512
/** `column`: which of the process's queue pairs, and whether the write tells of itself. */
export const landingOffset = (process: number, column: number, slot: number): number =>
  areaOffset(process) + LANDING_OFFSET + (column * LANDING_SLOTS + slot) * SMALL_BYTES
/** Of a process's two connected queue pairs the second is the one with 2 or 3. */
export const columnOf = (queuePair: number, kind: number): number =>
  (queuePair === DATAGRAM ? 0 : queuePair >> 1) + (kinds[kind] === 'write' ? 2 : 0)

export const bufferOffset = (processes: number, buffer: number): number =>
  Math.ceil(areaOffset(processes) / 4096) * 4096 + buffer * BUFFER_BYTES
export const homeByteLength = (processes: number, buffers: number): number => bufferOffset(processes, buffers)

export const patternByte = (offset: number): number => (offset * 7 + 13) & 255

// --------------------------------------------------------------------------------------------------------------- ids

/** Of a request: who posted it, where, what, which slot it keeps busy (0: none, else slot + 1), its number. */
export interface RequestId {
  readonly process: number
  readonly queuePair: number
  readonly kind: number
  readonly slot: number
  readonly sequence: number
}

/** Numbers of one process on one queue pair; the immediate has room for so many. */
export const MOST_SEQUENCE = 2 ** 18 - 1

export const packId = ({ process, queuePair, kind, slot, sequence }: RequestId): number =>
  (((process * 8 + queuePair) * 8 + kind) * 64 + slot) * 2 ** 24 + sequence

export function unpackId(id: number): RequestId {
  const high = Math.floor(id / 2 ** 24)
  const [slot, kind, queuePair] = [high & 63, (high >> 6) & 7, (high >> 9) & 7]
  return { process: high >> 12, queuePair, kind, slot, sequence: id % 2 ** 24 }
}

/** Process, landing slot, number. */
export const packImmediate = (process: number, slot: number, sequence: number): number =>
  ((process << 21) | (slot << 18) | sequence) >>> 0
export const unpackImmediate = (immediate: number): { process: number; slot: number; sequence: number } => ({
  process: immediate >>> 21,
  slot: (immediate >>> 18) & 7,
  sequence: immediate & MOST_SEQUENCE,
})

// ---------------------------------------------------------------------------------------------------------- payloads

export const HEADER_BYTES = 24

export interface Header {
  readonly process: number
  readonly queuePair: number
  readonly kind: number
  readonly sequence: number
  readonly byteLength: number
  /** A write that came before it on the same queue pair, to look for: slot + 1, and its number. */
  readonly noticeSlot: number
  readonly noticeSequence: number
}

const sum = (bytes: Buffer, offset: number, byteLength: number): number => {
  const head = crc32(bytes.subarray(offset, offset + HEADER_BYTES - 4))
  return crc32(bytes.subarray(offset + HEADER_BYTES, offset + byteLength), head)
}

/** The body is different for each number, so that two messages mixed up do not add up. */
export function writePayload(bytes: Buffer, offset: number, header: Header): void {
  const { process, queuePair, kind, sequence, byteLength, noticeSlot, noticeSequence } = header
  bytes.writeUInt16LE(process, offset)
  bytes.writeUInt8(queuePair * 8 + kind, offset + 2)
  bytes.writeUInt8(noticeSlot, offset + 3)
  bytes.writeUInt32LE(sequence, offset + 4)
  bytes.writeUInt32LE(byteLength, offset + 8)
  bytes.writeUInt32LE(noticeSequence, offset + 12)
  bytes.writeUInt32LE(0, offset + 16)
  bytes.fill((sequence * 31 + process * 17 + queuePair) & 255, offset + HEADER_BYTES, offset + byteLength)
  bytes.writeUInt32LE(sum(bytes, offset, byteLength), offset + 20)
}

export function readHeader(bytes: Buffer, offset: number): Header {
  const what = bytes.readUInt8(offset + 2)
  return {
    process: bytes.readUInt16LE(offset),
    queuePair: what >> 3,
    kind: what & 7,
    noticeSlot: bytes.readUInt8(offset + 3),
    sequence: bytes.readUInt32LE(offset + 4),
    byteLength: bytes.readUInt32LE(offset + 8),
    noticeSequence: bytes.readUInt32LE(offset + 12),
  }
}

/** True if header and body are what one `writePayload` wrote. */
export function isWhole(bytes: Buffer, offset: number, mostBytes: number): boolean {
  const byteLength = bytes.readUInt32LE(offset + 8)
  if (byteLength < HEADER_BYTES || byteLength > mostBytes) return false
  return bytes.readUInt32LE(offset + 20) === sum(bytes, offset, byteLength)
}
