/** What every registry of objects needs of the rest of the broker. */
import { SharedVerbsError } from '../../protocol/errors.js'
import { closeDescriptor } from '../../shm/libc.js'
import { Mapping } from '../../shm/mapping.js'
import type { Engine } from '../control/engine.js'
import type { NodeFile } from '../observe/node-file.js'
import type { Observer } from '../observe/observer.js'
import type { Accounts } from './accounts.js'
import type { Session } from './session.js'

export interface ObjectServices {
  readonly engine: Engine
  readonly nodeFile: NodeFile
  readonly accounts: Accounts
  readonly observer: Observer
}

export function tableFull(noun: string, rows: number): SharedVerbsError {
  return new SharedVerbsError('limit-exceeded', `all ${rows} ${noun} of this node are in use; close some`, { rows })
}

/** A descriptor that was checked; the mapping's from here on, closed on a failure. */
export function mapPresented(descriptor: number, byteLength: number): Mapping {
  try {
    return Mapping.attach(descriptor, { byteLength, writable: true })
  } catch (error) {
    closeDescriptor(descriptor)
    throw error
  }
}

/** The engine may be asked twice to forget something; the second time there is nothing, which is what was wanted. */
export async function forgiveMissing(removal: Promise<unknown>): Promise<void> {
  try {
    await removal
  } catch (error) {
    const missing = error instanceof SharedVerbsError && /^(no-such-object|stale-handle)$/.test(error.code)
    if (!missing) throw error
  }
}

/** Keeps the row of the session that made something up to date, as long as the row is still its own. */
export function recordUsage(
  { nodeFile }: ObjectServices,
  session: Session,
  change: { readonly queuePairs?: number; readonly regions?: number; readonly bytes?: number },
): void {
  const { usage } = session
  usage.queuePairs += change.queuePairs ?? 0
  usage.regions += change.regions ?? 0
  usage.registeredByteLength += change.bytes ?? 0
  if (session.job.members.get(session.member) === session) nodeFile.members.write(session.member, usage)
}
