/** `broker start --daemon`: the broker as a child that outlives us; we return when it is ready, or with its error. */
import { closeSync, openSync } from 'node:fs'
import { SharedVerbsError } from '../../protocol/errors.js'
import { spawnBroker, whenStarted } from './child-broker.js'
import { letGo } from './parent-channel.js'
import type { Started, StartOptions } from './start.js'

/** A node with thousands of locked pages to make may take its time. */
const START_TIMEOUT_MS = 60_000

export async function startInBackground(options: StartOptions): Promise<Started> {
  const output = options.logFile === undefined ? 'ignore' : openLog(options.logFile)
  const child = spawnBroker({ startArguments: foregroundArguments(), output, detached: true })
  if (output !== 'ignore') closeSync(output)
  const bark = setTimeout(() => child.kill('SIGKILL'), START_TIMEOUT_MS)
  try {
    const started = await whenStarted(child)
    await new Promise((resolve) => child.send(letGo, resolve))
    return started
  } finally {
    clearTimeout(bark)
    if (child.connected) child.disconnect()
    child.unref()
  }
}

/** The same words without those that are this process's part. */
function foregroundArguments(): string[] {
  const own = new Set(['--daemon', '--ensure', '--json'])
  return process.argv.slice(process.argv.indexOf('start') + 1).filter((word) => !own.has(word))
}

function openLog(path: string): number {
  try {
    return openSync(path, 'a', 0o640)
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? String(error)
    throw new SharedVerbsError('invalid-argument', `cannot write the log file ${path}: ${reason}`, { path }, error)
  }
}
