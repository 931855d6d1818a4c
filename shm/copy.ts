/**
 * Copies between mapped regions without allocating.
 *
 *   both offsets on 8 bytes, short    64-bit words one by one, then the byte tail
 *   few bytes                         bytes one by one
 *   everything else                   memmove by address
 *
 * Bounds are checked here, against the spans, because memmove knows none. Ranges that overlap inside one span:
 * undefined content, as in verbs.
 */
import { ShmError } from './errors.js'
import { memoryMove } from './libc.js'
import type { Memory } from './memory.js'

/**
 * Up to here a loop is as fast as the foreign call (measured by tests/bench/shm.ts), which costs 80 ns before it moves anything. The call also
 * boxes both addresses, because they are no small integers: 32 bytes of garbage.
 */
const WORD_LOOP_BYTES = 1024
const BYTE_LOOP_BYTES = 16
/** Offsets up to here are counted as integers; a division by 8 makes them floating-point numbers, and each word of a loop costs ten times as much. */
const WORD_LOOP_OFFSET = 0x7fffffff
const SLOW_PIECE_BYTES = 2048
const PAGE_MASK = 4095

export function copyBytes(
  destination: Memory,
  destinationOffset: number,
  source: Memory,
  sourceOffset: number,
  byteLength: number,
): void {
  checkRange(destination, destinationOffset, byteLength)
  checkRange(source, sourceOffset, byteLength)
  if (goesByWords(destinationOffset, sourceOffset, byteLength)) {
    copyWords(destination, destinationOffset, source, sourceOffset, byteLength)
  } else if (byteLength <= BYTE_LOOP_BYTES) {
    copyEach(destination, destinationOffset, source, sourceOffset, byteLength)
  } else {
    copyBlock(destination, destinationOffset, source, sourceOffset, byteLength)
  }
}

/**
 * The same, with the last 8 bytes stored after all others: who polls the end of a buffer for arrival then finds the
 * rest there. On 8-byte boundaries they arrive as one store.
 */
export function copyInOrder(
  destination: Memory,
  destinationOffset: number,
  source: Memory,
  sourceOffset: number,
  byteLength: number,
): void {
  checkRange(destination, destinationOffset, byteLength)
  checkRange(source, sourceOffset, byteLength)
  // The loop of words runs upwards: its last store is the last already.
  if (goesByWords(destinationOffset, sourceOffset, byteLength)) {
    copyWords(destination, destinationOffset, source, sourceOffset, byteLength)
    return
  }
  const last = Math.min(byteLength, 8)
  const first = byteLength - last
  copyBytes(destination, destinationOffset, source, sourceOffset, first)
  copyBytes(destination, destinationOffset + first, source, sourceOffset + first, last)
}

function checkRange(memory: Memory, offset: number, byteLength: number): void {
  // Written so that NaN fails too.
  if (offset >= 0 && byteLength >= 0 && offset + byteLength <= memory.byteLength) return
  refuse(memory, offset, byteLength)
}

/** By itself: within the check, the compiler makes the text for every copy, also for those that are in range. */
function refuse(memory: Memory, offset: number, byteLength: number): never {
  throw new ShmError('out-of-bounds', `${byteLength} bytes at ${offset} of ${memory.byteLength}`)
}

function goesByWords(destinationOffset: number, sourceOffset: number, byteLength: number): boolean {
  if (byteLength > WORD_LOOP_BYTES || ((destinationOffset | sourceOffset) & 7) !== 0) return false
  return destinationOffset <= WORD_LOOP_OFFSET && sourceOffset <= WORD_LOOP_OFFSET
}

function copyWords(
  destination: Memory,
  destinationOffset: number,
  source: Memory,
  sourceOffset: number,
  byteLength: number,
): void {
  const to = destination.i64
  const from = source.i64
  const words = byteLength >>> 3
  let target = destinationOffset >>> 3
  let origin = sourceOffset >>> 3
  const end = target + words
  // Four at a time: a third faster than one at a time.
  for (; target + 4 <= end; target += 4, origin += 4) {
    to[target] = from[origin]!
    to[target + 1] = from[origin + 1]!
    to[target + 2] = from[origin + 2]!
    to[target + 3] = from[origin + 3]!
  }
  for (; target < end; target++, origin++) to[target] = from[origin]!
  if ((byteLength & 7) !== 0) {
    const done = words * 8
    copyEach(destination, destinationOffset + done, source, sourceOffset + done, byteLength - done)
  }
}

function copyEach(
  destination: Memory,
  destinationOffset: number,
  source: Memory,
  sourceOffset: number,
  byteLength: number,
): void {
  const to = destination.u8
  const from = source.u8
  for (let index = 0; index < byteLength; index++) to[destinationOffset + index] = from[sourceOffset + index]!
}

function copyBlock(
  destination: Memory,
  destinationOffset: number,
  source: Memory,
  sourceOffset: number,
  byteLength: number,
): void {
  if (destination.address !== 0 && source.address !== 0) {
    moveBlock(destination.address + destinationOffset, source.address + sourceOffset, byteLength)
  } else {
    // Heap memory has no address that the kernel or the library may use.
    destination.u8.set(source.u8.subarray(sourceOffset, sourceOffset + byteLength), destinationOffset)
  }
}

/**
 * Long moves use the processor's string instruction, which is ten times slower (measured: 24 µs instead of 2 for 64
 * KiB) when the destination lies 1 to 15 bytes behind the source within a page. Pieces below its threshold avoid it.
 */
function moveBlock(to: number, from: number, byteLength: number): void {
  const distance = (to - from) & PAGE_MASK
  const slow = distance >= 1 && distance <= 15 && byteLength > SLOW_PIECE_BYTES
  const piece = slow ? SLOW_PIECE_BYTES : byteLength
  for (let done = 0; done < byteLength; done += piece)
    memoryMove(to + done, from + done, Math.min(piece, byteLength - done))
}
