/**
 * Real processes for tests. Each belongs to the test that started it: at its end, also when it failed, the process is killed by pid and
 * waited for, and so is everything it started itself, found by a mark in the environment that children inherit.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { MARK_NAME, runMark } from './guard.js'
import type { Scope } from './temporary-directory.js'
import { until, within } from './until.js'

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface TestProcess {
  readonly child: ChildProcess
  readonly processId: number
  /** Finds the process and its descendants, also orphaned ones. */
  readonly mark: string
  /** What it has printed so far. */
  stdout(): string
  stderr(): string
  /** Waits for its end. */
  ended(timeoutMs?: number): Promise<Ended>
  /** Waits until it has printed a line that matches. */
  printed(pattern: RegExp, timeoutMs?: number): Promise<RegExpExecArray>
  signal(signal: NodeJS.Signals): void
}

export interface SpawnOptions {
  readonly env?: NodeJS.ProcessEnv
  readonly cwd?: string
}

const running = new Set<ChildProcess>()

// A run that is interrupted ends without teardown.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

export function startProcess(
  scope: Scope,
  command: string,
  commandArguments: readonly string[],
  options: SpawnOptions = {},
): TestProcess {
  const mark = `${runMark}:${randomUUID()}`
  const child = spawn(command, commandArguments, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env, [MARK_NAME]: mark },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const output = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output.stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text))
  running.add(child)
  let closed = false
  const end = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => {
      closed = true
      running.delete(child)
      resolve({ code, signal, ...output })
    })
  })
  // Somebody may only be interested in the output.
  end.catch(() => {})
  const name = [command, ...commandArguments].slice(0, 6).join(' ')
  scope.teardown(() => endAll(mark, child, end))
  return {
    child,
    processId: child.pid ?? 0,
    mark,
    stdout: () => output.stdout,
    stderr: () => output.stderr,
    ended: (timeoutMs = 60_000) => within(end, { timeoutMs, what: `the end of ${name}\n${output.stderr}` }),
    printed: (pattern, timeoutMs = 60_000) => {
      const look = (): RegExpExecArray | undefined => {
        const found = pattern.exec(output.stdout)
        if (found !== null) return found
        if (closed)
          throw new Error(`${name} ended without ${pattern}\nstdout: ${output.stdout}\nstderr: ${output.stderr}`)
        return undefined
      }
      return until(look, { timeoutMs, what: `${pattern} from ${name}` })
    },
    signal: (signal) => void child.kill(signal),
  }
}

/** Runs a command to its end. */
export async function runProcess(
  scope: Scope,
  command: string,
  commandArguments: readonly string[],
  options: SpawnOptions & { readonly timeoutMs?: number } = {},
): Promise<Ended> {
  return startProcess(scope, command, commandArguments, options).ended(options.timeoutMs)
}

/** Descendants first: whoever lives may hold the pipes open for whose end we wait. */
async function endAll(mark: string, child: ChildProcess, end: Promise<Ended>): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
  await until(
    () => {
      const left = processesMarked(mark)
      for (const processId of left) kill(processId)
      return left.length === 0
    },
    { timeoutMs: 10_000, what: `the end of processes ${processesMarked(mark).join(' ')}` },
  )
  await within(
    end.catch(() => {}),
    { timeoutMs: 10_000, what: `the end of process ${child.pid}` },
  )
}

function kill(processId: number): void {
  try {
    process.kill(processId, 'SIGKILL')
  } catch {
    // It ended by itself in the meantime.
  }
}

/** Living processes that inherited the mark; zombies do not count. */
export function processesMarked(mark: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((processId) => environmentOf(processId).includes(`${MARK_NAME}=${mark}`))
}

/** Empty for zombies, for processes that just ended, and for those of other users. */
function environmentOf(processId: number): string[] {
  try {
    return readFileSync(`/proc/${processId}/environ`, 'latin1').split('\0')
  } catch {
    return []
  }
}
