/** What several parts use in the machine: commands, the command line of the broker, waiting. */
import { execFile } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

export const brokerMain = fileURLToPath(new URL('../../../broker/main.js', import.meta.url))

export interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** A command to its end; a watchdog ends it. Failing is an outcome. */
export function run(command: string, given: readonly string[], timeoutMs = 60_000): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(command, given, { timeout: timeoutMs, killSignal: 'SIGKILL' }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 1
      resolve({ code, stdout, stderr })
    })
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
