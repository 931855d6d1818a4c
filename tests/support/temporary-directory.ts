import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** The part of ava's `t` that support needs. Cleaning up happens also when the test fails. */
export interface Scope {
  teardown(clean: () => void | Promise<void>): void
}

/** An empty directory of this test alone. Its name is short: socket paths have 107 bytes. */
export function temporaryDirectory(scope: Scope): string {
  const path = mkdtempSync(join(tmpdir(), 'sv-'))
  scope.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}
