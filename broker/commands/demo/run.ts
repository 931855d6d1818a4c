/**
 * The demo's course: two brokers, a job on both, every process talking to every remote one, and a death in the middle. Each phase is
 * ordered to all processes at once and ends when all have answered.
 */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DemoPlan } from '../../../protocol/demo.js'
import { SharedVerbsError } from '../../../protocol/errors.js'
import type { Sharing } from '../../observe/inspect-overview.js'
import { Children } from './children.js'
import { Crew } from './crew.js'
import { DemoNode } from './node.js'
import {
  connectAll,
  countTogether,
  exchangeAll,
  finishAll,
  type Killed,
  killOne,
  moveFile,
  shareQueuePair,
} from './phases.js'
import { freePort } from './ports.js'
import type { DemoProgress, DemoResult, DemoSettings, NodeName } from './settings.js'

const HOST = '127.0.0.1'
const SMALL_MESSAGES = 16
const SMALL_BYTES = 64
/** All large messages of a round in one direction together; each is between 64 KiB and 1 MiB. */
const LARGE_BYTES_IN_ALL = 16 * 2 ** 20

export class Demo {
  readonly #settings: DemoSettings
  readonly #progress: DemoProgress
  readonly #children = new Children()
  readonly #directory = mkdtempSync(join(tmpdir(), 'shared-verbs-demo-'))
  readonly #startedMs = performance.now()

  constructor(settings: DemoSettings, progress: DemoProgress) {
    this.#settings = settings
    this.#progress = progress
  }

  /** Ends what is left of processes and files. May be called at any time, again too. */
  async clean(): Promise<void> {
    await this.#children.endAll()
    if (!this.#settings.keep) rmSync(this.#directory, { recursive: true, force: true })
  }

  async run(): Promise<DemoResult> {
    const { file, processes } = this.#settings
    const fileByteLength = checkedFileByteLength(file)
    const nodes = await this.#startNodes()
    try {
      const crew = new Crew(this.#progress)
      const planOf = this.#planner(nodes, fileByteLength)
      await crew.start(this.#children, nodes, this.#directory, planOf)
      const outcome = await this.#course(crew, nodes, fileByteLength)
      return {
        processes: 2 * processes,
        processesPerNode: processes,
        remotePairs: processes ** 2,
        unsharedQueuePairsPerNode: processes ** 2,
        messages: crew.messages,
        bytes: crew.bytes,
        file,
        fileByteLength,
        ...outcome,
        seconds: Math.round(performance.now() - this.#startedMs) / 1000,
        directory: this.#settings.keep ? this.#directory : null,
      }
    } catch (error) {
      throw withLogs(error, nodes)
    } finally {
      this.#progress.end()
    }
  }

  async #course(crew: Crew, nodes: readonly DemoNode[], fileByteLength: number) {
    const failures: string[] = []
    const hold = (holds: boolean, otherwise: string): void => {
      if (!holds) failures.push(otherwise)
    }
    await connectAll(crew)
    const sharing = nodes.map((node) => node.sharing())
    for (const one of sharing) this.#checkSharing(one, hold)
    await exchangeAll(crew, crew.all, 0, null)
    const moved = await moveFile(crew, this.#settings.file, fileByteLength, join(this.#directory, 'file'))
    hold(moved.equal, 'the file read back differs from the one written')
    const counted = await countTogether(crew)
    hold(
      counted.exact,
      `the counter stands at ${counted.value} instead of ${counted.expected}, or a value was found twice`,
    )
    hold(await shareQueuePair(crew), 'a stream through the shared queue pair was not in order')
    const killed = await killOne(crew)
    hold(
      !killed.verdicts.includes('success'),
      `a request to the killed process succeeded: ${killed.verdicts.join(' ')}`,
    )
    const survivors = crew.all.filter((seat) => seat !== killed.seat)
    const survivorsFinished = await finishAll(crew, survivors)
    hold(survivorsFinished === survivors.length, `${survivorsFinished} of ${survivors.length} survivors finished`)
    return {
      queuePairs: sharing.reduce((sum, one) => sum + one.queuePairs, 0),
      sharedQueuePairsPerNode: Math.max(...sharing.map((one) => one.sharedQueuePairs)),
      fileSha256: moved.sha256,
      counter: counted.value,
      verdictsOfKilled: verdictCounts(killed),
      verified: failures.length === 0,
      failures,
      killed: 1,
      survivorsFinished,
    }
  }

  #checkSharing(sharing: Sharing, hold: (holds: boolean, otherwise: string) => void): void {
    const { lanes, processes } = this.#settings
    const { sharedQueuePairs, remoteQueuePairs } = sharing
    hold(sharedQueuePairs === lanes, `a node has ${sharedQueuePairs} shared queue pairs instead of ${lanes}`)
    hold(
      remoteQueuePairs === processes ** 2,
      `a node has ${remoteQueuePairs} connected queue pairs instead of ${processes ** 2}`,
    )
  }

  async #startNodes(): Promise<readonly DemoNode[]> {
    const clusterKeyFile = join(this.#directory, 'cluster.key')
    writeFileSync(clusterKeyFile, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 })
    const [alphaPort, betaPort] = [await freePort(HOST), await freePort(HOST)]
    const { lanes, provider } = this.#settings
    const common = { host: HOST, directory: this.#directory, clusterKeyFile, lanes, provider }
    const nodes = [
      new DemoNode({ ...common, name: 'alpha', port: alphaPort, peer: { name: 'beta', port: betaPort } }),
      new DemoNode({ ...common, name: 'beta', port: betaPort, peer: { name: 'alpha', port: alphaPort } }),
    ]
    this.#progress.step('start brokers', 0, nodes.length)
    await Promise.all(nodes.map((node) => node.start(this.#children)))
    return nodes
  }

  #planner(nodes: readonly DemoNode[], fileByteLength: number): (node: NodeName, rank: number) => DemoPlan {
    const { processes, file } = this.#settings
    const share = LARGE_BYTES_IN_ALL / processes ** 2
    const common = {
      processes,
      job: 'demo',
      jobKey: randomBytes(16).toString('hex'),
      file,
      fileByteLength,
      smallMessages: SMALL_MESSAGES,
      smallByteLength: SMALL_BYTES,
      largeByteLength: Math.min(2 ** 20, Math.max(2 ** 16, 2 ** Math.floor(Math.log2(share)))),
    }
    return (node, rank) => ({
      ...common,
      runtimeDirectory: nodes.find((one) => one.name === node)!.runtimeDirectory,
      node,
      otherNode: node === 'alpha' ? 'beta' : 'alpha',
      rank,
      holdsFile: node === 'beta',
    })
  }
}

function checkedFileByteLength(file: string): number {
  const found = statSync(file, { throwIfNoEntry: false })
  if (found?.isFile() && found.size > 0) return found.size
  throw new SharedVerbsError('invalid-argument', `--file ${file} is no file with something in it`, { file })
}

/** { flushed: 8, … } */
function verdictCounts({ verdicts }: Killed): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const verdict of verdicts) counts[verdict] = (counts[verdict] ?? 0) + 1
  return counts
}

function withLogs(error: unknown, nodes: readonly DemoNode[]): SharedVerbsError {
  const known = error instanceof SharedVerbsError ? error : undefined
  const message = error instanceof Error ? error.message : String(error)
  const logs = nodes.map((node) => `${node.name} said last: ${node.lastWords()}`)
  return new SharedVerbsError(
    known?.code ?? 'internal-error',
    [message, ...logs].join('\n'),
    known?.context ?? {},
    error,
  )
}
