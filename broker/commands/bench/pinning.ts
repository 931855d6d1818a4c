/** Which core a process runs on, by `taskset` of util-linux; new threads and children inherit it. */
import { execFileSync } from 'node:child_process'
import { SharedVerbsError } from '../../../protocol/errors.js'

export function pinToCore(processId: number, core: number): void {
  try {
    execFileSync('taskset', ['--all-tasks', '--cpu-list', '--pid', String(core), String(processId)], { stdio: 'pipe' })
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new SharedVerbsError('system-call-failed', `--pin: taskset failed: ${reason}`, { processId, core }, error)
  }
}
