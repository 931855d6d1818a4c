/**
 * A process of a job that ends or stops itself at a step, while it posts, polls and waits. argv: what `Doom` says, as JSON. Prints
 * `member <n>`, later `reached <ms>`, the machine's monotonic clock.
 */
import { setImmediate as turn } from 'node:timers/promises'
import { attach, type QueuePairHandle } from '../../client/index.js'
import { arm, type KillPoint, requestPoints, setKillPoint } from './kill-points.js'

export interface Doom {
  readonly runtimeDirectory: string
  readonly job: string
  readonly jobKey: string
  readonly point: KillPoint
  readonly signal: NodeJS.Signals
  /** Shared with those who survive. */
  readonly queuePair: QueuePairHandle
  readonly peerNode: string
  /** Where it has a connection of its own. */
  readonly service: string
}

/** Rounds of its work before the step counts. */
const ROUNDS = 200

const doom = JSON.parse(process.argv[2] ?? '{}') as Doom
const { point, signal, runtimeDirectory: runtimeDir, job, jobKey } = doom
const isRequest = (requestPoints as readonly string[]).includes(point)

setKillPoint(point, signal)
if (point === 'attach') arm()
const session = await attach({ runtimeDir, job, jobKey, name: 'doomed', timeoutMs: 20_000 })
console.log(`member ${session.member}`)
const cq = await session.createCompletionQueue()
const own = await session.createQueuePair({ sendCq: cq })
await own.connect({ node: doom.peerNode, service: doom.service }, { timeoutMs: 20_000 })
const memory = await session.registerMemory(65_536, { remoteWrite: true })
const shared = await session.openQueuePair(doom.queuePair)

const payload = new Uint8Array(8)
const words = new Uint32Array(payload.buffer)
words[0] = session.member
let sequence = 0
for (let round = 0; ; round++) {
  words[1] = sequence
  if (shared.postSend({ id: session.member * 2 ** 24 + sequence, opcode: 'send', inline: payload }) === 1) sequence++
  shared.sendCq.poll(8)
  if (round === ROUNDS) {
    arm()
    if (isRequest) await ask()
  }
  if (round % 8 === 0) await shared.sendCq.wait({ timeoutMs: 5 })
  else await turn()
}

async function ask(): Promise<void> {
  if (point === 'registerMemory') await session.registerMemory(1 << 20)
  else if (point === 'openQueuePair') {
    const other = await session.createQueuePair({ sendCq: cq })
    const guest = await attach({ runtimeDir, job, jobKey, name: 'guest' })
    await guest.openQueuePair(other.share())
  } else if (point === 'closeQueuePair') await own.close()
  else if (point === 'detach') await session.close()
  await memory.close()
}
