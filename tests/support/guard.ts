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

/** Started before anything else, so that tests that compare descriptors find it there from the beginning; keeps nobody alive. */
const guard = stand()

function stand(): ChildProcessByStdio<Writable, null, null> {
  const shell = spawn('sh', ['-c', SCRIPT, 'guard', runMark], { stdio: ['pipe', 'ignore', 'ignore'], detached: true })
  // Its own death must not end the tests.
  shell.on('error', () => {})
  shell.stdin.on('error', () => {})
  shell.unref()
  const { stdin } = shell
  if ('unref' in stdin && typeof stdin.unref === 'function') stdin.unref()
  return shell
}

export const guardDirectory = (path: string): void => void guard.stdin.write(`${path}\n`)
