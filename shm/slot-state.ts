/**
 * The state word of a slot: the only truth about who may touch it. Rings only point at slots.
 *
 *    31 ............................................ 4   3 .. 0
 *   ┌──────────────────────────────────────────────────┬───────┐
 *   │ generation (28 bits)                             │ state │   free, queued, posted, done
 *   ├─────────────────────────┬────────────────────────┼───────┤
 *   │ generation, low 16 bits │ member index (12 bits) │   1   │   claimed
 *   └─────────────────────────┴────────────────────────┴───────┘
 *    31 .................. 16   15 .................. 4
 *
 *   free g ──client──► claimed ──broker──► queued g ──► posted g ──► done g ──poller──► free g+1
 *     ▲                   │ undo, or sweep after the claimer's death                        │
 *     └───────────────────┴─────────────────────────────────────────────────────────────────┘
 *
 * Invariants:
 * - Every transfer is one compare-and-swap from the exact word; it returns whether it happened, and at most one wins.
 * - The generation grows by one each time a slot becomes free, modulo 2^28: whoever validates an old reading (a poller
 *   with a reference, a consumer with an entry) fails. `claimed` keeps only 16 bits, because nobody validates a claim.
 * - All zero is `free`, generation 0: a legal start.
 * - A claim is undone only by its claimer, or by the broker when the claimer is dead *and* the ring has been drained.
 */
import type { Words } from './words.js'

export const SLOT_FREE = 0
export const SLOT_CLAIMED = 1
export const SLOT_QUEUED = 2
export const SLOT_POSTED = 3
export const SLOT_DONE = 4
export type SlotState = 0 | 1 | 2 | 3 | 4

export const SLOT_STATE_NAMES = ['free', 'claimed', 'queued', 'posted', 'done'] as const

const GENERATION_MASK = 0xfffffff
const LOW_GENERATION_MASK = 0xffff
const MEMBER_MASK = 0xfff
const STATE_MASK = 15

/** Nothing was claimed. */
export const NO_CLAIM = -1

/** The word of a state other than `claimed`. */
export function packState(state: number, generation: number): number {
  return (generation << 4) | state
}

export function packClaimed(memberIndex: number, generation: number): number {
  return (generation << 16) | ((memberIndex & MEMBER_MASK) << 4) | SLOT_CLAIMED
}

/** 0 to 15; a hostile word may hold a state that does not exist. */
export function stateOf(word: number): number {
  return word & STATE_MASK
}

/** Meaningless for `claimed`. */
export function generationOf(word: number): number {
  return word >>> 4
}

/** Only for `claimed`. */
export function claimerOf(word: number): number {
  return (word >>> 4) & MEMBER_MASK
}

/** Only for `claimed`: the low 16 bits. */
export function claimedGenerationOf(word: number): number {
  return word >>> 16
}

export function nextGeneration(generation: number): number {
  return (generation + 1) & GENERATION_MASK
}

/**
 * The full generation of a claim, given a generation that the slot had at that time or up to 65,535 claims before: what
 * the slot's body says, which the claimer may or may not have updated before it died.
 */
export function generationOfClaim(word: number, bodyGeneration: number): number {
  const ahead = (claimedGenerationOf(word) - bodyGeneration) & LOW_GENERATION_MASK
  return (bodyGeneration + ahead) & GENERATION_MASK
}

/** free → claimed. The generation claimed, or NO_CLAIM: not free, or somebody was faster; try another slot. */
export function claimFree(words: Words, index: number, memberIndex: number): number {
  const found = words.peek(index)
  if (stateOf(found) !== SLOT_FREE) return NO_CLAIM
  const generation = generationOf(found)
  const claimed = packClaimed(memberIndex, generation)
  return words.compareExchange(index, found, claimed) === found ? generation : NO_CLAIM
}

/** claimed → free, by the claimer, for a slot that was not committed. */
export function undoClaim(words: Words, index: number, memberIndex: number, generation: number): boolean {
  const claimed = packClaimed(memberIndex, generation)
  const free = packState(SLOT_FREE, nextGeneration(generation))
  return words.compareExchange(index, claimed, free) === claimed
}

/**
 * claimed → queued, by the broker that took the reference, whoever claimed it. False: not claimed (a stale entry), or
 * another generation.
 */
export function claimedToQueued(words: Words, index: number, generation: number): boolean {
  return takeClaimed(words, index, SLOT_QUEUED, generation)
}

/** The same for a receive, which waits nowhere: whoever takes it may match a message to it at once. */
export function claimedToPosted(words: Words, index: number, generation: number): boolean {
  return takeClaimed(words, index, SLOT_POSTED, generation)
}

/** Before the doorbell of the device: from here on the request may have been sent. */
export function queuedToPosted(words: Words, index: number, generation: number): boolean {
  return transfer(words, index, SLOT_QUEUED, SLOT_POSTED, generation)
}

/** After the result words: commits the completion. */
export function postedToDone(words: Words, index: number, generation: number): boolean {
  return transfer(words, index, SLOT_POSTED, SLOT_DONE, generation)
}

/** A verdict for a request that was never sent. */
export function queuedToDone(words: Words, index: number, generation: number): boolean {
  return transfer(words, index, SLOT_QUEUED, SLOT_DONE, generation)
}

/** A posted request that certainly had no effect waits again. */
export function postedToQueued(words: Words, index: number, generation: number): boolean {
  return transfer(words, index, SLOT_POSTED, SLOT_QUEUED, generation)
}

/** done → free: a poller's claim of the completion. The one that wins delivers it. */
export function doneToFree(words: Words, index: number, generation: number): boolean {
  return free(words, index, SLOT_DONE, generation)
}

/** An unsignalled success needs no poller. */
export function postedToFree(words: Words, index: number, generation: number): boolean {
  return free(words, index, SLOT_POSTED, generation)
}

/** A queued request that is withdrawn without a completion. */
export function queuedToFree(words: Words, index: number, generation: number): boolean {
  return free(words, index, SLOT_QUEUED, generation)
}

function takeClaimed(words: Words, index: number, to: number, generation: number): boolean {
  const found = words.peek(index)
  if (stateOf(found) !== SLOT_CLAIMED) return false
  if (claimedGenerationOf(found) !== (generation & LOW_GENERATION_MASK)) return false
  return words.compareExchange(index, found, packState(to, generation)) === found
}

function transfer(words: Words, index: number, from: number, to: number, generation: number): boolean {
  const expected = packState(from, generation)
  return words.compareExchange(index, expected, packState(to, generation)) === expected
}

function free(words: Words, index: number, from: number, generation: number): boolean {
  const expected = packState(from, generation)
  return words.compareExchange(index, expected, packState(SLOT_FREE, nextGeneration(generation))) === expected
}

/**
 * claimed by a dead member → free, after its rings were drained. `bodyGeneration` is the generation field of the slot,
 * which completes the 16 bits in the word. True if the slot was freed. May be repeated.
 */
export function freeClaimedBy(words: Words, index: number, memberIndex: number, bodyGeneration: number): boolean {
  const found = words.load(index)
  if (stateOf(found) !== SLOT_CLAIMED || claimerOf(found) !== memberIndex) return false
  const generation = generationOfClaim(found, bodyGeneration)
  return words.compareExchange(index, found, packState(SLOT_FREE, nextGeneration(generation))) === found
}
