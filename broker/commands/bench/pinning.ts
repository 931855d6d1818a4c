/** Which core a process or a thread runs on, by `taskset` of util-linux; new threads and children inherit it. */
import { execFileSync } from 'node:child_process'
import { SharedVerbsError } from '../../../protocol/errors.js'

export function pinToCore(processId: number, core: number): void {
  try {
    taskset(processId, core, '--all-tasks')
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new SharedVerbsError('system-call-failed', `--pin: taskset failed: ${reason}`, { processId, core }, error)
  }
}

export function pinThread(threadId: number, core: number): void {
  taskset(threadId, core)
}

function taskset(id: number, core: number, ...more: readonly string[]): void {
  execFileSync('taskset', [...more, '--cpu-list', '--pid', String(core), String(id)], { stdio: 'pipe' })
}
