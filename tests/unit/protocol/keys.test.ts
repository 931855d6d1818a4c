import test from 'ava'
import fc from 'fast-check'
import { isKey, keyGeneration, keySlot, nextKeyGeneration, packKey } from '../../../protocol/keys.js'
import { limits } from '../../../protocol/limits.js'

const slots = fc.nat({ max: 0xffffff })
const generations = fc.integer({ min: 1, max: 0xffffff })

test('a key gives slot and generation back, and is a safe integer', (t) => {
  fc.assert(
    fc.property(slots, generations, (slot, generation) => {
      const key = packKey(slot, generation)
      t.deepEqual([keySlot(key), keyGeneration(key)], [slot, generation])
      t.true(isKey(key))
    }),
  )
  t.is(packKey(0xffffff, 0xffffff), 2 ** 48 - 1)
})

test('different slots or generations never make one key', (t) => {
  fc.assert(
    fc.property(slots, generations, slots, generations, (slot, generation, otherSlot, otherGeneration) => {
      const same = slot === otherSlot && generation === otherGeneration
      return same === (packKey(slot, generation) === packKey(otherSlot, otherGeneration))
    }),
  )
  t.pass()
})

test('what cannot have been issued is no key', (t) => {
  const wrong = [0, 1, 0xffffff, packKey(5, 0), -packKey(5, 1), packKey(5, 1) + 0.5, 2 ** 48, 2 ** 53]
  for (const key of [...wrong, Number.NaN, Number.POSITIVE_INFINITY]) t.false(isKey(key), String(key))
  t.true(isKey(packKey(0, 1)))
  t.true(isKey(packKey(limits.regions - 1, 0xffffff)))
})

test('generations go up by one, wrap, and are never 0', (t) => {
  t.is(nextKeyGeneration(0), 1)
  t.is(nextKeyGeneration(1), 2)
  t.is(nextKeyGeneration(0xfffffe), 0xffffff)
  t.is(nextKeyGeneration(0xffffff), 1)
  t.is(nextKeyGeneration(2 ** 32), 1)
  fc.assert(fc.property(slots, generations, (slot, now) => isKey(packKey(slot, nextKeyGeneration(now)))))
})
