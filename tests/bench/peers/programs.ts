/** Processes of peers: started, read, and ended by their pid, whatever happens. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

const living = new Set<ChildProcess>()
process.on('exit', () => endAll())
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1))

export function endAll(): void {
  for (const child of living) child.kill('SIGKILL')
}

export interface Program {
  readonly child: ChildProcess
  /** What it has printed on stdout so far. */
  text(): string
  /** Resolves with its output when it has ended. */
  readonly ended: Promise<string>
}

export function startProgram(
  command: string,
  commandArguments: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Program {
  const child = spawn(command, commandArguments, {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  living.add(child)
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (more: string) => (text += more))
  child.stderr.resume()
  const ended = new Promise<string>((resolve) => {
    const end = (): void => {
      living.delete(child)
      resolve(text)
    }
    child.on('error', end)
    child.on('close', end)
  })
  return { child, text: () => text, ended }
}

/** Its output at its end, or what it has said when the time is over; then it is ended. */
export async function outputWithin(program: Program, timeoutMs: number): Promise<string> {
  const over = new AbortController()
  const late = sleep(timeoutMs, undefined, { signal: over.signal }).catch(() => undefined)
  await Promise.race([program.ended, late])
  over.abort()
  program.child.kill('SIGKILL')
  return program.ended
}

/** Waits until it has printed something that matches. */
export async function printed(program: Program, pattern: RegExp, timeoutMs = 10_000): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs
  while (!pattern.test(program.text())) {
    if (performance.now() > deadlineMs || program.child.exitCode !== null) {
      throw new Error(`${program.child.spawnfile} did not say ${pattern}: ${program.text().slice(-200)}`)
    }
    await sleep(5)
  }
}

/** Until somebody listens on the port: a server that says nothing is asked by the kernel's list, which disturbs it less than a connection. */
export async function listening(port: number, timeoutMs = 10_000): Promise<void> {
  const needle = `:${port.toString(16).toUpperCase().padStart(4, '0')} `
  const isListening = (path: string): boolean =>
    readFileSync(path, 'utf8')
      .split('\n')
      .some((line) => line.split(/\s+/)[2]?.concat(' ').endsWith(needle) === true && / 0A /.test(line))
  const deadlineMs = performance.now() + timeoutMs
  while (!isListening('/proc/net/tcp') && !isListening('/proc/net/tcp6')) {
    if (performance.now() > deadlineMs) throw new Error(`nobody listens on port ${port}`)
    await sleep(5)
  }
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen({ host: '127.0.0.1', port: 0 }, () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}

export const isInstalled = (command: string): boolean =>
  spawnSync('sh', ['-c', `command -v ${command}`], { stdio: 'ignore' }).status === 0
