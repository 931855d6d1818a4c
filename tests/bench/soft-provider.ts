/**
 * How fast the soft provider is between two processes on this machine: SEND rate, WRITE bandwidth, ping-pong latency.
 *
 *   node --import=./broker/typescript.js tests/bench/soft-provider.ts [seconds each] [measurement …]
 *
 * The parent initiates, the forked child responds, each on a core of its own. Both spin and yield when they find nothing, so two idle
 * cores are wanted; compare ratios of one run, not absolute numbers of two. A measurement is cut into short rounds: others who use the
 * cores slow some of them down, so the best round says more about the code than the median does.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { pinToCore } from '../../broker/commands/bench/pinning.js'
import {
  CompletionBatch,
  type Device,
  type Done,
  type ProviderCompletionQueue,
  type ProviderQueuePair,
  type QueuePairAddress,
  type QueuePairAttributes,
  type RegisteredMemory,
  receiveOpcode,
  sendFlag,
  sendOpcode,
  WorkRequestBatch,
} from '../../broker/provider/provider.js'
import { openSoftDevice } from '../../broker/provider/soft-device.js'
import { clock, mapAnonymous, schedulerYield } from '../../shm/libc.js'
import { medianOf, printFigure } from './figures.js'

const MEMORY_BYTES = 64 << 20
const RECEIVE_DEPTH = 2048
const SEND_DEPTH = 1024
const SIGNAL_EACH = 16
const IDLE_TURNS_BEFORE_YIELD = 20
const ROUNDS = 10

const attributes: QueuePairAttributes = {
  readsInitiated: 16,
  readsAccepted: 16,
  pathMtu: 4096,
  timeoutExponent: 18,
  retryCount: 6,
  rnrRetryCount: 7,
  rnrTimerMs: 0.64,
  trafficClass: 0,
}

interface Introduction {
  readonly address: QueuePairAddress
  readonly remoteKey: number
}

class End {
  readonly device: Device
  readonly memory: RegisteredMemory
  readonly queue: ProviderCompletionQueue
  readonly queuePair: ProviderQueuePair
  readonly completions = new CompletionBatch(1024)
  readonly requests = new WorkRequestBatch(RECEIVE_DEPTH)
  #idleTurns = 0

  constructor(name: string) {
    const device = openSoftDevice({ name, host: '127.0.0.1', port: 0 })
    this.device = device
    const domain = now(device.allocateProtectionDomain.bind(device))
    const address = mapAnonymous(MEMORY_BYTES)
    const rights = { localWrite: true, remoteRead: true, remoteWrite: true }
    this.memory = now((done) => device.registerMemory(domain, address, MEMORY_BYTES, rights, done))
    this.queue = now((done) => device.createCompletionQueue(RECEIVE_DEPTH + SEND_DEPTH, done))
    const limits = { sendDepth: SEND_DEPTH, receiveDepth: RECEIVE_DEPTH, scatterGather: 2, inlineByteLength: 64 }
    this.queuePair = now((done) => device.createQueuePair(domain, this.queue, this.queue, limits, done))
  }

  get introduction(): Introduction {
    return { address: this.device.addressOf(this.queuePair), remoteKey: this.memory.remoteKey }
  }

  connect(remote: Introduction): void {
    now<true>((done) => this.device.toReadyToReceive(this.queuePair, remote.address, attributes, done))
    now<true>((done) => this.device.toReadyToSend(this.queuePair, attributes, done))
  }

  postReceives(count: number, byteLength: number): void {
    this.requests.clear()
    for (let index = 0; index < count; index++) {
      this.requests.begin(0, 0, receiveOpcode, 0, 0, 0)
      this.requests.addSge(this.memory.address, byteLength, this.memory.localKey)
    }
    if (this.device.postReceive(this.queuePair, this.requests) !== count) throw new Error('receives were refused')
  }

  /** One turn; the completions of it are in `completions`. */
  turn(): number {
    const work = this.device.progress(clock.nowMs())
    this.completions.count = 0
    const polled = this.device.poll(this.queue, this.completions)
    this.#idleTurns = work + polled > 0 ? 0 : this.#idleTurns + 1
    if (this.#idleTurns > IDLE_TURNS_BEFORE_YIELD) schedulerYield()
    return polled
  }
}

function now<Result>(call: (done: Done<Result>) => void): Result {
  let outcome: Result | null = null
  call((failure, result) => {
    if (failure !== null) throw new Error(failure.message)
    outcome = result
  })
  if (outcome === null) throw new Error('the soft provider answers control calls at once')
  return outcome
}

interface Measurement {
  readonly name: string
  readonly kind: 'send' | 'write' | 'ping'
  readonly byteLength: number
  readonly depth: number
}

const measurements: readonly Measurement[] = [
  { name: 'send-64', kind: 'send', byteLength: 64, depth: 64 },
  { name: 'send-64-deep', kind: 'send', byteLength: 64, depth: 1024 },
  { name: 'send-4k', kind: 'send', byteLength: 4096, depth: 64 },
  { name: 'write-64', kind: 'write', byteLength: 64, depth: 1024 },
  { name: 'write-256k', kind: 'write', byteLength: 256 << 10, depth: 8 },
  { name: 'write-1m', kind: 'write', byteLength: 1 << 20, depth: 8 },
  { name: 'ping-64', kind: 'ping', byteLength: 64, depth: 1 },
]

/** Initiates until the time is over; returns how many requests completed and in how many seconds. */
function initiate(end: End, what: Measurement, remoteKey: number, seconds: number): { count: number; seconds: number } {
  let posted = 0
  let completed = 0
  const startMs = clock.nowMs()
  const isOver = () => clock.nowMs() - startMs > seconds * 1000
  for (let isLast = false; completed < posted || !isLast; ) {
    if (!isLast && isOver()) isLast = true
    const room = isLast ? 0 : what.depth - (posted - completed)
    if (room >= Math.min(SIGNAL_EACH, what.depth)) posted += post(end, what, remoteKey, posted, room)
    end.turn()
    for (let index = 0; index < end.completions.count; index++) {
      if (end.completions.status[index] !== 0) throw new Error(`status ${end.completions.status[index]}`)
      if (end.completions.opcode[index] !== receiveOpcode) completed = end.completions.idLow[index]! + 1
    }
    if (isLast && completed >= posted - (posted % SIGNAL_EACH)) break
  }
  return { count: completed, seconds: (clock.nowMs() - startMs) / 1000 }
}

function post(end: End, what: Measurement, remoteKey: number, first: number, room: number): number {
  const { requests } = end
  const opcode = what.kind === 'write' ? sendOpcode.write : sendOpcode.send
  const each = Math.min(SIGNAL_EACH, what.depth)
  requests.clear()
  for (let index = first; index < first + room; index++) {
    const flags = (index + 1) % each === 0 || what.kind === 'write' ? sendFlag.signaled : 0
    const place = (index * what.byteLength) % (MEMORY_BYTES / 4)
    requests.begin(index, 0, opcode, flags, place, remoteKey)
    requests.addSge(end.memory.address + place, what.byteLength, end.memory.localKey)
  }
  return end.device.postSend(end.queuePair, requests)
}

function pingPong(end: End, rounds: number): { p50: number; p99: number } {
  const micros: number[] = []
  const { requests } = end
  end.postReceives(16, 64)
  for (let round = 0; round < rounds; round++) {
    const start = clock.nowMs()
    requests.clear()
    requests.begin(round, 0, sendOpcode.send, sendFlag.signaled, 0, 0)
    requests.addSge(end.memory.address, 64, end.memory.localKey)
    end.device.postSend(end.queuePair, requests)
    for (let isBack = false; !isBack; ) {
      end.turn()
      for (let index = 0; index < end.completions.count; index++)
        if (end.completions.opcode[index] === receiveOpcode) isBack = true
    }
    micros.push(((clock.nowMs() - start) * 1000) / 2)
    end.postReceives(1, 64)
  }
  micros.splice(0, rounds / 10)
  micros.sort((a, b) => a - b)
  return { p50: micros[micros.length >> 1]!, p99: micros[Math.floor(micros.length * 0.99)]! }
}

/** The child: keeps receives posted, answers pings, until told to stop by the parent's end. */
function respond(end: End, what: Measurement): void {
  end.postReceives(RECEIVE_DEPTH, Math.max(what.byteLength, 64))
  const echo = new WorkRequestBatch(1)
  let used = 0
  for (let idleSinceMs = clock.nowMs(); clock.nowMs() - idleSinceMs < 400; ) {
    const polled = end.turn()
    if (polled > 0 || end.device.counters.bytesReceived !== lastBytes) idleSinceMs = clock.nowMs()
    lastBytes = end.device.counters.bytesReceived
    for (let index = 0; index < end.completions.count; index++) {
      if (end.completions.opcode[index] !== receiveOpcode) continue
      used++
      if (what.kind !== 'ping') continue
      echo.clear()
      echo.begin(0, 0, sendOpcode.send, sendFlag.signaled, 0, 0)
      echo.addSge(end.memory.address, 64, end.memory.localKey)
      end.device.postSend(end.queuePair, echo)
    }
    if (used >= 256) {
      end.postReceives(used, Math.max(what.byteLength, 64))
      used = 0
    }
  }
}
let lastBytes = 0

async function child(): Promise<void> {
  const what = measurements.find((measurement) => measurement.name === process.argv[3])!
  const end = new End('responder')
  const introduced = once(process, 'message')
  process.send!(end.introduction)
  const [remote] = (await introduced) as [Introduction]
  end.connect(remote)
  respond(end, what)
  const { counters } = end.device
  end.device.close()
  process.send!(counters, () => process.exit(0))
}

async function measure(what: Measurement, seconds: number): Promise<void> {
  const peer: ChildProcess = fork(fileURLToPath(import.meta.url), ['respond', what.name], {})
  const end = new End('initiator')
  pinToCore(process.pid, 0)
  pinToCore(peer.pid!, 1)
  const [remote] = (await once(peer, 'message')) as [Introduction]
  peer.send(end.introduction)
  end.connect(remote)
  print(end, what, remote.remoteKey, seconds)
  const [counters] = (await once(peer, 'message')) as [{ receiverNotReady: number }]
  end.device.close()
  if (counters.receiverNotReady > 0)
    printFigure(`provider: ${what.name}, receiver not ready`, counters.receiverNotReady, 'times')
}

function print(end: End, what: Measurement, remoteKey: number, seconds: number): void {
  const name = `provider: ${what.name}`
  if (what.kind === 'ping') {
    const { p50, p99 } = pingPong(end, 20_000)
    printFigure(`${name}, one way p50`, p50, 'us')
    printFigure(`${name}, one way p99`, p99, 'us')
    return
  }
  initiate(end, what, remoteKey, seconds / 4)
  const { systemCalls, messagesSent } = end.device.counters
  const rates: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    const { count, seconds: taken } = initiate(end, what, remoteKey, seconds / ROUNDS)
    rates.push(count / taken)
  }
  const { counters } = end.device
  for (const [which, rate] of [
    ['median', medianOf(rates)],
    ['best', Math.max(...rates)],
  ] as const) {
    printFigure(`${name}, rate, ${which}`, rate / 1e6, 'M/s')
    printFigure(`${name}, bandwidth, ${which}`, (rate * what.byteLength) / 1e6, 'MB/s')
  }
  printFigure(
    `${name}, system calls`,
    (counters.systemCalls - systemCalls) / (counters.messagesSent - messagesSent),
    'each',
  )
}

if (process.argv[2] === 'respond') {
  await child()
} else {
  const seconds = Number(process.argv[2] ?? 1)
  const names = process.argv.slice(3)
  for (const what of measurements) if (names.length === 0 || names.includes(what.name)) await measure(what, seconds)
}
