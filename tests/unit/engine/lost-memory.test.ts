/**
 * A process dies while its broker is dead: what it had posted is still in the queue pair that it shared, its memory is not. What had arrived
 * succeeds, what had not is refused, in its place; what others posted behind it goes on, also when the next broker dies as well.
 */
import test, { type ExecutionContext } from 'ava'
import { scatterGatherEntry, sendSlot } from '../../../protocol/queue-pair-segment.js'
import { linkAgain, turnUntil } from '../../support/engine-node.js'
import { type End, Stage } from '../../support/engine-stage.js'

const SMALL = { bounceByteLength: 1024, bounceCount: 8, chunkByteLength: 4096 }

/** As after the death of the process whose memory the request in this slot names. */
function loseMemoryOf(end: End, slot: number): void {
  const { mapping, geometry } = end.queuePair
  const word = (geometry.sendSlotsOffset + slot * geometry.sendSlotByteLength) / 4 + sendSlot.word.firstEntry
  mapping.memory.f64[(word + scatterGatherEntry.word.key) >>> 1] = 0
}

/** The node stands still from the moment at which the request in this slot has left on a lane. */
function freezeWhenSent(end: End, slot: number, lane: number): () => void {
  const { node, queuePair } = end
  const { mapping, geometry } = queuePair
  const word = (geometry.sendSlotsOffset + slot * geometry.sendSlotByteLength) / 4 + sendSlot.word.incarnation
  const turn = node.turn.bind(node)
  node.turn = () => (mapping.memory.i32[word] === lane ? 0 : turn())
  return () => {
    node.turn = turn
  }
}

async function scene(t: ExecutionContext): Promise<{ stage: Stage; left: End; right: End; restart(): Promise<void> }> {
  const stage = await Stage.remote(t, { bounceByteLength: 1024 }, SMALL)
  const [left, right] = await stage.pair()
  for (let id = 0; id < 8; id++) right.queuePair.receive({ id, local: right.at(id * 256, 256) })
  await stage.rest()
  let incarnation = 1
  const restart = async (): Promise<void> => {
    const lane = stage.right.engine.lanes[0]!
    stage.right.engine.failLane(lane, 'the peer has started again')
    while (lane.state !== 'failed') stage.right.turn()
    const gone = { lane: 0, incarnation, orderly: false, reason: 'test' }
    const destroyed = stage.right.call('destroy-lane', gone)
    stage.right.turn()
    await destroyed
    await stage.left.restart()
    await linkAgain(stage.left, stage.right, 0, lane.parameters, ++incarnation)
  }
  return { stage, left, right, restart }
}

function postThree(left: End): void {
  for (let id = 0; id < 3; id++) {
    left.fill(id * 256, 100, id)
    left.queuePair.send({ id, opcode: 'send', local: left.at(id * 256, 100) })
  }
}

test('what had arrived succeeds', async (t) => {
  const { stage, left, right, restart } = await scene(t)
  postThree(left)
  stage.left.turn()
  await stage.until(() => right.poll() === 3, 'messages to arrive')
  loseMemoryOf(left, 1)
  await restart()
  await stage.completed([[left, 3]])
  t.deepEqual(left.story, ['0 success', '1 success', '2 success'])
})

test('what had not is refused, and what is delivered behind it proves nothing', async (t) => {
  const { stage, left, right, restart } = await scene(t)
  postThree(left)
  for (let turn = 0; turn < 4; turn++) stage.left.turn()
  loseMemoryOf(left, 1)
  // The next broker sends the last one again, and dies before it hears that it was delivered.
  const thaw = freezeWhenSent(left, 2, 2)
  await restart()
  await turnUntil([stage.right], () => right.poll() === 2, 'two messages')
  t.deepEqual(left.story, [])
  thaw()
  await restart()
  await stage.completed([[left, 3]])
  t.deepEqual(left.story, ['0 success', '1 local-protection-error', '2 success'])
  t.is(right.poll(), 2)
  t.true(right.holds(0, 100, 0) && right.holds(256, 100, 2))
})
