/** What a caller is told about a work request that cannot be posted. Apart, so that the encoder's paths stay small. */
import type { QueuePairAddress } from '../protocol/address.js'
import { SharedVerbsError } from '../protocol/errors.js'

/** Always throws `invalid-argument`. */
export function refuse(field: string, value: unknown, expected: string): never {
  throw new SharedVerbsError('invalid-argument', `work request: ${field} is ${shown(value)}; it must be ${expected}`, {
    field,
    value: shown(value),
  })
}

export function refuseEntry(entry: unknown, index: number): never {
  const { region, key, offset, length } = entry as Record<string, unknown>
  const reason = region === undefined ? `key ${shown(key)}` : describeRegion(region)
  throw new SharedVerbsError(
    'invalid-argument',
    `work request: local[${index}] names ${reason}, offset ${shown(offset)}, length ${shown(length)}; it must name ` +
      'an open region of this session, or a region key, and lie inside the region when copied inline',
    { field: `local[${index}]`, offset: shown(offset), length: shown(length) },
  )
}

export function refuseDestination(destination: QueuePairAddress): never {
  throw new SharedVerbsError(
    'address-not-resolved',
    `work request: node ${shown(destination.node)} was not resolved; await session.resolve(address) before posting`,
    { node: shown(destination.node) },
  )
}

function describeRegion(region: unknown): string {
  if (typeof region !== 'object' || region === null || !('byteLength' in region)) return `region ${shown(region)}`
  const open = 'open' in region && region.open === true
  return `${open ? 'a' : 'a closed'} region of ${String(region.byteLength)} bytes`
}

/** A value as it appears in a message: short, and never calling into the value. */
function shown(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return JSON.stringify(value.slice(0, 80))
    case 'bigint':
      return `${value}n`
    case 'number':
    case 'boolean':
    case 'undefined':
      return String(value)
    case 'object':
      return value === null ? 'null' : Array.isArray(value) ? `an array of ${value.length}` : 'an object'
    default:
      return `a ${typeof value}`
  }
}
