/** `rdma link del` while the provider has the device open: does it wait, does the provider notice, does closing end it? */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { clock } from '../../../shm/libc.js'
import { verbsFactory } from '../guest/conformance.js'

const sleep = (forMs: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, forMs))

export async function probeRemoval(): Promise<Record<string, unknown>> {
  const device = verbsFactory.open('removal')
  const startMs = clock.nowMs()
  const sinceMs = (): number => Math.round(clock.nowMs() - startMs)
  const remover = spawn('rdma', ['link', 'del', 'rxe0'], { stdio: 'ignore' })
  const over = once(remover, 'exit')
  let noticedMs: number | null = null
  for (let turn = 0; turn < 60 && noticedMs === null; turn++) {
    device.progress(clock.nowMs())
    if (device.takeEvents().some(({ kind }) => kind === 'device-fatal')) noticedMs = sinceMs()
    await sleep(50)
  }
  const waitedForClose = remover.exitCode === null
  const closeStartMs = clock.nowMs()
  device.close()
  const closeTookMs = Math.round(clock.nowMs() - closeStartMs)
  const [status] = (await Promise.race([over, sleep(10_000).then(() => [null])])) as [number | null]
  const removedMs = sinceMs()
  const adder = spawn('rdma', ['link', 'add', 'rxe0', 'type', 'rxe', 'netdev', 'veth0'], { stdio: 'ignore' })
  const [added] = (await once(adder, 'exit')) as [number | null]
  return { noticedMs, waitedForClose, closeTookMs, removalStatus: status, removedMs, addedAgain: added === 0 }
}
