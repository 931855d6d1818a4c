/** Numbered cases of the engine: each is played on two nodes and, where it means something, on one node that talks to itself. */
import test, { type ExecutionContext } from 'ava'
import type { EngineOptions } from '../../../broker/engine/commands.js'
import type { LaneParameters } from '../../../protocol/link.js'
import { checkAtRest, Stage } from '../../support/engine-stage.js'

export interface EngineCase {
  /** Number in the list of conformance cases, with a letter for parts of one. */
  readonly number: string
  readonly name: string
  readonly where: 'remote' | 'local' | 'both'
  readonly options?: Partial<EngineOptions>
  readonly parameters?: Partial<LaneParameters>
  /** The case checks by itself what is left, because something stays on purpose. */
  readonly leaves?: boolean
  run(t: ExecutionContext, stage: Stage): Promise<void>
}

export function play(cases: readonly EngineCase[]): void {
  for (const each of cases) {
    if (each.where !== 'local') {
      test.serial(`${each.number} ${each.name}`, async (t) => {
        await finish(t, each, await Stage.remote(t, each.options, each.parameters))
      })
    }
    if (each.where !== 'remote') {
      test.serial(`${each.number} (13) same node: ${each.name}`, async (t) => {
        await finish(t, each, await Stage.local(t, each.options))
      })
    }
  }
}

async function finish(t: ExecutionContext, each: EngineCase, stage: Stage): Promise<void> {
  await each.run(t, stage)
  if (each.leaves) return
  await stage.rest()
  checkAtRest(t, stage.nodes)
}
