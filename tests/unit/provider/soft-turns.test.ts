/** What two soft devices say to each other and when, turned by hand: answers that may wait, bytes that are owed, sleep. */
import test, { type ExecutionContext } from 'ava'
import {
  CompletionBatch,
  type Device,
  type Done,
  type ProtectionDomain,
  type ProviderCompletionQueue,
  type ProviderQueuePair,
  type QueuePairAttributes,
  type RegisteredMemory,
  receiveOpcode,
  sendFlag,
  sendOpcode,
  WorkRequestBatch,
} from '../../../broker/provider/provider.js'
import { Arena } from '../../../broker/provider/soft-arena.js'
import { openSoftDevice } from '../../../broker/provider/soft-device.js'

const MEMORY_BYTES = 4 << 20
const RECEIVES = 256
/** All of a test happens at this time: nothing in it depends on the clock. */
const NOW_MS = 1000

const attributes: QueuePairAttributes = {
  readsInitiated: 4,
  readsAccepted: 4,
  pathMtu: 4096,
  timeoutExponent: 18,
  retryCount: 6,
  rnrRetryCount: 7,
  rnrTimerMs: 0.64,
  trafficClass: 0,
}

function now<Result>(call: (done: Done<Result>) => void): Result {
  let outcome: Result | null = null
  call((failure, result) => {
    if (failure !== null) throw new Error(failure.message)
    outcome = result
  })
  return outcome!
}

class End {
  readonly device: Device
  readonly #arena = new Arena(MEMORY_BYTES)
  readonly memory: RegisteredMemory
  readonly queue: ProviderCompletionQueue
  readonly queuePair: ProviderQueuePair
  readonly #requests = new WorkRequestBatch(RECEIVES)
  readonly #completions = new CompletionBatch(RECEIVES)

  constructor(t: ExecutionContext, name: string) {
    this.device = openSoftDevice({ name, host: '127.0.0.1', port: 0 })
    const domain = now<ProtectionDomain>((done) => this.device.allocateProtectionDomain(done))
    const { address } = this.#arena.memory
    const rights = { localWrite: true, remoteRead: true, remoteWrite: true }
    this.memory = now((done) => this.device.registerMemory(domain, address, MEMORY_BYTES, rights, done))
    this.queue = now((done) => this.device.createCompletionQueue(1024, done))
    const limits = { sendDepth: 256, receiveDepth: RECEIVES, scatterGather: 1, inlineByteLength: 0 }
    this.queuePair = now((done) => this.device.createQueuePair(domain, this.queue, this.queue, limits, done))
    t.teardown(() => {
      this.device.close()
      this.#arena.close()
    })
  }

  post(opcode: number, byteLength: number, peer: End, flags: number = sendFlag.signaled): void {
    this.#requests.clear()
    this.#requests.begin(1, 0, opcode, flags, 0, peer.memory.remoteKey)
    this.#requests.addSge(this.memory.address, byteLength, this.memory.localKey)
    this.device.postSend(this.queuePair, this.#requests)
  }

  postReceives(): void {
    this.#requests.clear()
    for (let index = 0; index < RECEIVES; index++) {
      this.#requests.begin(2, 0, receiveOpcode, 0, 0, 0)
      this.#requests.addSge(this.memory.address, 64, this.memory.localKey)
    }
    this.device.postReceive(this.queuePair, this.#requests)
  }

  /** One turn; ids of what completed. */
  turn(): number[] {
    this.device.progress(NOW_MS)
    this.#completions.count = 0
    this.device.poll(this.queue, this.#completions)
    return [...this.#completions.idLow.subarray(0, this.#completions.count)]
  }
}

function pair(t: ExecutionContext): { near: End; far: End } {
  const [near, far] = [new End(t, 'near'), new End(t, 'far')]
  for (const [end, peer] of [
    [near, far],
    [far, near],
  ] as const) {
    now<true>((done) =>
      end.device.toReadyToReceive(end.queuePair, peer.device.addressOf(peer.queuePair), attributes, done),
    )
    now<true>((done) => end.device.toReadyToSend(end.queuePair, attributes, done))
    end.postReceives()
  }
  // The first message goes when the connection is there, and is answered before anybody looks for the next.
  near.post(sendOpcode.write, 8, far)
  turnUntil(t, near, far, () => near.turn().length > 0)
  return { near, far }
}

/** Turns the far end, and asks. */
function turnUntil(t: ExecutionContext, near: End, far: End, isSo: () => boolean): void {
  for (let turns = 0; !isSo(); turns++) {
    if (turns > 100_000) t.fail('it never came to that')
    far.turn()
    near.device.prepareSleep()
    far.device.prepareSleep()
  }
}

test('the answer to a write is told in the next turn, that to a send waits for a frame to ride on', (t) => {
  const { near, far } = pair(t)
  near.post(sendOpcode.write, 8, far)
  near.turn()
  for (let turn = 0; turn < 3; turn++) far.turn()
  t.deepEqual(near.turn(), [1])

  near.post(sendOpcode.send, 8, far)
  near.turn()
  t.deepEqual(far.turn(), [2], 'it has arrived')
  for (let turn = 0; turn < 3; turn++) far.turn()
  t.deepEqual(near.turn(), [], 'nobody was told')
  far.post(sendOpcode.send, 8, near, 0)
  far.turn()
  t.deepEqual(near.turn().sort(), [1, 2], 'the message from there brought the answer')
})

test('who goes to sleep tells all answers; who does not, after a while', (t) => {
  const { near, far } = pair(t)
  near.post(sendOpcode.send, 8, far)
  near.turn()
  far.turn()
  t.false(far.device.prepareSleep(), 'there was something to tell')
  t.deepEqual(near.turn(), [1])

  near.post(sendOpcode.send, 8, far)
  near.turn()
  for (let turn = 0; turn < 40; turn++) far.turn()
  t.deepEqual(near.turn(), [1])
})

test('many answers to sends do not wait', (t) => {
  const { near, far } = pair(t)
  for (let index = 0; index < 64; index++) near.post(sendOpcode.send, 8, far)
  near.turn()
  far.turn()
  t.true(near.turn().length >= 32)
})

test('bytes are owed at both ends while a long message is under way, and by nobody before and after', (t) => {
  const { near, far } = pair(t)
  t.deepEqual([near.device.owesBytes, far.device.owesBytes], [false, false])
  near.post(sendOpcode.write, MEMORY_BYTES, far)
  near.turn()
  t.true(near.device.owesBytes)
  turnUntil(t, near, far, () => far.device.owesBytes === true)
  t.true(near.device.owesBytes, 'the rest is still to come')
  turnUntil(t, near, far, () => near.turn().length > 0)
  far.turn()
  near.turn()
  t.deepEqual([near.device.owesBytes, far.device.owesBytes], [false, false])
})

test('a broken connection owes nothing', (t) => {
  const { near, far } = pair(t)
  near.post(sendOpcode.write, MEMORY_BYTES, far)
  near.turn()
  t.true(near.device.owesBytes)
  now<true>((done) => near.device.toError(near.queuePair, done))
  near.turn()
  t.false(near.device.owesBytes)
})

test('memory longer than the views of it can be is refused with its length', (t) => {
  const device = openSoftDevice({ name: 'long', host: '127.0.0.1', port: 0 })
  t.teardown(() => device.close())
  const domain = now<ProtectionDomain>((done) => device.allocateProtectionDomain(done))
  const rights = { localWrite: true, remoteRead: false, remoteWrite: false }
  device.registerMemory(domain, 4096, 2 ** 32 + 8, rights, (failure) => {
    t.is(failure?.code, 'limit')
    t.true(failure?.message.includes(String(2 ** 32 + 8)))
  })
  t.plan(2)
})
