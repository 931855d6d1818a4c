/** What the wire scene decides by: the product's functions where there are some, and orders that a mutant turns round. */
import type { Evidence, LeftRequest } from '../../broker/engine/verdicts.js'
import { opcode } from '../../protocol/opcodes.js'
import type { Status } from '../../protocol/statuses.js'
import type { Code } from './load.js'

type QueuePair = InstanceType<Code['EngineQueuePair']>

export interface Rules {
  /** What a posted message is worth after the fence; `last` undefined: nobody will ever tell. */
  readonly decide: (sequence: number, last: number | undefined) => 'success' | 'again' | 'unknown'
  /** Its verdict if it will not go again. */
  readonly withoutReplay: (sequence: number, last: number | undefined) => Status
  /** What a receiver's successor makes of `last`. */
  readonly recover: (queuePair: QueuePair, done: Parameters<Code['recoverLast']>[1]) => void
  /** The receiver has had it. */
  readonly repeated: Code['repeated']
  /** The asker takes an answer. */
  readonly echoes: (answered: number, asked: number) => boolean
  /** The receiver leaves the old incarnation before it answers. */
  readonly fences: boolean
  /** A posted message has succeeded; `covered`: by an acknowledgement of this incarnation. */
  readonly settles: (covered: boolean) => boolean
  readonly post: (mark: () => void, frame: () => void) => void
  readonly commit: (take: () => void, acknowledge: () => void) => void
}

const NO_FLAGS = 0

export function rulesOf(code: Code): Rules {
  const request = (sequence: number): LeftRequest => ({
    opcode: opcode.send,
    flags: NO_FLAGS,
    sequence,
    byteLength: 0,
    incarnation: 0,
    wholePosted: true,
    frame: 0,
  })
  const evidence = (last: number | undefined): Evidence =>
    last === undefined ? code.noEvidence : { ...code.noEvidence, delivered: last }
  return {
    decide: (sequence, last) =>
      last === undefined ? 'unknown' : code.decide(request(sequence), evidence(last), false),
    withoutReplay: (sequence, last) => code.verdictWithoutReplay(request(sequence), evidence(last)),
    recover: (queuePair, done) => void code.recoverLast(queuePair, done),
    repeated: code.repeated,
    echoes: (answered, asked) => answered === asked,
    fences: true,
    settles: (covered) => covered,
    post: (mark, frame) => {
      mark()
      frame()
    },
    commit: (take, acknowledge) => {
      take()
      acknowledge()
    },
  }
}
