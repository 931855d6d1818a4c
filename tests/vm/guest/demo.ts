/**
 * The demo with both brokers on Soft-RoCE. While its processes are connected, the kernel's list of queue pairs is held against what
 * `broker inspect shared-qps` says of each broker.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { readNodeFile } from '../../../broker/observe/node-file-reader.js'
import { laneStateNames } from '../../../protocol/node-file.js'
import type { Report } from '../report.js'
import type { Wishes } from '../wishes.js'
import { brokerMain, inspect, type KernelQueuePair, kernelQueuePairs, until } from './tools.js'

const TIMEOUT_MS = 400_000
const LOOK_EVERY_MS = 1000
const PROCESSES = 8
const LANES = 2
/** Of a size that the slow machine moves in seconds. */
const FILE = '/bin/busybox'
const NODES = ['alpha', 'beta'] as const

/** A row of the view; its number has the name that the rdma tool gives it. */
interface SharedQueuePair {
  readonly lqpn: number
  readonly state: string
}

interface Look {
  /** `rdma resource show qp`, the reliable connected ones. */
  readonly kernel: readonly KernelQueuePair[]
  /** `broker inspect shared-qps --json` of each broker. */
  readonly brokers: Readonly<Record<string, readonly SharedQueuePair[]>>
}

/** Which of them there are; their packet sequences go on while one looks. */
const namesOf = (queuePairs: readonly { lqpn: number }[]): string =>
  queuePairs
    .map(({ lqpn }) => lqpn)
    .sort((a, b) => a - b)
    .join(' ')

/** The demo names its folder itself, and makes it when it starts. */
function directoryOf(folder: string, node: string): string {
  return join(folder, readdirSync(folder).find((name) => name.startsWith('shared-verbs-demo-')) ?? 'none', node)
}

/** By the broker's own word; 0 as long as it is not there. */
function upQueuePairs(folder: string, node: string): number {
  try {
    const rows = readNodeFile(directoryOf(folder, node)).rows('sharedQueuePairs')
    return rows.filter(({ state }) => laneStateNames[state] === 'up').length
  } catch {
    return 0
  }
}

/** What the kernel lists before and after the brokers are asked must be the same, or it is asked again. */
async function look(folder: string): Promise<Look> {
  for (;;) {
    const kernel = await kernelQueuePairs()
    const answers = await Promise.all(NODES.map((node) => inspect(directoryOf(folder, node), 'shared-qps')))
    if (namesOf(await kernelQueuePairs()) !== namesOf(kernel)) continue
    const brokers = Object.fromEntries(
      NODES.map((node, index) => [node, answers[index] as unknown as SharedQueuePair[]]),
    )
    return { kernel, brokers }
  }
}

export async function demonstrate(wishes: Wishes): Promise<Pick<Report, 'demo'>> {
  const folder = mkdtempSync('/tmp/demo-')
  const given = ['--provider', 'verbs', '--processes', String(wishes.processes ?? PROCESSES), '--lanes', String(LANES)]
  const child = spawn(process.execPath, [brokerMain, 'demo', ...given, '--file', FILE, '--json'], {
    env: { ...process.env, TMPDIR: folder },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const timer = setTimeout(() => child.kill('SIGTERM'), TIMEOUT_MS)
  const isOver = (): boolean => child.exitCode !== null || child.signalCode !== null
  const hasAll = (): boolean => isOver() || NODES.every((node) => upQueuePairs(folder, node) === LANES)
  await until(hasAll, 'queue pairs', TIMEOUT_MS, LOOK_EVERY_MS)
  const seen = isOver() ? null : await look(folder)
  await ended
  clearTimeout(timer)
  rmSync(folder, { recursive: true, force: true })
  return { demo: { ...parsed(output), ...compared(seen) } }
}

/** Every queue pair that a broker claims is in the kernel's list, and the other way round. */
function compared(seen: Look | null): Record<string, unknown> {
  if (seen === null) return { kernelAgrees: false }
  const claimed = Object.values(seen.brokers).flat()
  return {
    kernelQueuePairs: seen.kernel.length,
    brokersQueuePairs: claimed.length,
    kernelAgrees: claimed.length === 2 * LANES && namesOf(claimed) === namesOf(seen.kernel),
    kernel: seen.kernel.map(({ lqpn, state, comm, pid }) => `lqpn ${lqpn} type RC state ${state} ${comm} pid ${pid}`),
    brokers: Object.fromEntries(
      Object.entries(seen.brokers).map(([node, rows]) => [
        node,
        rows.map(({ lqpn, state }) => `lqpn ${lqpn} state ${state}`),
      ]),
    ),
  }
}

function parsed(output: string): Record<string, unknown> {
  try {
    return JSON.parse(output) as Record<string, unknown>
  } catch {
    return { verified: false, output: output.slice(0, 1000) }
  }
}
