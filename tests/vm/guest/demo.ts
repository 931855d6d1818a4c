/** The demo with both brokers on Soft-RoCE, and whether the kernel sees as many queue pairs as the brokers say they share. */
import { spawn, spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Report } from '../report.js'

const TIMEOUT_MS = 600_000
const LOOK_EVERY_MS = 500
const PROCESSES = 3
/** Of a size that the slow machine moves in seconds. */
const FILE = '/bin/busybox'

/** Reliable connected queue pairs in the kernel's own list. */
function kernelQueuePairs(): number {
  const { stdout } = spawnSync('rdma', ['resource', 'show', 'qp'], { encoding: 'utf8' })
  return stdout.split('\n').filter((line) => line.includes('type RC')).length
}

function runDemo(): Promise<{ output: string; kernelCount: number }> {
  const main = fileURLToPath(new URL('../../../broker/main.js', import.meta.url))
  const wishes = ['--provider', 'verbs', '--processes', String(PROCESSES), '--file', FILE, '--json']
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [main, 'demo', ...wishes], { stdio: ['ignore', 'pipe', 'inherit'] })
    let output = ''
    let kernelCount = 0
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
    const look = setInterval(() => {
      kernelCount = Math.max(kernelCount, kernelQueuePairs())
    }, LOOK_EVERY_MS)
    const timer = setTimeout(() => child.kill('SIGTERM'), TIMEOUT_MS)
    child.on('close', () => {
      clearInterval(look)
      clearTimeout(timer)
      resolve({ output, kernelCount })
    })
  })
}

export async function demonstrate(): Promise<Pick<Report, 'demo'>> {
  const { output, kernelCount } = await runDemo()
  const result = parsed(output)
  console.log(output.slice(0, 2000))
  // Two brokers on one device: the kernel's list has the queue pairs of both.
  const shared = 2 * Number(result.sharedQueuePairsPerNode)
  return {
    demo: { ...result, brokersQueuePairs: shared, kernelQueuePairs: kernelCount, kernelAgrees: kernelCount === shared },
  }
}

function parsed(output: string): Record<string, unknown> {
  try {
    return JSON.parse(output) as Record<string, unknown>
  } catch {
    return { verified: false, output: output.slice(0, 1000) }
  }
}
