/** One machine of two: its broker, its processes, its network. The other machine orders the same things over TCP (agent-link.ts). */
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { BrokerNode } from './broker-node.js'
import { kernelQueuePairs, must } from './tools.js'
import { TrafficProcess, type TrafficReport } from './traffic.js'

export type NodeName = 'alpha' | 'beta'
export const addresses: Readonly<Record<NodeName, string>> = { alpha: '10.78.0.1', beta: '10.78.0.2' }
const PORT = 7471
const COUNTERS = '/sys/class/infiniband/rxe0/ports/1/hw_counters'

export interface NodeState {
  readonly isAlive: boolean
  /** How the broker sees the other node. */
  readonly peer: string
  readonly kernelQueuePairs: readonly number[]
  readonly claimedQueuePairs: readonly number[]
}

export class Agent {
  readonly broker: BrokerNode
  readonly #other: NodeName
  readonly #traffic: TrafficProcess[] = []

  constructor(name: NodeName) {
    this.#other = name === 'alpha' ? 'beta' : 'alpha'
    const peer = `${this.#other}=${addresses[this.#other]}:${PORT}`
    this.broker = new BrokerNode({ name, folder: mkdtempSync('/tmp/two-'), host: addresses[name], port: PORT, peer })
  }

  startBroker(): Promise<void> {
    return this.broker.start()
  }

  /** Its number. */
  async startTraffic(role: 'sender' | 'receiver', service: string): Promise<number> {
    return this.#traffic.push(new TrafficProcess(role, this.broker.runtimeDirectory, service, this.#other)) - 1
  }

  report(number: number): Promise<TrafficReport> {
    return this.#traffic[number]!.report()
  }

  stopTraffic(number: number): Promise<TrafficReport> {
    return this.#traffic[number]!.stop()
  }

  async state(): Promise<NodeState> {
    return {
      isAlive: this.broker.isAlive,
      peer: this.broker.stateOf(this.#other),
      kernelQueuePairs: (await kernelQueuePairs()).map(({ lqpn }) => lqpn),
      claimedQueuePairs: this.broker.sharedQueuePairs,
    }
  }

  /** What the wire does to every packet that leaves; none: nothing. */
  async disturb(how: readonly string[]): Promise<void> {
    if (how.length === 0) await must('tc', 'qdisc', 'del', 'dev', 'eth0', 'root')
    else await must('tc', 'qdisc', 'replace', 'dev', 'eth0', 'root', 'netem', ...how)
  }

  /** What Soft-RoCE counted, without what is still zero. */
  async counters(): Promise<Record<string, number>> {
    const all = readdirSync(COUNTERS).map(
      (name) => [name, Number(readFileSync(`${COUNTERS}/${name}`, 'utf8'))] as const,
    )
    return Object.fromEntries(all.filter(([name, value]) => value > 0 && name !== 'lifespan'))
  }

  /** At once, as when somebody pulls the plug. */
  async powerOff(): Promise<void> {
    setTimeout(() => writeFileSync('/proc/sysrq-trigger', 'o'), 50)
  }

  async end(): Promise<void> {
    await Promise.all(this.#traffic.map((one) => one.kill()))
    await this.broker.end('SIGTERM')
  }
}
