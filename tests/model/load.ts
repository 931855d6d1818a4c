/** Loads the code under exploration, with its constants as small as the explored worlds. */
import { type Change, loadCode } from '../support/explorer-code.js'

export type Code = typeof import('./code.js')

export const loadExplored = (changes: readonly Change[] = []): Promise<Code> => loadCode<Code>('tests/model/code.ts', changes)
