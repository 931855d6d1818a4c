/** How long does each control call keep its thread, the engine's? On an idle device, and while another queue pair is kept busy. */

import { setImmediate as yieldTurn } from 'node:timers/promises'
import type {
  Device,
  ProtectionDomain,
  ProviderCompletionQueue,
  ProviderFailure,
  ProviderQueuePair,
  RegisteredMemory,
} from '../../../broker/provider/provider.js'
import { clock, mapAnonymous, munmap } from '../../../shm/libc.js'
import { allRights, defaultAttributes, defaultLimits, type Player, Rig } from '../../conformance/provider/rig.js'
import { verbsFactory } from '../guest/conformance.js'

const ROUNDS = 5
const MEBIBYTE = 1 << 20
const SIZES = [1, 16, 128]

class Stopwatch {
  readonly #spans = new Map<string, number[]>()

  time<Result>(name: string, work: () => Result): Result {
    const startMs = clock.nowMs()
    const result = work()
    this.add(name, clock.nowMs() - startMs)
    return result
  }

  add(name: string, spanMs: number): void {
    this.#spans.set(name, [...(this.#spans.get(name) ?? []), spanMs])
  }

  /** The longest of each, milliseconds. */
  get longest(): Record<string, number> {
    return Object.fromEntries(
      [...this.#spans].map(([name, spans]) => [name, Math.round(Math.max(...spans) * 100) / 100]),
    )
  }
}

function timeQueuePairs(rig: Rig, device: Device, watch: Stopwatch, busy: () => void): void {
  const domain = watch.time('allocate domain', () =>
    rig.control<ProtectionDomain>((done) => device.allocateProtectionDomain(done)),
  )
  for (let round = 0; round < ROUNDS; round++) {
    busy()
    const queue = watch.time('create completion queue of 32767', () =>
      rig.control<ProviderCompletionQueue>((done) => device.createCompletionQueue(32_767, done)),
    )
    const create = (): ProviderQueuePair =>
      rig.control<ProviderQueuePair>((done) =>
        device.createQueuePair(domain, queue, queue, { ...defaultLimits, sendDepth: 1024 }, done),
      )
    const [one, other] = [watch.time('create queue pair', create), create()]
    busy()
    watch.time('ready to receive', () =>
      rig.control<true>((done) => device.toReadyToReceive(one, device.addressOf(other), defaultAttributes, done)),
    )
    watch.time('ready to send', () => rig.control<true>((done) => device.toReadyToSend(one, defaultAttributes, done)))
    watch.time('to error', () => rig.control<true>((done) => device.toError(one, done)))
    busy()
    watch.time('destroy queue pair', () => rig.control<true>((done) => device.destroyQueuePair(one, done)))
    rig.control<true>((done) => device.destroyQueuePair(other, done))
    watch.time('destroy completion queue', () =>
      rig.control<true>((done) => device.destroyCompletionQueue(queue, done)),
    )
  }
}

/** Long memory is registered on another thread: how long the call itself took, and how long until it was done. */
async function timeMemory(rig: Rig, player: Player, watch: Stopwatch, busy: () => void): Promise<void> {
  for (const mebibytes of SIZES) {
    const byteLength = mebibytes * MEBIBYTE
    const address = mapAnonymous(byteLength)
    const registration: { memory: RegisteredMemory | null; failure: ProviderFailure | null } = {
      memory: null,
      failure: null,
    }
    busy()
    const startMs = clock.nowMs()
    watch.time(`register ${mebibytes} MiB`, () =>
      player.device.registerMemory(player.domain, address, byteLength, allRights, (failure, memory) => {
        Object.assign(registration, { failure, memory })
      }),
    )
    while (registration.memory === null && registration.failure === null) {
      rig.turn()
      await yieldTurn()
    }
    if (registration.memory === null) throw new Error(registration.failure?.message)
    watch.add(`register ${mebibytes} MiB, until done`, clock.nowMs() - startMs)
    busy()
    watch.time(`deregister ${mebibytes} MiB`, () =>
      rig.control<true>((done) => player.device.deregisterMemory(registration.memory!, done)),
    )
    munmap(address, byteLength)
  }
}

async function measure(isBusy: boolean): Promise<Record<string, number>> {
  const rig = new Rig(verbsFactory)
  try {
    const [a, b] = rig.pair()
    let id = 0
    const busy = (): void => {
      for (let count = 0; isBusy && count < 4; count++) a.write(id++, { length: MEBIBYTE })
    }
    const watch = new Stopwatch()
    timeQueuePairs(rig, b.device, watch, busy)
    rig.settle()
    await timeMemory(rig, b, watch, busy)
    return watch.longest
  } finally {
    rig.close()
  }
}

export async function probeControlCalls(): Promise<Record<string, unknown>> {
  return { longestMsIdle: await measure(false), longestMsBusy: await measure(true) }
}
