/**
 * What a broker in the foreground and the process that started it say to each other, when there is a channel between them (Node's
 * own, of child_process): the broker reports once that it is ready or why it is not. A parent that lets go says so first; one that
 * just vanishes takes the broker with it.
 */
import { isErrorCode } from '../../protocol/error-codes.js'
import { SharedVerbsError } from '../../protocol/errors.js'
import type { Started } from './start.js'

export type Report = { readonly started: Started } | { readonly failed: unknown }

export interface LetGo {
  readonly letGo: true
}

export const letGo: LetGo = { letGo: true }

/** Does nothing when nobody listens. */
export function report(message: Report): void {
  if (process.connected) process.send?.(message)
}

/** Calls back when the parent is gone without having let go. */
export function onParentLost(lost: () => void): void {
  if (!process.connected) return
  let released = false
  process.on('message', (message: Partial<LetGo>) => {
    if (message.letGo !== true) return
    released = true
    process.disconnect()
  })
  process.on('disconnect', () => released || lost())
  // The channel alone keeps nobody running.
  process.channel?.unref()
}

/** The error in a report of failure, for the parent. */
export function reportedError(failed: unknown): SharedVerbsError {
  const { code, message } = failed as { code?: unknown; message?: unknown }
  return new SharedVerbsError(isErrorCode(code) ? code : 'internal-error', String(message))
}
