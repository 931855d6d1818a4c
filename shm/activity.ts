/**
 * Which of many rings has something new: a bitmap of three levels, so that a thousand idle rings cost one load.
 *
 *   top    1 word       bit r  = root word r may have bits
 *   root   32 words     bit l  = leaf word r·32 + l may have bits
 *   leaf   1,024 words  bit b  = ring (leaf·32 + b) has something new        32,768 rings
 *
 * Marker (any client):    publish ─► OR leaf ─► OR root ─► OR top ─► load `sleeping`, ring the doorbell if set
 * Collector (the broker): exchange top with 0 ─► exchange each root ─► exchange each leaf ─► look at each ring
 *
 * Invariants:
 * - Publish first. A bit set before the reference is there is collected, nothing is found, and nobody looks again.
 * - Upwards when marking, downwards when collecting: a collector that took an upper bit finds the lower one, and one
 *   that took the lower bit too early leaves the upper one behind, which costs one look at an empty word.
 * - All three ORs are unconditional. "The leaf bit is set already, so its marker has set root" is wrong: that marker
 *   may have been killed in between, and then nobody would ever set root again.
 * - A marker killed between publish and OR leaves its ring unmarked: the sweep after its death drains its rings
 *   whatever the bits say. So does a new broker with all rings, because the old one may have died holding bits it had
 *   taken.
 * - Whoever collects a bit owns the duty: a ring left half drained stays on the collector's private list.
 * - Bits are hints that any client can set: the collector checks that the ring exists.
 */
import { bytes, cacheLine, layout, word } from './layout.js'
import type { Words } from './words.js'

const ROOT_WORDS = 32
const LEAF_WORDS = 1024

/** The bits of one job. The top word has a line of its own: the collector polls it. */
export const activityLayout = layout('activity', {
  top: word(),
  topLine: cacheLine(),
  root: bytes(ROOT_WORDS * 4),
  leaf: bytes(LEAF_WORDS * 4),
})

export const ACTIVITY_BITS = LEAF_WORDS * 32

const TOP = activityLayout.word.top
const ROOT = activityLayout.word.root
const LEAF = activityLayout.word.leaf

/**
 * Says that ring `bit` has something new. Call after publishing; then look whether the collector sleeps. `base` counts
 * 32-bit words.
 */
export function markActive(words: Words, base: number, bit: number): void {
  const leaf = bit >>> 5
  const root = bit >>> 10
  words.or(base + LEAF + leaf, 1 << (bit & 31))
  words.or(base + ROOT + root, 1 << (leaf & 31))
  words.or(base + TOP, 1 << root)
}

/** Takes all bits and visits each once; how many. `visit` must not throw: bits already taken would be forgotten. */
export function collectActive(words: Words, base: number, visit: (bit: number) => void): number {
  // The load keeps an idle collector from taking the line away from markers. It pairs with the OR of top.
  if (words.load(base + TOP) === 0) return 0
  let count = 0
  let roots = words.exchange(base + TOP, 0)
  while (roots !== 0) {
    const root = lowestBit(roots)
    roots &= roots - 1
    let leaves = words.exchange(base + ROOT + root, 0)
    while (leaves !== 0) {
      const leaf = root * 32 + lowestBit(leaves)
      leaves &= leaves - 1
      count += collectLeaf(words, base, leaf, visit)
    }
  }
  return count
}

function collectLeaf(words: Words, base: number, leaf: number, visit: (bit: number) => void): number {
  let count = 0
  let bits = words.exchange(base + LEAF + leaf, 0)
  while (bits !== 0) {
    visit(leaf * 32 + lowestBit(bits))
    bits &= bits - 1
    count++
  }
  return count
}

function lowestBit(bits: number): number {
  return 31 - Math.clz32(bits & -bits)
}

/** True if a collection might find something: the look before sleeping. */
export function anyActive(words: Words, base: number): boolean {
  return words.load(base + TOP) !== 0
}

/** For a new broker, *before* it drains all rings once: a mark made while it drains must stay. */
export function clearAll(words: Words, base: number): void {
  words.store(base + TOP, 0)
  for (let index = 0; index < ROOT_WORDS; index++) words.store(base + ROOT + index, 0)
  for (let index = 0; index < LEAF_WORDS; index++) words.store(base + LEAF + index, 0)
}
