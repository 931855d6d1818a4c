import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { guardDirectory } from './guard.js'

/** The part of ava's `t` that support needs. Cleaning up happens also when the test fails. */
export interface Scope {
  teardown(clean: () => void | Promise<void>): void
}

const existing = new Set<string>()

function remove(path: string): void {
  existing.delete(path)
  rmSync(path, { recursive: true, force: true })
}

// A run that is interrupted ends without teardown.
process.on('exit', () => {
  for (const path of existing) remove(path)
})

/** An empty directory of this test alone. Its name is short: socket paths have 107 bytes. */
export function temporaryDirectory(scope: Scope): string {
  const path = mkdtempSync(join(tmpdir(), 'sv-'))
  existing.add(path)
  guardDirectory(path)
  scope.teardown(() => remove(path))
  return path
}
