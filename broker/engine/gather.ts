/** Moving payload between scatter/gather lists and flat buffers. */
import { copyBytes } from '../../shm/copy.js'
import type { Memory } from '../../shm/memory.js'
import type { Cursor, ScatterGather, SendRequest } from './request.js'

/** Copies the next `byteLength` bytes of a request's payload (entries or inline) to `target`; the cursor moves on. */
export function gather(request: SendRequest, byteLength: number, target: Memory, targetOffset: number): void {
  if (request.inlineByteLength > 0) {
    const { queuePair } = request
    copyBytes(
      target,
      targetOffset,
      queuePair.memory,
      queuePair.inlineOffset(request.slot) + request.localCursor.offset,
      byteLength,
    )
    request.localCursor.offset += byteLength
    return
  }
  const list = request.local
  const cursor = request.localCursor
  let left = byteLength
  let at = targetOffset
  while (left > 0) {
    const part = Math.min(left, list.lengths[cursor.entry]! - cursor.offset)
    copyBytes(target, at, list.regions[cursor.entry]!.memory, list.offsets[cursor.entry]! + cursor.offset, part)
    advance(cursor, list, part)
    at += part
    left -= part
  }
}

/** Copies bytes into a list, starting `from` bytes after its start. The caller checked that they fit. */
export function scatter(
  list: ScatterGather,
  from: number,
  source: Memory,
  sourceOffset: number,
  byteLength: number,
): void {
  let skip = from
  let at = sourceOffset
  let left = byteLength
  for (let entry = 0; entry < list.count && left > 0; entry++) {
    const length = list.lengths[entry]!
    if (skip >= length) {
      skip -= length
      continue
    }
    const part = Math.min(left, length - skip)
    copyBytes(list.regions[entry]!.memory, list.offsets[entry]! + skip, source, at, part)
    at += part
    left -= part
    skip = 0
  }
}

/** Moves a cursor `byteLength` bytes on; at the end of an entry it stands at the start of the next. */
export function advance(cursor: Cursor, list: ScatterGather, byteLength: number): void {
  cursor.offset += byteLength
  if (cursor.offset >= list.lengths[cursor.entry]!) {
    cursor.entry++
    cursor.offset = 0
  }
}
