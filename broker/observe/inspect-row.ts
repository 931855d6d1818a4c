/** What one line of `broker inspect` holds. */
import type { NodeFileSnapshot, Row } from './node-file-reader.js'

export type InspectValue = string | number | boolean | null

export interface InspectRow {
  readonly noun: string
  readonly fields: Readonly<Record<string, InspectValue>>
  /** Shown with --details, and always in JSON. */
  readonly details?: Readonly<Record<string, InspectValue>>
}

/** Members by job and number, to say which process a row belongs to. */
export function membersByNumber(snapshot: NodeFileSnapshot): Map<string, Row<'members'>> {
  return new Map(snapshot.rows('members').map((member) => [`${member.job}/${member.member}`, member]))
}
