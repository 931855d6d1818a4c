/** Two processes, as in real life: a real clock, a peer that may be killed. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { QueuePairAddress } from '../../../broker/provider/provider.js'
import { clock } from '../../../shm/libc.js'
import type { ProviderCase } from './cases.js'
import { type DeviceFactory, defaultAttributes, isSame, type Player, Rig } from './rig.js'

export interface Introduction {
  readonly address: QueuePairAddress
  readonly remoteKey: number
}

const attributes = { ...defaultAttributes, timeoutExponent: 16, retryCount: 1 }
const IN_FLIGHT = 16
const PLACE_BYTES = 64 * 1024

async function withPeerProcess(
  factory: DeviceFactory,
  run: (player: Player, remote: Introduction, peer: ChildProcess) => void | Promise<void>,
): Promise<void> {
  const rig = new Rig({ ...factory, clockMs: clock.nowMs })
  const peer = fork(fileURLToPath(new URL('./peer-process.ts', import.meta.url)))
  try {
    const player = rig.player(rig.open('own'))
    const [remote] = (await once(peer, 'message')) as [Introduction]
    peer.send({ address: player.address, remoteKey: player.memory.remoteKey } satisfies Introduction)
    player.connectTo(remote.address, attributes)
    await run(player, remote, peer)
  } finally {
    rig.close()
    if (peer.exitCode === null) peer.kill('SIGKILL')
  }
}

/** Sends messages of many lengths and compares what comes back. */
function exchange(player: Player, count: number): void {
  const { rig } = player
  const lengthOf = (id: number) => 2 + ((id * 7919) % (id % 5 === 0 ? PLACE_BYTES - 2 : 300))
  let posted = 0
  for (let back = 0; back < count; ) {
    for (; posted < count && posted - back < IN_FLIGHT; posted++) {
      const at = (posted % IN_FLIGHT) * PLACE_BYTES
      player.fill(at, lengthOf(posted), posted)
      player.receive(posted, { at: (4 << 20) + at, length: PLACE_BYTES })
      rig.until(
        () => player.send(posted, { at, length: lengthOf(posted), signaled: posted % 4 === 0 }) === 1,
        'a free slot',
      )
    }
    rig.until(() => player.completions.length > 0, `echo ${back}`)
    for (const { id, status, opcode, byteLength } of player.completions.splice(0)) {
      if (status !== 'success') throw new Error(`message ${id}: ${status}`)
      if (opcode !== 128) continue
      if (id !== back++ || byteLength !== lengthOf(id)) throw new Error(`echo ${back} is ${id} of ${byteLength} bytes`)
      const at = (id % IN_FLIGHT) * PLACE_BYTES
      if (!isSame(player.slice((4 << 20) + at, byteLength), player.slice(at, byteLength)))
        throw new Error(`echo ${id} differs`)
    }
  }
}

export const processCases: ProviderCase[] = [
  {
    number: 160,
    name: 'two processes exchange messages, writes and reads, and part in order',
    run: (t, factory) =>
      withPeerProcess(factory, async (player, remote, peer) => {
        const { rig } = player
        exchange(player, 2000)
        player.fill(0, 3 << 20, 42)
        player.write(1, { length: 3 << 20, to: 3 << 20, remoteKey: remote.remoteKey, signaled: false })
        player.read(2, { at: 4 << 20, length: 3 << 20, to: 3 << 20, remoteKey: remote.remoteKey })
        rig.until(() => player.ids.includes(2), 'the read')
        t.true(isSame(player.slice(4 << 20, 3 << 20), player.slice(0, 3 << 20)))
        const over = once(peer, 'exit')
        player.receive(3, { length: 8 })
        player.send(4, { length: 1 })
        rig.until(() => player.ids.includes(3) && player.ids.includes(4), 'the last echo')
        rig.settle()
        t.is((await over)[0], 0)
      }),
  },
  {
    number: 164,
    name: 'a peer process that is killed is given up after the timeout, not before',
    run: (t, factory) =>
      withPeerProcess(factory, async (player, remote, peer) => {
        const { rig } = player
        exchange(player, 50)
        peer.kill('SIGKILL')
        await once(peer, 'exit')
        rig.settle()
        const startMs = clock.nowMs()
        player.write(7, { length: 3 << 20, remoteKey: remote.remoteKey })
        player.send(8, { length: 8 })
        rig.until(() => player.ids.includes(8), 'the timeout')
        const waitedMs = clock.nowMs() - startMs
        const statuses = player.completions.filter(({ id }) => id === 7 || id === 8).map(({ status }) => status)
        t.deepEqual(statuses, ['retry-exceeded', 'flushed'])
        // 4.096 µs × 2^16 × 2 = 537 ms
        t.true(waitedMs > 500, `${waitedMs} ms`)
      }),
  },
]
