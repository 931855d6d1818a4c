/** Posters that were refused because somebody held the lock of a shared queue pair hear when they may try again. */
import test from 'ava'
import { queuePairHeader } from '../../../protocol/queue-pair-segment.js'
import { Stage } from '../../support/engine-stage.js'

const rooms = (stage: Stage): number => stage.left.events.filter(({ name }) => name === 'queue-pair-room').length

test.serial('whoever was refused hears of room when the holder has posted, or was swept; once each', async (t) => {
  const stage = await Stage.remote(t)
  const [left, right] = await stage.pair()
  right.queuePair.receive({ id: 1, local: right.at(0, 64) }, { id: 2, local: right.at(0, 64) })
  await stage.rest()
  t.is(rooms(stage), 0)
  left.queuePair.mapping.words.store(queuePairHeader.word.wantRoom, 1)
  left.queuePair.send({ id: 1, opcode: 'send', local: left.at(0, 16) })
  await stage.completed([[left, 1]])
  t.is(rooms(stage), 1)
  left.queuePair.send({ id: 2, opcode: 'send', local: left.at(0, 16) })
  await stage.completed([[left, 2]])
  t.is(rooms(stage), 1)
  left.queuePair.mapping.words.store(queuePairHeader.word.wantRoom, 1)
  await stage.left.call('sweep-member', { job: 1, member: 77, generation: 1 })
  t.is(rooms(stage), 2)
})
