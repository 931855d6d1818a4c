/**
 * Keys of memory regions as clients see them: slot (24 bits) and generation (24 bits) in one safe integer, scoped to a node
 * and a job. Never the device's own key, which changes when a broker registers again. Generation 0 is never issued, so 0 is no key.
 */
const SLOT_RANGE = 0x1000000

export function packKey(slot: number, generation: number): number {
  return generation * SLOT_RANGE + slot
}

export const keySlot = (key: number): number => key % SLOT_RANGE
export const keyGeneration = (key: number): number => Math.floor(key / SLOT_RANGE)

export function isKey(key: number): boolean {
  return Number.isSafeInteger(key) && key >= SLOT_RANGE && key < SLOT_RANGE * SLOT_RANGE
}

/** The generation after this one; skips 0. */
export function nextKeyGeneration(generation: number): number {
  return generation >= SLOT_RANGE - 1 ? 1 : generation + 1
}
