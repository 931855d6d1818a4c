/** Mistakes between two brokers: in the rules of the wire scene. */
import type { Bounds, Scenario } from '../support/explorer.js'
import type { Code } from './load.js'
import type { Mutant } from './mutant.js'
import type { Rules } from './wire-rules.js'
import { type WireOptions, wireScenario } from './wire-scene.js'

const VERDICTS = 'broker/engine/verdicts.ts'

const anyDeaths: Bounds = {
  crashes: { sender: 2, receiver: 2, loss: 1, 'late-loss': 1 },
  crashesInAll: 2,
}
const closed: Bounds = { crashes: { sender: 1, close: 1 } }
const closedLate: Bounds = { crashes: { 'late-loss': 1, close: 1 } }
const gone: Bounds = { crashes: { receiver: 1 } }

function wrong(
  name: string,
  rules: (code: Code) => Partial<Rules>,
  caughtBy: readonly string[],
  options: Partial<WireOptions> = {},
  bounds = anyDeaths,
): Mutant {
  const scenario = (code: Code): Scenario => wireScenario(code, 'wire', { messages: 2, ...options, rules }, bounds)
  return { name, changes: [], scenario, caughtBy }
}

export const wireMutants: readonly Mutant[] = [
  wrong(
    'a sender that sends everything again, to a receiver that takes what it had before',
    () => ({ decide: () => 'again', repeated: () => false }),
    ['I14'],
  ),
  wrong(
    'an acknowledgement before the commit',
    () => ({
      commit: (take, acknowledge) => {
        acknowledge()
        take()
      },
    }),
    ['I15'],
  ),
  wrong('a send that succeeds once it is posted', () => ({ settles: () => true }), ['I15']),
  wrong('a receiver whose successor does not recover last', () => ({ recover: () => {} }), ['I14']),
  wrong(
    'a receiver that answers before it has left the old incarnation',
    () => ({ fences: false }),
    ['I14', 'I16'],
    {},
    closedLate,
  ),
  wrong('an answer for another incarnation', () => ({ echoes: () => true }), ['I9', 'I14', 'I16']),
  wrong(
    'a request marked posted after the doorbell, and then closed',
    () => ({
      post: (mark, frame) => {
        frame()
        mark()
      },
    }),
    ['I16'],
    {},
    closed,
  ),
  wrong('a close that flushes what was delivered', () => ({ decide: () => 'again' }), ['I16'], {}, closed),
  {
    name: 'a peer that is gone, and what it may have taken is flushed',
    changes: [{ file: VERDICTS, find: 'const told = evidence !== noEvidence', replace: 'const told = true' }],
    scenario: (code) => wireScenario(code, 'wire, peer gone', { messages: 2, peerReturns: false }, gone),
    caughtBy: ['I16'],
  },
  {
    name: 'a message more than was delivered taken for delivered',
    changes: [
      { file: VERDICTS, find: '((sequence - delivered) | 0) <= 0', replace: '((sequence - delivered) | 0) <= 1' },
    ],
    scenario: (code) => wireScenario(code, 'wire', { messages: 2 }, anyDeaths),
    caughtBy: ['I15'],
  },
]
