/** What bulk leaves in front of small messages, and for how long after the last of them. */
import test from 'ava'
import { BulkPace, chunkLimit, pace, windowLimit } from '../../../broker/engine/bulk-pace.js'

const KIB = 1024
const MIB = 2 ** 20

test('a lane without small messages has the whole window; one small message is enough for the smallest one', (t) => {
  const lane = new BulkPace()
  t.is(lane.at(0), pace.alone)
  lane.smallMessages++
  t.is(lane.at(1000), pace.besideMany)
  t.is(lane.at(1049), pace.besideMany)
  t.is(lane.at(1050), pace.alone, 'none came since')
  lane.smallMessages++
  t.is(lane.at(2000), pace.besideMany)
})

/** Posts chunks until there are so many bytes, and now and then a small message. */
function stream(lane: BulkPace, byteLength: number, bytesOfEach: number): void {
  for (let bytes = 0; bytes < byteLength; bytes += 64 * KIB) {
    if (bytes % bytesOfEach === 0) lane.smallMessages++
    lane.bulkBytes += 64 * KIB
    lane.at(0)
  }
}

test('a header for each write leaves bulk more than a ping-pong does, in both directions of change', (t) => {
  const lane = new BulkPace()
  stream(lane, 2 * MIB, MIB)
  t.is(lane.at(0), pace.besideFew)
  stream(lane, 2 * MIB, 64 * KIB)
  t.is(lane.at(0), pace.besideMany)
  stream(lane, 2 * MIB, MIB)
  t.is(lane.at(0), pace.besideFew)
})

test('what was seen before a silence says nothing about what comes after it', (t) => {
  const lane = new BulkPace()
  stream(lane, 2 * MIB, MIB)
  lane.bulkBytes += 100 * MIB
  t.is(lane.at(1000), pace.alone)
  lane.smallMessages++
  t.is(lane.at(1001), pace.besideMany)
})

test('window and chunk are smaller beside small messages, never larger than what the lane has', (t) => {
  t.is(windowLimit(4 * MIB, pace.alone), 4 * MIB)
  t.is(chunkLimit(MIB, pace.alone), MIB)
  for (const beside of [pace.besideFew, pace.besideMany]) {
    t.true(windowLimit(4 * MIB, beside) < MIB)
    t.is(windowLimit(4096, beside), 4096)
    t.true(chunkLimit(MIB, beside) * 2 <= windowLimit(4 * MIB, beside), 'one is copied in while another is copied out')
    t.is(chunkLimit(4096, beside), 4096)
  }
  t.true(pace.besideMany.windowByteLength < pace.besideFew.windowByteLength)
})
