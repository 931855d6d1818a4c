/** Loads the code under exploration, with its constants as small as the explored worlds. */
import { type Change, loadCode } from '../support/explorer-code.js'

export type Code = typeof import('./code.js')

/** Sizes and patience only: no decision of the code depends on how large they are. */
const smaller: readonly Change[] = [
  { file: 'shm/robust-lock.ts', find: 'const DEFAULT_SPINS = 150', replace: 'const DEFAULT_SPINS = 0' },
  { file: 'client/patience.ts', find: 'const MOST_YIELDS = 100', replace: 'const MOST_YIELDS = 0' },
  { file: 'shm/activity.ts', find: 'const ROOT_WORDS = 32', replace: 'const ROOT_WORDS = 1' },
  { file: 'shm/activity.ts', find: 'const LEAF_WORDS = 1024', replace: 'const LEAF_WORDS = 1' },
  { file: 'broker/engine/completion-queue.ts', find: 'const ROOT_WORDS = 2', replace: 'const ROOT_WORDS = 1' },
  // There is no provider, so nothing is ever polled into this; an engine is made for each step.
  { file: 'broker/engine/engine.ts', find: 'new CompletionBatch(POLL_BATCH)', replace: '{} as CompletionBatch' },
]

export const loadExplored = (changes: readonly Change[] = []): Promise<Code> =>
  loadCode<Code>('tests/model/code.ts', [...smaller, ...changes])

let asItIs: Promise<Code> | undefined
/** The code without any change; made once. */
export function loadOnce(): Promise<Code> {
  asItIs ??= loadExplored()
  return asItIs
}
