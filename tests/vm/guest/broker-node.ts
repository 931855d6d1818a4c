/** A broker of the machine over verbs, in a directory of its own. */
import type { ChildProcess } from 'node:child_process'
import { mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { spawnBroker, whenStarted } from '../../../broker/commands/child-broker.js'
import { readNodeFile } from '../../../broker/observe/node-file-reader.js'
import { laneStateNames, peerStateNames } from '../../../protocol/node-file.js'

export interface BrokerNodeOptions {
  readonly name: string
  readonly folder: string
  readonly host: string
  readonly port: number
  /** `name=host:port` */
  readonly peer: string
  readonly lanes?: number
}

export class BrokerNode {
  readonly runtimeDirectory: string
  readonly logPath: string
  readonly #options: BrokerNodeOptions
  #child: ChildProcess | null = null

  constructor(options: BrokerNodeOptions) {
    const { folder, name } = options
    this.#options = options
    this.runtimeDirectory = join(folder, name)
    this.logPath = join(folder, `${name}.log`)
    mkdirSync(folder, { recursive: true })
  }

  async start(): Promise<void> {
    const { name, folder, host, port, peer, lanes = 2 } = this.#options
    const key = join(folder, 'cluster.key')
    writeFileSync(key, 'the same in every machine of this test\n', { mode: 0o600 })
    const startArguments = [
      ...['--runtime-dir', this.runtimeDirectory, '--node', name, '--provider', 'verbs', '--host', host],
      ...['--port', String(port), '--peer', peer, '--cluster-key-file', key, '--lanes', String(lanes), '--json'],
    ]
    const child = spawnBroker({ startArguments, output: openSync(this.logPath, 'a'), detached: false })
    this.#child = child
    try {
      await whenStarted(child)
    } catch (error) {
      throw new Error(`broker ${name}: ${error instanceof Error ? error.message : error}\n${this.lastWords()}`)
    }
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  get isAlive(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** Gone when this settles. */
  end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const child = this.#child
    if (child === null || !this.isAlive) return Promise.resolve()
    return new Promise((resolve) => {
      child.once('exit', () => resolve())
      child.kill(signal)
    })
  }

  /** Numbers of the queue pairs that it says are up. */
  get sharedQueuePairs(): readonly number[] {
    const rows = readNodeFile(this.runtimeDirectory).rows('sharedQueuePairs')
    return rows.filter(({ state }) => laneStateNames[state] === 'up').map(({ providerNumber }) => providerNumber)
  }

  /** How it sees the other node. */
  stateOf(peer: string): string {
    const row = readNodeFile(this.runtimeDirectory)
      .rows('peers')
      .find(({ node }) => node === peer)
    return row === undefined ? 'unknown' : (peerStateNames[row.state] ?? String(row.state))
  }

  lastWords(): string {
    return readFileSync(this.logPath, 'utf8').trim().split('\n').slice(-8).join('\n')
  }
}
