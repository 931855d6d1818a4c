/** What everybody else on the machine did meanwhile: figures are worth little when it is much. */
import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import type { Children } from '../demo/children.js'
import { processorMs } from './brokers.js'

const TICK_MS = 10

export class Foreign {
  readonly #processIds: () => readonly number[]
  #busyMs = 0
  #ownMs = 0
  #sinceMs = 0

  constructor(children: Children, others: () => readonly number[]) {
    this.#processIds = () => [...children.processIds, ...others()]
    this.restart()
  }

  restart(): void {
    this.#busyMs = machineBusyMs()
    this.#ownMs = this.#own()
    this.#sinceMs = performance.now()
  }

  /** Percent of all cores, since the last restart. */
  percent(): number {
    const busyMs = machineBusyMs() - this.#busyMs
    const ownMs = this.#own() - this.#ownMs
    const percent = ((busyMs - ownMs) / ((performance.now() - this.#sinceMs) * cpus().length)) * 100
    return Math.min(100, Math.max(0, Math.round(percent)))
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
