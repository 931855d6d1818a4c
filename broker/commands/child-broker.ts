/** `broker start` as a child process: for `--daemon`, and for the demo. */
import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { SharedVerbsError } from '../../protocol/errors.js'
import { type Report, reportedError } from './parent-channel.js'
import type { Started } from './start.js'

/** Sources when this runs from sources, what is built when it is built. */
const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
const mainPath = fileURLToPath(new URL(`../main.${extension}`, import.meta.url))

export interface ChildBrokerOptions {
  readonly startArguments: readonly string[]
  readonly environment?: NodeJS.ProcessEnv
  /** Where stdout and stderr go: a descriptor, or nowhere. */
  readonly output: number | 'ignore'
  /** Its own session: no signal of this terminal reaches it. */
  readonly detached: boolean
}

export function spawnBroker(options: ChildBrokerOptions): ChildProcess {
  return spawn(process.execPath, [...process.execArgv, mainPath, 'start', ...options.startArguments], {
    detached: options.detached,
    env: options.environment ?? process.env,
    stdio: ['ignore', options.output, options.output, 'ipc'],
  })
}

/** Resolves when sessions can attach; rejects with the broker's own error, or with its end. */
export function whenStarted(child: ChildProcess): Promise<Started> {
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('message', (message: Report) => {
      if ('started' in message) resolve(message.started)
      else reject(reportedError(message.failed))
    })
    child.on('exit', (code, signal) =>
      reject(
        new SharedVerbsError('internal-error', `the broker ended at its start: ${signal ?? `exit status ${code}`}`),
      ),
    )
  })
}
