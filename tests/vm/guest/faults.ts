/**
 * What goes wrong under real verbs, each under load, with two brokers on one Soft-RoCE device: processes of the job killed, the address
 * taken away, the device removed, a broker killed. What holds each time: both ends agree on every message, every request has its verdict,
 * whoever lives goes on.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import type { Report } from '../report.js'
import { BrokerNode } from './broker-node.js'
import { kernelQueuePairs, must, run, until } from './tools.js'
import { contradictions, successes, TrafficProcess, type TrafficReport } from './traffic.js'

const HOST = '127.0.0.1'
const PORTS = { alpha: 17_471, beta: 17_472 } as const
const PATIENCE_MS = 120_000
const ADDRESS = ['10.77.0.1/24', 'dev', 'veth0'] as const

type Findings = Record<string, unknown>

class Scene {
  readonly folder = mkdtempSync('/tmp/faults-')
  readonly alpha: BrokerNode
  readonly beta: BrokerNode
  receiver: TrafficProcess | null = null
  sender: TrafficProcess | null = null
  readonly others: TrafficProcess[] = []

  constructor() {
    const folder = this.folder
    this.alpha = new BrokerNode({
      name: 'alpha',
      folder,
      host: HOST,
      port: PORTS.alpha,
      peer: `beta=${HOST}:${PORTS.beta}`,
    })
    this.beta = new BrokerNode({
      name: 'beta',
      folder,
      host: HOST,
      port: PORTS.beta,
      peer: `alpha=${HOST}:${PORTS.alpha}`,
    })
  }

  async start(): Promise<void> {
    await Promise.all([this.alpha.start(), this.beta.start()])
    this.receiver = this.#process('receiver', this.beta, 'main')
    this.sender = this.#process('sender', this.alpha, 'main', 'beta')
    await this.goesOn('the first messages')
  }

  #process(role: 'sender' | 'receiver', at: BrokerNode, service: string, node = ''): TrafficProcess {
    return new TrafficProcess(role, at.runtimeDirectory, service, node)
  }

  /** Another pair of processes, which the scene ends. */
  pair(service: string): { sender: TrafficProcess; receiver: TrafficProcess } {
    const receiver = this.#process('receiver', this.beta, service)
    const sender = this.#process('sender', this.alpha, service, 'beta')
    this.others.push(receiver, sender)
    return { sender, receiver }
  }

  /** Milliseconds until messages of the main pair succeed that were posted after now. */
  async goesOn(what: string, sender = this.sender!): Promise<number> {
    const before = successes(await sender.report())
    return until(
      async () => successes(await sender.report()) > before + 40,
      `${what}: messages succeed`,
      PATIENCE_MS,
      200,
    )
  }

  /** Traffic ends in order; what the ends tell must fit together. */
  async settle(): Promise<{ sent: TrafficReport; received: TrafficReport }> {
    const sent = await this.sender!.stop()
    const received = await this.receiver!.stop()
    const wrong = contradictions(sent, received)
    if (wrong.length > 0) throw new Error(wrong.slice(0, 5).join('; '))
    return { sent, received }
  }

  async end(): Promise<void> {
    await Promise.all([this.sender, this.receiver, ...this.others].map((one) => one?.kill()))
    await Promise.all([this.alpha.end('SIGTERM'), this.beta.end('SIGTERM')])
    rmSync(this.folder, { recursive: true, force: true })
  }
}

function hold(holds: boolean, otherwise: string): void {
  if (!holds) throw new Error(otherwise)
}

const numbersOf = (list: readonly number[]): string => [...list].sort((a, b) => a - b).join(' ')
const kernelNumbers = async (): Promise<string> => numbersOf((await kernelQueuePairs()).map(({ lqpn }) => lqpn))

/** Processes of the job die under load: their peers get verdicts, others notice nothing, the shared queue pairs stay. */
async function clientsKilled(scene: Scene): Promise<Findings> {
  const before = await kernelNumbers()
  const first = scene.pair('first')
  const second = scene.pair('second')
  await scene.goesOn('before', first.sender)
  await scene.goesOn('before', second.sender)
  await Promise.all([first.sender.kill(), second.receiver.kill()])
  const goesOnMs = await scene.goesOn('after the kills')
  // The sender whose receiver is gone has its verdicts and asks in vain for a listener.
  const isRefused = async (): Promise<boolean> => Object.keys((await second.sender.report()).refusals).length > 0
  const verdictsMs = await until(isRefused, 'verdicts of the killed peer', PATIENCE_MS, 200)
  const { verdicts } = await second.sender.stop()
  hold((await kernelNumbers()) === before, 'the shared queue pairs changed when processes were killed')
  return { goesOnMs, verdictsMs, verdictsOfItsPeer: verdicts }
}

/** The address of the device's port goes and comes back. */
async function addressRemoved(scene: Scene): Promise<Findings> {
  const before = await kernelNumbers()
  await must('ip', 'address', 'del', ...ADDRESS)
  const isBroken = async (): Promise<boolean> => (await kernelNumbers()) !== before
  const lanesLostMs = await until(isBroken, 'lanes lost', PATIENCE_MS, 200)
  await must('ip', 'address', 'add', ...ADDRESS)
  const goesOnMs = await scene.goesOn('after the address came back')
  hold(scene.alpha.isAlive && scene.beta.isAlive, 'a broker ended')
  return { lanesLostMs, goesOnMs }
}

/** The device is removed under the brokers, and added again. */
async function deviceRemoved(scene: Scene): Promise<Findings> {
  const startMs = performance.now()
  const { code, stderr } = await run('rdma', ['link', 'del', 'rxe0'], PATIENCE_MS)
  hold(code === 0, `rdma link del: ${stderr}`)
  const commandMs = Math.round(performance.now() - startMs)
  const isTold = async (): Promise<boolean> => ((await scene.sender!.report()).events['device-removed'] ?? 0) > 0
  const toldMs = await until(isTold, 'the event of the removed device', PATIENCE_MS)
  hold(scene.alpha.isAlive && scene.beta.isAlive, 'a broker ended')
  await must('rdma', 'link', 'add', 'rxe0', 'type', 'rxe', 'netdev', 'veth0')
  const goesOnMs = await scene.goesOn('after the device came back')
  return { commandMs, toldMs, goesOnMs }
}

/** A broker dies: the other notices, its queue pairs are gone, its successor works. */
async function brokerKilled(scene: Scene): Promise<Findings> {
  const { pid } = scene.beta
  const startMs = performance.now()
  await scene.beta.end('SIGKILL')
  const left = async (): Promise<boolean> => (await kernelQueuePairs()).every((one) => one.pid !== pid)
  const queuePairsGoneMs = await until(left, 'the queue pairs of the dead broker gone', PATIENCE_MS)
  const noticedMs = await until(() => scene.alpha.stateOf('beta') !== 'connected', 'alpha notices', PATIENCE_MS)
  await scene.beta.start()
  await scene.goesOn('with the new broker')
  return { queuePairsGoneMs, noticedMs, goesOnMs: Math.round(performance.now() - startMs) }
}

const scenes: Readonly<Record<string, (scene: Scene) => Promise<Findings>>> = {
  clientsKilled,
  addressRemoved,
  deviceRemoved,
  brokerKilled,
}

export async function provokeFaults(): Promise<Pick<Report, 'faults'>> {
  const faults: Record<string, unknown> = {}
  const scene = new Scene()
  try {
    await scene.start()
    for (const [name, play] of Object.entries(scenes)) {
      faults[name] = await play(scene)
      console.log(`${name}: ${JSON.stringify(faults[name])}`)
    }
    const { sent } = await scene.settle()
    const { events, refusals, verdicts } = sent
    faults['sender'] = { connections: Object.keys(sent.tallies).length, verdicts, events, refusals }
    console.log(`sender: ${JSON.stringify(faults['sender'])}`)
    return { faults }
  } catch (error) {
    console.log(`alpha:\n${scene.alpha.lastWords()}\nbeta:\n${scene.beta.lastWords()}`)
    throw error
  } finally {
    await scene.end()
  }
}
