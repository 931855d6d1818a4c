/** The entry of a request that has exactly one, as nearly all have: read once, checked against the tables, kept until the next one is read. */
import { scatterGatherEntry } from '../../protocol/queue-pair-segment.js'
import type { Engine } from './engine.js'
import type { EngineQueuePair } from './queue-pair.js'
import type { Region } from './region.js'

const KEY = scatterGatherEntry.word.key >>> 1
const OFFSET = scatterGatherEntry.word.offset
const LENGTH = scatterGatherEntry.word.byteLength

export class OnlyEntry {
  #region: Region | null = null
  offset = 0
  byteLength = 0

  /** Of the last that was read with success. */
  get region(): Region {
    return this.#region!
  }

  /** `word`: where the entries of a slot start. False: nothing that can be used; who wants to know why looks again (`entries.ts`). */
  read(engine: Engine, { memory, job }: EngineQueuePair, word: number): boolean {
    const byteLength = memory.u32[word + LENGTH]!
    if (byteLength === 0) return false
    const offset = memory.u32[word + OFFSET]!
    const region = engine.regions.find(memory.f64[(word >>> 1) + KEY]!, job)
    // Both are whole numbers of 32 bits, so their sum is exact.
    if (region === null || offset + byteLength > region.byteLength) return false
    this.#region = region
    this.offset = offset
    this.byteLength = byteLength
    return true
  }
}
