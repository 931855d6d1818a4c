import test from 'ava'
import { defaults, limits } from '../../../protocol/limits.js'
import { linkMessageByteLength } from '../../../protocol/link.js'
import { ownerMember, ownerWord } from '../../../shm/robust-lock.js'
import { claimerOf, packClaimed } from '../../../shm/slot-state.js'

test('defaults are within the limits', (t) => {
  t.true(defaults.maxSend <= limits.slotsPerQueue && defaults.maxSend >= limits.minimumSlotsPerQueue)
  t.true(defaults.maxReceive <= limits.slotsPerQueue && defaults.maxReceive >= limits.minimumSlotsPerQueue)
  t.true(defaults.maxInline <= limits.inlineByteLength)
  t.true(defaults.completionQueueCapacity <= limits.completionQueueCapacity)
  t.true(defaults.lanes <= limits.lanes)
})

test('every member number survives locks and claims', (t) => {
  for (const member of [0, 1, 1024, limits.members]) {
    t.is(ownerMember(ownerWord(member, 1)), member)
    t.is(claimerOf(packClaimed(member, 1)), member)
  }
})

test('byte lengths of regions and messages fit 32 bits, and end on a page', (t) => {
  for (const byteLength of [limits.regionByteLength, limits.messageByteLength]) {
    t.true(byteLength <= 0xffffffff)
    t.is(byteLength % 4096, 0)
  }
})

test('a link message is no larger than a control message', (t) => {
  t.true(linkMessageByteLength <= limits.controlMessageByteLength)
})
