/** What two brokers must agree on for a lane, and what comes of it. */
import { type LaneParameters, laneParametersSchema } from '../../protocol/link.js'

export interface ParameterMismatch {
  readonly field: keyof LaneParameters
  readonly mine: string
  readonly yours: string
}

/** Fields in which no smaller value helps. */
const equalFields = ['providerKind', 'trafficClass'] as const
/** Without one of these nothing can be sent. */
const neededFields = [
  'readsInitiated',
  'readsAccepted',
  'bounceByteLength',
  'bounceCount',
  'chunkByteLength',
  'mtu',
] as const

export function findParameterMismatch(mine: LaneParameters, yours: LaneParameters): ParameterMismatch | null {
  for (const field of equalFields) {
    if (mine[field] !== yours[field]) return { field, mine: String(mine[field]), yours: String(yours[field]) }
  }
  for (const field of neededFields) {
    if (yours[field] < 1) return { field, mine: String(mine[field]), yours: String(yours[field]) }
  }
  return null
}

/**
 * The parameters that both ends use: the smaller value of each field. What one side sends the other must be able to take, in both
 * directions, so reads in flight are also bounded by what either accepts.
 */
export function agreeParameters(mine: LaneParameters, yours: LaneParameters): LaneParameters {
  const smaller = (field: keyof LaneParameters): number => Math.min(Number(mine[field]), Number(yours[field]))
  const readsAccepted = smaller('readsAccepted')
  return {
    providerKind: mine.providerKind,
    readsInitiated: Math.min(smaller('readsInitiated'), readsAccepted),
    readsAccepted,
    bounceByteLength: smaller('bounceByteLength'),
    bounceCount: smaller('bounceCount'),
    chunkByteLength: smaller('chunkByteLength'),
    mtu: smaller('mtu'),
    trafficClass: mine.trafficClass,
    atomicWindow: smaller('atomicWindow'),
    maxMessageByteLength: smaller('maxMessageByteLength'),
  }
}

const fields = Object.keys(laneParametersSchema.shape) as (keyof LaneParameters)[]

export const sameParameters = (one: LaneParameters, other: LaneParameters): boolean =>
  fields.every((field) => one[field] === other[field])
