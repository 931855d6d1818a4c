/** Numbers of a lane: how its provider requests are named, how many there may be, how much memory it takes. */
import { limits } from '../../protocol/limits.js'
import type { LaneParameters } from '../../protocol/link.js'

/** Bulk chunks posted and not completed, at most: a small write is a chunk too, and clients have some hundred of them under way. */
export const BULK_DEPTH = 256
/** Completions of chunks from this length on open the window, so each asks for one. Of shorter ones the last of a batch does. */
export const SIGNALED_CHUNK_BYTES = 16 * 1024

/** Upper word of a provider request's id: lane row (16 bits), incarnation (15 bits), 1 for receives. */
export function laneIdHigh(index: number, incarnation: number, receive: boolean): number {
  return ((index << 16) | ((incarnation & 0x7fff) << 1) | (receive ? 1 : 0)) >>> 0
}
export const laneIdIndex = (idHigh: number): number => idHigh >>> 16
export const laneIdIncarnation = (idHigh: number): number => (idHigh >>> 1) & 0x7fff
export const laneIdIsReceive = (idHigh: number): boolean => (idHigh & 1) === 1

/** Buffers and depths of a lane with these parameters. */
export function laneSizes(parameters: LaneParameters): { frameCount: number; sendDepth: number; byteLength: number } {
  const frameCount = parameters.bounceCount + 2
  return {
    frameCount,
    sendDepth: frameCount + BULK_DEPTH + 4,
    byteLength:
      (frameCount + parameters.bounceCount) * parameters.bounceByteLength + BULK_DEPTH * limits.inlineByteLength,
  }
}
