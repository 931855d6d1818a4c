/**
 * What a request that had left is worth once both ends have fenced the lane it left on, and the peer has said what was delivered. No
 * state, no effect: the same rules serve a lost lane and a broker that starts again (crash-consistency §2.6).
 *
 *   send, write with immediate   delivered → success; else it goes again: the peer drops what it has
 *   read                         goes again: it changes nothing at the peer
 *   atomic                       goes again where the peer remembers what it executed (connected queue pairs), else unknown
 *   write                        proven by a frame that followed it → success; replayable → again; else unknown
 *
 * A write with immediate may go again by contract: the range it names is the sender's until the immediate arrives.
 */
import { opcode, workRequestFlag } from '../../protocol/opcodes.js'
import { type Status, status } from '../../protocol/statuses.js'
import { isTwoSided } from './finish.js'

/** What the peer told. */
export interface Evidence {
  /** Last sequence delivered there; null: nothing of this flow ever was, as far as it knows. */
  readonly delivered: number | null
  /** Name of the lane it received frames on, and the last of them; 0 names none. */
  readonly predecessor: number
  readonly lastReceived: number
}

/** Nobody will ever tell. */
export const noEvidence: Evidence = { delivered: null, predecessor: 0, lastReceived: 0 }

export interface LeftRequest {
  readonly opcode: number
  readonly flags: number
  readonly sequence: number
  readonly byteLength: number
  /** Lane on which it was posted last; 0: unknown or on this node. */
  readonly incarnation: number
  /** All of it was handed to the device, and the last frame that was begun by then. */
  readonly wholePosted: boolean
  readonly frame: number
}

export type Decision = 'success' | 'again' | 'unknown'

export function decide(request: LeftRequest, evidence: Evidence, remembersAtomics: boolean): Decision {
  if (isTwoSided(request.opcode)) return isDelivered(request, evidence) ? 'success' : 'again'
  if (request.opcode === opcode.read) return 'again'
  if (request.opcode !== opcode.write) return remembersAtomics ? 'again' : 'unknown'
  if (isExecuted(request, evidence)) return 'success'
  return (request.flags & workRequestFlag.replayable) !== 0 ? 'again' : 'unknown'
}

function isDelivered({ sequence }: LeftRequest, { delivered }: Evidence): boolean {
  return delivered !== null && ((sequence - delivered) | 0) <= 0
}

/** Devices execute in posting order, so a frame that arrived proves everything posted before it. */
function isExecuted(request: LeftRequest, { predecessor, lastReceived }: Evidence): boolean {
  if (!request.wholePosted || predecessor === 0 || request.incarnation !== predecessor) return false
  return ((lastReceived - request.frame) | 0) > 0
}

/** The verdict of a request that left and will not go again, when `decide` did not say success. */
export function verdictWithoutReplay(request: LeftRequest, evidence: Evidence): Status {
  if (request.opcode === opcode.read) return status.flushed
  // Not delivered, and never will be: both ends are fenced and the peer has told.
  const told = evidence !== noEvidence
  return told && request.opcode <= opcode.sendWithImmediate ? status.flushed : status.unknown
}

/** Requests that may have changed something at the peer although nothing was delivered. */
export function mayHaveEffect(request: { readonly opcode: number; readonly exposed: boolean }): boolean {
  return request.exposed && request.opcode !== opcode.read && request.opcode > opcode.sendWithImmediate
}
