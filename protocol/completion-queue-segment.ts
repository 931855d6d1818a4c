/**
 * The segment of a completion queue: a ring of references to slots that are done, and who sleeps on it.
 *
 *   0      identity (broker, once)
 *   64     tail (broker)            published after the entries it covers; pairs with the pollers' load
 *   128    head (pollers, hint)     moved by compare-and-swap after the slots were claimed
 *   192    armed: 2 root words, 64 leaf words, one bit a member  ·  the same for "solicited only"
 *   …      entries, 8 bytes: reference (queue pair, side, slot) and generation
 *
 * Invariants: an entry is a hint; a poller owns a completion only after its compare-and-swap done|generation → free on the
 * slot. Publishing an entry twice is harmless. A full ring is back-pressure: completions wait in their slots.
 */
import { cacheLine, gap, layout, u32, word } from '../shm/layout.js'
import { ringCapacity } from '../shm/reference-ring.js'

export const completionQueueMagic = 0x63717331

export const completionQueueHeader = layout('completion-queue-header', {
  magic: u32(),
  version: u32(),
  number: u32(),
  generation: u32(),
  capacity: u32(),
  identityEnd: cacheLine(),
  tail: word(),
  brokerEnd: cacheLine(),
  head: word(),
  pollersEnd: cacheLine(),
  armedRoot: gap(8),
  solicitedRoot: gap(8),
  rootEnd: cacheLine(),
  armedLeaf: gap(256),
  solicitedLeaf: gap(256),
})

export const completionEntry = layout('completion-entry', {
  reference: word(),
  generation: word(),
})

export const side = { send: 0, receive: 1 } as const
export type Side = (typeof side)[keyof typeof side]

/** Reference word: queue pair number (18 bits), side (1 bit), slot (13 bits). */
export function packReference(queuePair: number, onSide: number, slot: number): number {
  return (queuePair << 14) | (onSide << 13) | slot
}
export const referenceQueuePair = (reference: number): number => reference >>> 14
export const referenceSide = (reference: number): number => (reference >>> 13) & 1
export const referenceSlot = (reference: number): number => reference & 0x1fff

export interface CompletionQueueGeometry {
  /** A power of two. */
  readonly capacity: number
  readonly entriesOffset: number
  readonly byteLength: number
}

export function completionQueueGeometry(capacity: number): CompletionQueueGeometry {
  const rounded = ringCapacity(Math.max(2, capacity))
  const entriesOffset = completionQueueHeader.byteLength
  return { capacity: rounded, entriesOffset, byteLength: entriesOffset + rounded * completionEntry.byteLength }
}
