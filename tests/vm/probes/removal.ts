/**
 * `rdma link del` while the provider has the device open: does it notice and let the command end? And `rdma link add`: does the device that
 * comes back work, with the memory that was registered in the one that went?
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { clock } from '../../../shm/libc.js'
import { Rig } from '../../conformance/provider/rig.js'
import { verbsFactory } from '../guest/conformance.js'

const PATIENCE_MS = 20_000

/** Turns the devices until it holds; milliseconds it took, or null. */
async function turnUntil(rig: Rig, condition: () => boolean): Promise<number | null> {
  const startMs = clock.nowMs()
  while (!condition()) {
    if (clock.nowMs() - startMs > PATIENCE_MS) return null
    rig.turn()
    await sleep(20)
  }
  return Math.round(clock.nowMs() - startMs)
}

export async function probeRemoval(): Promise<Record<string, unknown>> {
  const rig = new Rig(verbsFactory)
  try {
    const pair = rig.pair()
    const seen = new Set<string>()
    const look = (kind: string) => (): boolean => {
      for (const [index, player] of pair.entries()) for (const event of player.events()) seen.add(`${index} ${event}`)
      return seen.has(`0 ${kind}`) && seen.has(`1 ${kind}`)
    }
    const keyBefore = pair[0].memory.localKey
    const remover = spawn('rdma', ['link', 'del', 'rxe0'], { stdio: 'ignore' })
    const removed = once(remover, 'exit')
    const noticedMs = await turnUntil(rig, look('device-fatal'))
    const [status] = (await Promise.race([removed, sleep(PATIENCE_MS, [null])])) as [number | null]
    const refusal = rig.attempt((done) => pair[0].device.allocateProtectionDomain(done)).failure?.code
    const adder = spawn('rdma', ['link', 'add', 'rxe0', 'type', 'rxe', 'netdev', 'veth0'], { stdio: 'ignore' })
    const [added] = (await once(adder, 'exit')) as [number | null]
    const returnedMs = await turnUntil(rig, look('port-active'))
    const [a, b] = rig.anotherPair(pair)
    a.fill(0, 1 << 20, 5)
    a.write(1, { length: 1 << 20, to: 1 << 20 })
    rig.until(() => a.done(1), 'a write in the device that came back')
    const isSame = Buffer.compare(b.slice(1 << 20, 1 << 20), a.slice(0, 1 << 20)) === 0
    return {
      ...{ noticedMs, removalStatus: status, refusalMeanwhile: refusal, addedAgain: added === 0, returnedMs },
      ...{ memoryHasOtherKeys: pair[0].memory.localKey !== keyBefore, writeAfterwards: a.statuses[0], isSame },
    }
  } finally {
    rig.close()
  }
}
