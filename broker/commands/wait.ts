import { setTimeout as sleep } from 'node:timers/promises'

const LOOK_MS = 20

/** Looks until the condition holds, at most `timeoutMs`; false if it never did. */
export async function waitUntil(condition: () => boolean, timeoutMs: number): Promise<boolean> {
  const deadlineMs = performance.now() + timeoutMs
  while (!condition()) {
    if (performance.now() >= deadlineMs) return false
    await sleep(LOOK_MS)
  }
  return true
}
