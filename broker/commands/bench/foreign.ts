/** What everybody else on the machine did meanwhile: figures are worth little when it is much. */
import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import type { Children } from '../demo/children.js'
import { processorMs } from './brokers.js'

const TICK_MS = 10
/** The kernel's ticks say nothing about less; results that come together share what was found for the first. */
const LEAST_MS = 100

export class Foreign {
  readonly #processIds: () => readonly number[]
  #busyMs = 0
  #ownMs = 0
  #sinceMs = 0
  #lastPercent = 0

  constructor(children: Children, others: () => readonly number[]) {
    // Brokers of ours are among the children as well.
    this.#processIds = () => [...new Set([...children.processIds, ...others()])]
    this.restart()
  }

  restart(): void {
    this.#busyMs = machineBusyMs()
    this.#ownMs = this.#own()
    this.#sinceMs = performance.now()
  }

  /** Percent of all cores, since the last restart. */
  percent(): number {
    const elapsedMs = performance.now() - this.#sinceMs
    if (elapsedMs < LEAST_MS) return this.#lastPercent
    const othersMs = machineBusyMs() - this.#busyMs - (this.#own() - this.#ownMs)
    this.#lastPercent = Math.min(100, Math.max(0, Math.round((othersMs / (elapsedMs * cpus().length)) * 100)))
    return this.#lastPercent
  }

  #own(): number {
    const { user, system } = process.cpuUsage()
    return this.#processIds().reduce((sum, processId) => sum + processorMsIfThere(processId), (user + system) / 1000)
  }
}

function processorMsIfThere(processId: number): number {
  try {
    return processorMs(processId)
  } catch {
    return 0
  }
}

/** Everything but idle and waiting for disks, of all cores. */
function machineBusyMs(): number {
  const [first = ''] = readFileSync('/proc/stat', 'utf8').split('\n')
  const [user = 0, nice = 0, system = 0, , , interrupts = 0, softInterrupts = 0] = first
    .split(/\s+/)
    .slice(1)
    .map(Number)
  return (user + nice + system + interrupts + softInterrupts) * TICK_MS
}
