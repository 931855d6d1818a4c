/** What bulk leaves in front of small messages, and for how long after the last of them. */
import test from 'ava'
import { BulkPace, chunkLimit, windowLimit } from '../../../broker/engine/bulk-pace.js'

const MIB = 2 ** 20

test('a lane without small messages has the whole window; one small message is enough for the smaller one', (t) => {
  const pace = new BulkPace()
  t.false(pace.isShared(0))
  pace.smallMessages++
  t.true(pace.isShared(1000))
  t.true(pace.isShared(1049))
  t.false(pace.isShared(1050), 'none came since')
  pace.smallMessages++
  t.true(pace.isShared(2000))
})

test('window and chunk are smaller while shared, never larger than what the lane has', (t) => {
  t.is(windowLimit(4 * MIB, false), 4 * MIB)
  t.true(windowLimit(4 * MIB, true) < MIB)
  t.is(windowLimit(4096, true), 4096)
  t.is(chunkLimit(MIB, false), MIB)
  t.true(chunkLimit(MIB, true) * 2 <= windowLimit(4 * MIB, true), 'one is copied in while another is copied out')
  t.is(chunkLimit(4096, true), 4096)
})
