/**
 * Brokers that are killed at some store to shared memory, their successors also while they adopt what is left: nothing is lost or doubled, every verdict is true, and
 * `unknown` stands only where nothing can know.
 */
import test, { type ExecutionContext } from 'ava'
import { counterIndex } from '../../../protocol/node-file.js'
import { ADD_WORD, Program } from '../../support/engine-program.js'
import { checkAtRest, Stage } from '../../support/engine-stage.js'

async function survive(t: ExecutionContext, seed: number, who: 'left' | 'both' | 'either', replayable: boolean) {
  const stage = await Stage.remote(
    t,
    { bounceByteLength: 1024 },
    { bounceByteLength: 1024, bounceCount: 8, chunkByteLength: 4096 },
  )
  const program = new Program(stage, { seed, steps: 150, disturb: false, replayable })
  await program.set()
  for (let death = 0; death < 6; death++) {
    await program.run()
    const one = who === 'left' ? stage.left : program.choices.pick(stage.nodes)
    await program.kill(who === 'both' ? stage.nodes : [one])
  }
  await program.run()
  await program.finish()
  await stage.rest()
  program.oracle.conclude()
  t.deepEqual(program.oracle.problems, [], `seed ${seed}`)
  for (const [actor, { least, most }] of program.added) {
    const sum = actor.end.memory.mapping.memory.i64[ADD_WORD / 8]!
    t.true(sum >= least && sum <= most, `sum ${sum} of ${least} to ${most}, seed ${seed}`)
  }
  checkAtRest(t, stage.nodes)
  const requests = program.actors.flatMap((actor) => [...actor.sent.values()].flatMap(({ list }) => list))
  const unknown = requests.filter(({ verdict }) => verdict === 'unknown')
  const resent = stage.nodes.reduce((sum, { engine }) => sum + engine.counters[counterIndex['requests-resent']]!, 0)
  t.log(`${requests.length} requests, ${resent} sent again, ${unknown.length} unknown, seed ${seed}`)
  if (replayable)
    t.deepEqual(
      unknown.filter(({ opcode }) => opcode !== 'fetch-and-add'),
      [],
      `seed ${seed}`,
    )
}

for (const who of ['left', 'both', 'either'] as const) {
  for (const seed of [1, 2, 3, 4, 5, 6]) {
    test.serial(`64 65 a broker is killed (${who}), writes may be repeated: seed ${seed}`, (t) =>
      survive(t, 100 + seed, who, true),
    )
    test.serial(`64 65 a broker is killed (${who}): seed ${seed}`, (t) => survive(t, 200 + seed, who, false))
  }
}
