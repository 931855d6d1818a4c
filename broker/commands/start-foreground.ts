/** A broker in this process, until a signal ends it. */
import { closeSync, fstatSync, type Stats, writeSync } from 'node:fs'
import { constants, hostname } from 'node:os'
import pino from 'pino'
import { SharedVerbsError } from '../../protocol/errors.js'
import { notifyReady } from '../../shm/libc.js'
import type { Standby } from '../control/runtime-directory.js'
import type { BrokerOptions } from '../control/settings.js'
import { type RunningBroker, runBroker } from '../run.js'
import { onParentLost, report } from './parent-channel.js'
import type { Started, StartOptions } from './start.js'

type EndReason = NodeJS.Signals | 'parent lost'

/** What signals ask for, kept from the first moment on: one that comes during the start is obeyed after it. */
class Wishes {
  #end: ((reason: EndReason) => void) | undefined
  #drain: (() => void) | undefined
  /** The first wish to end was said. */
  get ending(): boolean {
    return this.#ending
  }

  readonly end = new Promise<EndReason>((resolve) => {
    this.#end = resolve
  })
  #ending = false

  constructor() {
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => this.#wishEnd(signal))
    process.on('SIGUSR2', () => this.#drain?.())
    onParentLost(() => this.#wishEnd('parent lost'))
  }

  onDrain(drain: () => void): void {
    this.#drain = drain
  }

  #wishEnd(reason: EndReason): void {
    // Whoever asks twice does not want to wait for the draining.
    if (this.#ending && reason !== 'parent lost') process.exit(128 + constants.signals[reason])
    this.#ending = true
    this.#end?.(reason)
  }
}

export async function serveInForeground(
  brokerOptions: BrokerOptions,
  options: StartOptions,
  announce: (started: Started) => void,
): Promise<void> {
  checkReadyFd(options.readyFd)
  const wishes = new Wishes()
  const logStream = options.logFile === undefined ? {} : { logStream: openLog(options.logFile) }
  const standby = options.standby === true ? standbyOf(brokerOptions, wishes, announce) : null
  let broker: RunningBroker
  try {
    broker = await runBroker({ ...brokerOptions, ...logStream, standby })
  } catch (error) {
    // Who stands by and is told to end has done what it was for.
    if (standby && wishes.ending && error instanceof SharedVerbsError && error.code === 'aborted') return
    if (error instanceof SharedVerbsError) report({ failed: error.toWire() })
    throw error
  }
  wishes.onDrain(() => void broker.drain(options.drainTimeoutMs))
  const { node, runtimeDirectory, linkPort, epoch } = broker
  const linkAddress = linkPort === 0 ? '' : `${brokerOptions.host}:${linkPort}`
  const started: Started = { event: 'started', node, processId: process.pid, runtimeDirectory, linkAddress, epoch }
  announce(started)
  tellReady(started, options.readyFd)
  const reason = await Promise.race([wishes.end, broker.whenStopped.then(() => undefined)])
  if (reason !== undefined) await stop(broker, options.drainTimeoutMs)
  await broker.whenStopped
}

/** Everything is loaded by now: what is left of the start is short. */
function standbyOf(options: BrokerOptions, wishes: Wishes, announce: (started: Started) => void): Standby {
  const { runtimeDirectory, node = hostname() } = options
  const processId = process.pid
  const waiting: Started = { event: 'standby', node, processId, runtimeDirectory, linkAddress: '', epoch: 0 }
  return {
    onWaiting: () => {
      announce(waiting)
      report({ started: waiting })
      notifyReady('STATUS=standing by')
    },
    isWanted: () => !wishes.ending,
  }
}

/** Found out before anything is started. A descriptor that nobody gave is not open, or is something of Node's own. */
function checkReadyFd(readyFd: number | undefined): void {
  if (readyFd === undefined) return
  const found = statDescriptor(readyFd)
  if (found !== undefined && (found.isFIFO() || found.isSocket() || found.isFile() || found.isCharacterDevice())) return
  throw new SharedVerbsError('invalid-argument', `--ready-fd ${readyFd} is no open pipe, socket or file`, { readyFd })
}

function statDescriptor(fd: number): Stats | undefined {
  try {
    return fstatSync(fd)
  } catch {
    return undefined
  }
}

function tellReady(started: Started, readyFd: number | undefined): void {
  report({ started })
  if (readyFd === undefined) return
  writeSync(readyFd, 'ready\n')
  closeSync(readyFd)
}

async function stop(broker: RunningBroker, drainTimeoutMs: number): Promise<void> {
  notifyReady('STOPPING=1')
  await broker.drain(drainTimeoutMs)
  await broker.stop()
}

function openLog(path: string): ReturnType<typeof pino.destination> {
  try {
    return pino.destination({ dest: path, sync: true, append: true, mkdir: false })
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? String(error)
    throw new SharedVerbsError('invalid-argument', `cannot write the log file ${path}: ${reason}`, { path }, error)
  }
}
