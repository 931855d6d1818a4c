import test from 'ava'
import fc from 'fast-check'
import { systemFutex } from '../../../shm/libc.js'
import * as slot from '../../../shm/slot-state.js'
import { SharedWords, type Words } from '../../../shm/words.js'

const generations = fc.oneof(fc.integer({ min: 0, max: 0xfffffff }), fc.constantFrom(0, 0xffff, 0x10000, 0xfffffff))
const members = fc.integer({ min: 0, max: 2047 })

function words(word = 0): Words {
  const made = new SharedWords(new Int32Array(2), 0, systemFutex)
  made.store(1, word)
  return made
}

test('every state and generation survives packing', (t) => {
  fc.assert(
    fc.property(
      fc.constantFrom(slot.SLOT_FREE, slot.SLOT_QUEUED, slot.SLOT_POSTED, slot.SLOT_DONE),
      generations,
      (state, generation) => {
        const word = slot.packState(state, generation)
        return (word | 0) === word && slot.stateOf(word) === state && slot.generationOf(word) === generation
      },
    ),
  )
  t.is(slot.packState(slot.SLOT_FREE, 0), 0)
  t.deepEqual(
    slot.SLOT_STATE_NAMES.map((_, state) => slot.stateOf(slot.packState(state, 5))),
    [0, 1, 2, 3, 4],
  )
})

test('a claim names its member and the low half of its generation', (t) => {
  fc.assert(
    fc.property(members, generations, (member, generation) => {
      const word = slot.packClaimed(member, generation)
      return (
        slot.stateOf(word) === slot.SLOT_CLAIMED &&
        slot.claimerOf(word) === member &&
        slot.claimedGenerationOf(word) === (generation & 0xffff)
      )
    }),
  )
  t.pass()
})

test('the full generation of a claim follows from what the body last said, across every wrap', (t) => {
  fc.assert(
    fc.property(generations, fc.integer({ min: 0, max: 0xffff }), (bodyGeneration, ahead) => {
      const generation = (bodyGeneration + ahead) & 0xfffffff
      return slot.generationOfClaim(slot.packClaimed(9, generation), bodyGeneration) === generation
    }),
  )
  t.pass()
})

test('a slot goes round from free to free with the next generation', (t) => {
  fc.assert(
    fc.property(generations, members, (generation, member) => {
      const shared = words(slot.packState(slot.SLOT_FREE, generation))
      t.is(slot.claimFree(shared, 1, member), generation)
      t.is(slot.claimFree(shared, 1, member), slot.NO_CLAIM)
      t.true(slot.claimedToQueued(shared, 1, generation))
      t.true(slot.queuedToPosted(shared, 1, generation))
      t.true(slot.postedToQueued(shared, 1, generation))
      t.true(slot.queuedToPosted(shared, 1, generation))
      t.true(slot.postedToDone(shared, 1, generation))
      t.true(slot.doneToFree(shared, 1, generation))
      t.is(shared.load(1), slot.packState(slot.SLOT_FREE, (generation + 1) % 2 ** 28))
      t.false(slot.doneToFree(shared, 1, generation))
    }),
  )
})

test('each transfer happens only from its exact word', (t) => {
  const transfers = {
    queuedToPosted: [slot.queuedToPosted, slot.SLOT_QUEUED],
    postedToDone: [slot.postedToDone, slot.SLOT_POSTED],
    postedToQueued: [slot.postedToQueued, slot.SLOT_POSTED],
    queuedToDone: [slot.queuedToDone, slot.SLOT_QUEUED],
    doneToFree: [slot.doneToFree, slot.SLOT_DONE],
    postedToFree: [slot.postedToFree, slot.SLOT_POSTED],
    queuedToFree: [slot.queuedToFree, slot.SLOT_QUEUED],
  } as const
  for (const [name, [transfer, from]] of Object.entries(transfers)) {
    for (const state of [0, 1, 2, 3, 4, 5, 15]) {
      for (const generation of [6, 7]) {
        const shared = words(slot.packState(state, generation))
        t.is(transfer(shared, 1, 7), state === from && generation === 7, `${name} from ${state}|${generation}`)
      }
    }
  }
})

test('a reference to a slot that is not claimed, or not in that generation, queues nothing', (t) => {
  const shared = words(slot.packState(slot.SLOT_FREE, 7))
  t.false(slot.claimedToQueued(shared, 1, 7))
  slot.claimFree(shared, 1, 3)
  t.false(slot.claimedToQueued(shared, 1, 8))
  t.true(slot.claimedToQueued(shared, 1, 7))
  t.false(slot.claimedToQueued(shared, 1, 7))
})

test('a claim is undone by its claimer only, and uses up its generation', (t) => {
  const shared = words(slot.packState(slot.SLOT_FREE, 7))
  slot.claimFree(shared, 1, 3)
  t.false(slot.undoClaim(shared, 1, 4, 7))
  t.true(slot.undoClaim(shared, 1, 3, 7))
  t.is(shared.load(1), slot.packState(slot.SLOT_FREE, 8))
})

test('the sweep frees what the dead member claimed and nothing else, however often it runs', (t) => {
  const shared = words(slot.packState(slot.SLOT_FREE, 0x1ffff))
  slot.claimFree(shared, 1, 3)
  t.false(slot.freeClaimedBy(shared, 1, 4, 0x1fffe))
  t.true(slot.freeClaimedBy(shared, 1, 3, 0x1fffe))
  t.is(shared.load(1), slot.packState(slot.SLOT_FREE, 0x20000))
  t.false(slot.freeClaimedBy(shared, 1, 3, 0x1fffe))
  for (const state of [slot.SLOT_QUEUED, slot.SLOT_POSTED, slot.SLOT_DONE]) {
    const other = words(slot.packState(state, 3))
    t.false(slot.freeClaimedBy(other, 1, 3, 3))
  }
})

test('of two that claim the same slot at the same moment one wins', (t) => {
  const shared = words()
  // Its load was before the other's claim.
  const racing: Words = { ...shared, peek: () => 0, compareExchange: (...call) => shared.compareExchange(...call) }
  t.is(slot.claimFree(shared, 1, 3), 0)
  t.is(slot.claimFree(racing, 1, 4), slot.NO_CLAIM)
  t.is(slot.claimerOf(shared.load(1)), 3)
})
