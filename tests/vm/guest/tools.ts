/** What several parts use in the machine: commands, the command line of the broker, waiting. */
import { spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

export const brokerMain = fileURLToPath(new URL('../../../broker/main.js', import.meta.url))

export interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** A command to its end; a watchdog ends it, with all that it started. Failing is an outcome. */
export function run(command: string, given: readonly string[], timeoutMs = 60_000): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = spawn(command, given, { detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    const timer = setTimeout(() => process.kill(-child.pid!, 'SIGKILL'), timeoutMs)
    const end = (code: number): void => {
      clearTimeout(timer)
      resolve({ code, stdout, stderr })
    }
    child.once('error', (error) => {
      stderr += error.message
      end(1)
    })
    child.once('close', (code) => end(code ?? 1))
  })
}

/** A command that has to succeed. */
export async function must(command: string, ...given: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(command, given)
  if (code === 0) return stdout
  throw new Error(`${command} ${given.join(' ')}: status ${code}: ${stderr.trim().slice(-500)}`)
}

/** Waits for a condition, never for a time; milliseconds it took. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  timeoutMs: number,
  everyMs = 100,
): Promise<number> {
  const startMs = performance.now()
  while (!(await condition())) {
    if (performance.now() - startMs > timeoutMs) throw new Error(`waited ${timeoutMs} ms for ${what}`)
    await sleep(everyMs)
  }
  return Math.round(performance.now() - startMs)
}

/** A reliable connected queue pair as `rdma resource show qp` lists it. */
export interface KernelQueuePair {
  readonly ifname: string
  readonly lqpn: number
  readonly state: string
  readonly type: string
  readonly comm: string
  readonly pid: number
}

export async function kernelQueuePairs(): Promise<readonly KernelQueuePair[]> {
  const rows = JSON.parse(await must('rdma', '-j', 'resource', 'show', 'qp')) as KernelQueuePair[]
  return rows.filter(({ type }) => type === 'RC')
}

/** Rows of a view of `broker inspect`. */
export async function inspect(directory: string, view: string): Promise<readonly Record<string, unknown>[]> {
  const text = await must(process.execPath, brokerMain, 'inspect', view, '--json', '--runtime-dir', directory)
  return (JSON.parse(text) as { rows: Record<string, unknown>[] }).rows
}
