/**
 * Ends what a test process leaves when it is killed before its teardown: a runner that gives up kills without asking. A small shell waits
 * for the end of this process (the pipe closes), then kills every process that carries its mark and removes the directories it was told.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import type { Writable } from 'node:stream'

export const MARK_NAME = 'SHARED_VERBS_TEST_MARK'

/** Marks of this test process begin with it. */
export const runMark = randomUUID()

const SCRIPT = `
while read -r directory; do set -- "$@" "$directory"; done
mark=$1; shift
for round in 1 2 3; do
  for process in /proc/[0-9]*; do
    tr '\\0' '\\n' 2>/dev/null <"$process/environ" | grep -q "^${MARK_NAME}=$mark" && kill -9 "\${process#/proc/}" 2>/dev/null
  done
done
[ $# -eq 0 ] || rm -rf -- "$@"
`

let guard: ChildProcessByStdio<Writable, null, null> | undefined

/** Started with the first process or directory; keeps nobody alive. */
function stand(): ChildProcessByStdio<Writable, null, null> {
  if (guard === undefined) {
    guard = spawn('sh', ['-c', SCRIPT, 'guard', runMark], { stdio: ['pipe', 'ignore', 'ignore'], detached: true })
    // Its own death must not end the tests.
    guard.on('error', () => {})
    guard.stdin.on('error', () => {})
    guard.unref()
    const { stdin } = guard
    if ('unref' in stdin && typeof stdin.unref === 'function') stdin.unref()
  }
  return guard
}

export const guardProcesses = (): void => void stand()
export const guardDirectory = (path: string): void => void stand().stdin.write(`${path}\n`)
