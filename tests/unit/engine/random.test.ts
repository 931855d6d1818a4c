/** Random programs. Seeds are printed by failures and bring the program back. */
import test, { type ExecutionContext } from 'ava'
import { ADD_WORD, type Plan, Program } from '../../support/engine-program.js'
import { checkAtRest, Stage } from '../../support/engine-stage.js'

async function play(t: ExecutionContext, plan: Plan, bounceCount: number): Promise<number> {
  const stage = await Stage.remote(
    t,
    { bounceByteLength: 1024 },
    { bounceByteLength: 1024, bounceCount, chunkByteLength: 4096 },
  )
  const program = new Program(stage, plan)
  await program.set()
  await program.run()
  await program.finish()
  await stage.rest()
  program.oracle.conclude()
  t.deepEqual(program.oracle.problems, [], `seed ${plan.seed}`)
  for (const [actor, { least }] of program.added)
    t.is(actor.end.memory.mapping.memory.i64[ADD_WORD / 8], least, `sum, seed ${plan.seed}`)
  checkAtRest(t, stage.nodes)
  for (const node of stage.nodes)
    t.deepEqual(
      node.events.filter(({ name }) => name === 'lane-failed'),
      [],
    )
  return program.oracle.completions
}

for (const seed of [1, 2, 3, 4]) {
  test.serial(`a random program keeps order, bytes and verdicts: seed ${seed}`, async (t) => {
    const completions = await play(t, { seed, steps: 4000, disturb: false }, seed % 2 === 0 ? 4 : 16)
    t.log(`${completions} completions`)
  })
}

for (const seed of [11, 12, 13, 14, 15, 16]) {
  test.serial(`a random program in which queue pairs close: seed ${seed}`, async (t) => {
    const completions = await play(t, { seed, steps: 2500, disturb: true }, seed % 2 === 0 ? 4 : 16)
    t.log(`${completions} completions`)
  })
}
