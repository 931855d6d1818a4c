/** The broker of a node of the storm: started, killed, counted. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { MARK_NAME, runMark } from '../support/guard.js'
import { type Holdings, holdingsOf } from '../support/holdings.js'
import { type Connection, connectionsOf, cut } from '../support/socket-faults.js'
import { until } from '../support/until.js'
import type { NodeName } from './plan.js'

export interface BrokerPlan {
  readonly name: NodeName
  readonly main: string
  readonly directory: string
  readonly port: number
  readonly peer: NodeName
  readonly peerPort: number
  readonly log: string
}

const START_MS = 30_000

export class Broker {
  readonly name: NodeName
  readonly #plan: BrokerPlan
  #child: ChildProcess | undefined

  constructor(plan: BrokerPlan) {
    this.name = plan.name
    this.#plan = plan
  }

  get directory(): string {
    return this.#plan.directory
  }

  get processId(): number {
    return this.#child?.pid ?? 0
  }

  get lives(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  async start(): Promise<void> {
    const { name, main, directory, port, peer, peerPort, log } = this.#plan
    const places = ['--runtime-dir', directory, '--node', name, '--host', '127.0.0.1', '--port', String(port)]
    const rest = ['--peer', `${peer}=127.0.0.1:${peerPort}`, '--provider', 'soft', '--log-level', 'info', '--json']
    const patience = ['--lanes', '2', '--reattach-grace-ms', '60000', '--peer-grace-ms', '120000']
    const env = { ...process.env, SHARED_VERBS_CLUSTER_KEY: 'secret of the storm', [MARK_NAME]: runMark }
    const output = openSync(log, 'a', 0o600)
    const child = spawn(process.execPath, [main, 'start', ...places, ...rest, ...patience], {
      env,
      stdio: ['ignore', 'pipe', output],
    })
    closeSync(output)
    this.#child = child
    let said = ''
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (said += text))
    const ready = (): boolean => {
      if (!this.lives) throw new Error(`the broker of ${name} ended at its start: ${said} ${lastLine(log)}`)
      return said.includes('"event":"started"')
    }
    await until(ready, { timeoutMs: START_MS, what: `the broker of ${name}` })
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child
    if (!child || !this.lives) return
    const ended = once(child, 'exit')
    child.kill(signal)
    await ended
  }

  /** Connections to the other broker: the link, the lanes, or both. */
  cut(which: 'link' | 'lanes' | 'all'): number {
    const { port, peerPort } = this.#plan
    const isLink = ({ localPort, remotePort }: Connection): boolean => localPort === port || remotePort === peerPort
    return connectionsOf(this.processId)
      .filter((connection) => which === 'all' || isLink(connection) === (which === 'link'))
      .filter(cut).length
  }

  holdings(): Holdings {
    return holdingsOf(this.processId)
  }
}

function lastLine(path: string): string {
  return readFileSync(path, 'utf8').trim().split('\n').slice(-3).join('\n')
}
