/** Moving payload between scatter/gather lists and flat buffers. */
import { copyBytes } from '../../shm/copy.js'
import type { Memory } from '../../shm/memory.js'
import type { ScatterGather, SendRequest } from './request.js'

/** Copies the next `byteLength` bytes of a request's payload (entries or inline) to `target`; the request remembers where it stands. */
export function gather(request: SendRequest, byteLength: number, target: Memory, targetOffset: number): void {
  if (request.inlineByteLength > 0) {
    const { queuePair } = request
    copyBytes(
      target,
      targetOffset,
      queuePair.memory,
      queuePair.inlineOffset(request.slot) + request.localOffset,
      byteLength,
    )
    request.localOffset += byteLength
    return
  }
  const list = request.local
  let left = byteLength
  let at = targetOffset
  while (left > 0) {
    const { localEntry, localOffset } = request
    const part = Math.min(left, list.length(localEntry) - localOffset)
    copyBytes(target, at, list.region(localEntry).memory, list.offset(localEntry) + localOffset, part)
    request.advanceLocal(part)
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
    const length = list.length(entry)
    if (skip >= length) {
      skip -= length
      continue
    }
    const part = Math.min(left, length - skip)
    copyBytes(list.region(entry).memory, list.offset(entry) + skip, source, at, part)
    at += part
    left -= part
    skip = 0
  }
}
