/** What an engine does when a successor is to go on: nothing more leaves, and service goes on if that takes too long. */
import test from 'ava'
import { Stage } from '../../support/engine-stage.js'

test.serial(
  'a handover waits for reads, writes and atomics, not for messages, which a successor sends again',
  async (t) => {
    const stage = await Stage.remote(t)
    const [left, right] = await stage.pair()
    left.queuePair.send({ id: 1, opcode: 'send', local: left.at(0, 16) })
    right.queuePair.receive({ id: 1, local: right.at(0, 64) })
    await stage.rest()
    // Its completion comes when the peer says so; only this side turns.
    right.queuePair.receive({ id: 2, local: right.at(0, 64) })
    await stage.rest()
    left.queuePair.send({ id: 2, opcode: 'send', local: left.at(0, 16) })
    for (let turn = 0; turn < 20; turn++) stage.left.turn()
    t.is(stage.left.engine.outstanding(), 1)
    const drained = stage.left.call('drain', { timeoutMs: 1000, handover: true })
    left.queuePair.send({ id: 3, opcode: 'send', local: left.at(0, 16) })
    for (let turn = 0; turn < 20; turn++) stage.left.turn()
    t.deepEqual(await drained, { outstanding: 0 })
    t.is(stage.left.engine.outstanding(), 1, 'what was posted meanwhile did not leave')
  },
)

test.serial('a handover that takes too long is given up, and everything goes on', async (t) => {
  const stage = await Stage.remote(t)
  const [left, right] = await stage.pair()
  const remote = { key: right.memory.key, offset: 0 }
  left.queuePair.send({ id: 1, opcode: 'write', local: left.at(0, 16), remote })
  await stage.completed([[left, 1]])
  left.queuePair.send({ id: 2, opcode: 'read', local: left.at(0, 16), remote })
  for (let turn = 0; turn < 20; turn++) stage.left.turn()
  const drained = stage.left.call('drain', { timeoutMs: 2, handover: true })
  left.queuePair.send({ id: 3, opcode: 'write', local: left.at(0, 16), remote })
  let outcome: { outstanding: number } | null = null
  void drained.then((answer) => {
    outcome = answer
  })
  const asked = Date.now()
  while (outcome === null && Date.now() - asked < 10_000) {
    stage.left.turn()
    await new Promise(setImmediate)
  }
  t.deepEqual(outcome, { outstanding: 1 })
  await stage.completed([[left, 3]])
  t.deepEqual(left.story, ['1 success', '2 success', '3 success'])
})
