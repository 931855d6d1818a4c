/**
 * Two machines on one wire, a broker on each: traffic in both directions, then over a wire that loses, doubles, delays and reorders, then
 * one machine is switched off. Both ends agree on every message; whoever is left learns of the loss in time and goes on.
 */
import type { Report } from '../report.js'
import { Agent } from './agent.js'
import { RemoteAgent } from './agent-link.js'
import { until } from './tools.js'
import { contradictions, successes } from './traffic.js'

const PATIENCE_MS = 120_000
const DISTURBANCE = 'delay 1ms loss 1% duplicate 1% reorder 2%'
/** A node that is not heard for 10 s is dead; 30 s later what waits for it is given up. Half as much again is for a busy host. */
const MISSED_MS = 15_000
const VERDICTS_MS = 60_000
const MESSAGES = 60
const SERVICES = ['north', 'south'] as const

interface Pair {
  readonly service: string
  readonly isFromAlpha: boolean
  readonly sender: number
  readonly receiver: number
}

class Machines {
  readonly alpha = new Agent('alpha')
  readonly beta: RemoteAgent
  readonly pairs: Pair[] = []

  constructor(beta: RemoteAgent) {
    this.beta = beta
  }

  async start(): Promise<void> {
    await Promise.all([this.alpha.startBroker(), this.beta.call('startBroker')])
    for (const service of SERVICES) {
      const isFromAlpha = service === 'north'
      const [sender, receiver] = isFromAlpha
        ? [await this.alpha.startTraffic('sender', service), await this.beta.call('startTraffic', 'receiver', service)]
        : [await this.beta.call('startTraffic', 'sender', service), await this.alpha.startTraffic('receiver', service)]
      this.pairs.push({ service, isFromAlpha, sender, receiver })
    }
  }

  async sent(pair: Pair): Promise<number> {
    const { isFromAlpha, sender } = pair
    return successes(await (isFromAlpha ? this.alpha.report(sender) : this.beta.call('report', sender)))
  }

  /** Milliseconds until each pair has moved so many messages more. */
  async move(messages: number, what: string): Promise<number> {
    const startMs = performance.now()
    for (const pair of this.pairs) {
      const before = await this.sent(pair)
      const isDone = async (): Promise<boolean> => (await this.sent(pair)) >= before + messages
      await until(isDone, `${messages} messages ${pair.service} ${what}`, PATIENCE_MS, 500)
    }
    return Math.round(performance.now() - startMs)
  }

  /** Senders first: what is under way arrives before the receivers end. */
  async settle(): Promise<readonly unknown[]> {
    const wrong: string[] = []
    const ends: unknown[] = []
    for (const { service, isFromAlpha, sender, receiver } of this.pairs.splice(0)) {
      const sent = await (isFromAlpha ? this.alpha.stopTraffic(sender) : this.beta.call('stopTraffic', sender))
      const received = await (isFromAlpha ? this.beta.call('stopTraffic', receiver) : this.alpha.stopTraffic(receiver))
      wrong.push(...contradictions(sent, received).map((text) => `${service}: ${text}`))
      const connections = Object.keys(sent.tallies).length
      ends.push({ service, connections, moved: successes(sent), verdicts: sent.verdicts })
    }
    if (wrong.length > 0) throw new Error(wrong.slice(0, 5).join('; '))
    return ends
  }
}

/** What the kernel of each machine lists is what the broker there claims. */
async function comparedQueuePairs(machines: Machines): Promise<Record<string, unknown>> {
  const states = { alpha: await machines.alpha.state(), beta: await machines.beta.call('state') }
  for (const [node, { kernelQueuePairs, claimedQueuePairs }] of Object.entries(states)) {
    const [kernel, claimed] = [kernelQueuePairs, claimedQueuePairs].map((list) =>
      [...list].sort((a, b) => a - b).join(' '),
    )
    if (kernel === '' || kernel !== claimed)
      throw new Error(`${node}: the kernel lists ${kernel}, the broker ${claimed}`)
  }
  return { alpha: states.alpha.kernelQueuePairs, beta: states.beta.kernelQueuePairs }
}

async function disturbed(machines: Machines): Promise<Record<string, unknown>> {
  const how = DISTURBANCE.split(' ')
  await Promise.all([machines.alpha.disturb(how), machines.beta.call('disturb', how)])
  const tookMs = await machines.move(MESSAGES, 'over the disturbed wire')
  await Promise.all([machines.alpha.disturb([]), machines.beta.call('disturb', [])])
  const ends = await machines.settle()
  return { ends, netem: DISTURBANCE, messagesEach: MESSAGES, tookMs, counters: await machines.alpha.counters() }
}

/** A sender of alpha is under way when beta goes. */
async function switchedOff(machines: Machines): Promise<Record<string, unknown>> {
  const { alpha, beta } = machines
  await beta.call('startTraffic', 'receiver', 'last')
  const sender = await alpha.startTraffic('sender', 'last')
  await until(async () => successes(await alpha.report(sender)) > 20, 'messages before the end', PATIENCE_MS)
  await beta.call('powerOff')
  const startMs = performance.now()
  await until(async () => (await alpha.state()).peer !== 'connected', 'alpha to miss beta', PATIENCE_MS)
  const missedMs = Math.round(performance.now() - startMs)
  const hasVerdicts = async (): Promise<boolean> =>
    Object.values((await alpha.report(sender)).tallies).every((tally) => tally.flushed + tally.uncertain > 0)
  await until(hasVerdicts, 'verdicts', PATIENCE_MS)
  const verdictsMs = Math.round(performance.now() - startMs)
  const { verdicts, failures } = await alpha.stopTraffic(sender)
  if (failures.length > 0) throw new Error(failures.join('; '))
  if (missedMs > MISSED_MS) throw new Error(`missed after ${missedMs} ms`)
  if (verdictsMs > VERDICTS_MS) throw new Error(`verdicts came after ${verdictsMs} ms`)
  const { isAlive, kernelQueuePairs } = await alpha.state()
  if (!isAlive) throw new Error('the broker of the machine that was left ended')
  return { missedMs, verdictsMs, verdicts, queuePairsLeft: kernelQueuePairs.length }
}

export async function joinMachines(): Promise<Pick<Report, 'twoNodes'>> {
  const machines = new Machines(await RemoteAgent.dial('beta'))
  const twoNodes: Record<string, unknown> = {}
  const tell = (name: string, found: unknown): void => {
    twoNodes[name] = found
    console.log(`${name}: ${JSON.stringify(found)}`)
  }
  try {
    await machines.start()
    tell('quiet', { messagesEach: MESSAGES, tookMs: await machines.move(MESSAGES, 'over a quiet wire') })
    tell('queuePairs', await comparedQueuePairs(machines))
    tell('disturbed', await disturbed(machines))
    tell('switchedOff', await switchedOff(machines))
    return { twoNodes }
  } catch (error) {
    console.log(`alpha:\n${machines.alpha.broker.lastWords()}`)
    throw error
  } finally {
    await machines.alpha.end()
    machines.beta.hangUp()
  }
}
