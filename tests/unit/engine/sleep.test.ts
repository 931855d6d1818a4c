/**
 * An engine sleeps only when nothing of its own is left to do. All engine tests are turned by a crank that lets a sleeping engine lie
 * until something would wake it, so a missed wake-up stands still everywhere; here it is asked directly, at any moment of a program.
 */
import test from 'ava'
import type { Engine } from '../../../broker/engine/engine.js'
import type { Flow } from '../../../broker/engine/flow.js'
import { Program } from '../../support/engine-program.js'
import { Stage } from '../../support/engine-stage.js'

/** Why something is left although everybody sleeps; empty when there is no reason to complain. */
function complaints(engine: Engine): string[] {
  const found: string[] = []
  for (const queuePair of engine.queuePairs) {
    if (!queuePair) continue
    if (queuePair.receiveRing.pending() !== 0) found.push('a receive ring is not drained')
    // What could only wait behind others stays in the ring.
    if (queuePair.sendRing.pending() !== 0 && !queuePair.flow?.waiting.size) found.push('a send ring is not drained')
    for (const flow of queuePair.everyFlow()) {
      if (flow.inFlight.size > 0 || flow.inbound.size > 0 || flow.moving) found.push(`under way on ${queuePair.number}`)
      if (flow.waiting.size > 0 && hasReceive(engine, flow)) found.push(`waits on ${queuePair.number}: ${flow.blocked}`)
    }
  }
  for (const lane of engine.lanes) {
    if (!lane) continue
    if (lane.hasControl || lane.hasNews || lane.bulk.length > 0 || lane.outstanding > 0) found.push('a lane has work')
  }
  for (const queue of engine.completionQueues) {
    if (queue && queue.backlog > 0) found.push('completions wait although their ring has room')
  }
  return found
}

/** The request at the head could go: its peer has a receive for it, or it needs none. */
function hasReceive(engine: Engine, flow: Flow): boolean {
  if (flow.blocked !== 'credit') return true
  if (flow.lane) return ((flow.receiveLimit - flow.messagesSent) | 0) > 0
  return engine.queuePairs[flow.remoteNumber]!.receives.size > 0
}

for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
  test.serial(`nothing is left when every engine sleeps: seed ${seed}`, async (t) => {
    const parameters = { bounceByteLength: 1024, bounceCount: seed % 2 === 0 ? 4 : 8, chunkByteLength: 4096 }
    const stage = await Stage.remote(t, { bounceByteLength: 1024 }, parameters)
    const program = new Program(stage, { seed, steps: 60, disturb: false, connectedOnly: true })
    await program.set()
    for (let part = 0; part < 30; part++) {
      await program.run()
      // With room in the completion rings nothing is due by time alone.
      await program.rest()
      for (const { engine } of stage.nodes) {
        t.deepEqual(complaints(engine), [], `seed ${seed}, part ${part}`)
        t.is(engine.nextDueMs(engine.nowMs), Number.POSITIVE_INFINITY)
      }
    }
    await program.finish()
    program.oracle.conclude()
    t.deepEqual(program.oracle.problems, [])
  })
}
