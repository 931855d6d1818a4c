/** The two brokers of a run: its own over loopback, or running ones. What they have spent so far is read without asking them. */
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readNodeFile } from '../../observe/node-file-reader.js'
import type { Children } from '../demo/children.js'
import { DemoNode } from '../demo/node.js'
import { freePort } from '../demo/ports.js'
import type { NodeName } from '../demo/settings.js'
import { findRunningBroker } from '../running-broker.js'
import type { BenchSettings } from './settings.js'

const HOST = '127.0.0.1'
/** The kernel counts processor time in hundredths of a second, on every architecture that this runs on. */
const TICK_MS = 10

export interface BenchBroker {
  readonly name: NodeName
  readonly runtimeDirectory: string
  readonly processId: number
  /** What its log complains about; empty for a broker that is not ours. */
  lastWords(): string
}

export async function findBrokers(
  settings: BenchSettings,
  children: Children,
  directory: string,
): Promise<readonly [BenchBroker, BenchBroker]> {
  const { runtimeDirectories } = settings
  if (runtimeDirectories === undefined) return startBrokers(settings, children, directory)
  return [running('alpha', runtimeDirectories[0]), running('beta', runtimeDirectories[1])]
}

function running(name: NodeName, runtimeDirectory: string): BenchBroker {
  const { processId } = findRunningBroker(runtimeDirectory).header
  return { name, runtimeDirectory, processId, lastWords: () => '' }
}

async function startBrokers(
  { idle, provider }: BenchSettings,
  children: Children,
  directory: string,
): Promise<readonly [BenchBroker, BenchBroker]> {
  const clusterKeyFile = join(directory, 'cluster.key')
  writeFileSync(clusterKeyFile, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 })
  const [alphaPort, betaPort] = [await freePort(HOST), await freePort(HOST)]
  const common = { host: HOST, directory, clusterKeyFile, lanes: 1, provider, idle }
  const alpha = new DemoNode({ ...common, name: 'alpha', port: alphaPort, peer: { name: 'beta', port: betaPort } })
  const beta = new DemoNode({ ...common, name: 'beta', port: betaPort, peer: { name: 'alpha', port: alphaPort } })
  await Promise.all([alpha.start(children), beta.start(children)])
  return [started(alpha), started(beta)]
}

function started(node: DemoNode): BenchBroker {
  const { name, runtimeDirectory } = node
  const { processId } = readNodeFile(runtimeDirectory).header
  return { name, runtimeDirectory, processId, lastWords: () => node.lastWords() }
}

/** Counters that say why a message costs what it costs. */
const watched = {
  systemCalls: 'provider-system-calls',
  frames: 'frames-sent',
  acknowledgements: 'acknowledgements-sent',
  wakeUps: 'wake-ups',
  sleeps: 'engine-sleeps',
  turns: 'engine-turns',
  laneStalls: 'lane-credit-stalls',
  queuePairStalls: 'queue-pair-credit-stalls',
} as const

/** What both brokers have done so far. */
export type Spent = Readonly<Record<keyof typeof watched | 'processorMs', number>>

export function spentBy(brokers: readonly BenchBroker[]): Spent {
  const each = brokers.map(({ runtimeDirectory, processId }) => ({
    counters: readNodeFile(runtimeDirectory).counters(),
    processorMs: processorMs(processId),
  }))
  const sums = Object.entries(watched).map(([name, counter]) => {
    return [name, each.reduce((sum, { counters }) => sum + counters[counter], 0)] as const
  })
  const processor = each.reduce((sum, one) => sum + one.processorMs, 0)
  return Object.fromEntries([...sums, ['processorMs', processor]]) as Spent
}

export function spentBetween<Names extends string>(
  before: Readonly<Record<Names, number>>,
  after: Readonly<Record<Names, number>>,
): Readonly<Record<Names, number>> {
  const names = Object.keys(after) as Names[]
  return Object.fromEntries(names.map((name) => [name, after[name] - before[name]])) as Record<Names, number>
}

/** User and system time of all its threads. */
export function processorMs(processId: number): number {
  const stat = readFileSync(`/proc/${processId}/stat`, 'utf8')
  // The name in parentheses may contain anything; what follows begins with field 3, the state.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS
}
