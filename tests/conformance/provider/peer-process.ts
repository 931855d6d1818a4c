/** The other process of the case with two processes: echoes what it receives, until it is killed or told to end. */
import { once } from 'node:events'
import { openSoftDevice } from '../../../broker/provider/soft-device.js'
import { clock } from '../../../shm/libc.js'
import type { Introduction } from './cases-processes.js'
import { defaultAttributes, Rig } from './rig.js'

const DEPTH = 32
const PLACE_BYTES = 64 * 1024

const rig = new Rig({
  provider: 'soft',
  clockMs: clock.nowMs,
  open: (name) => openSoftDevice({ name, host: '127.0.0.1', port: 0 }),
})
const player = rig.player(rig.open('peer'), { limits: { sendDepth: DEPTH, receiveDepth: DEPTH } })
const introduced = once(process, 'message')
process.send!({ address: player.address, remoteKey: player.memory.remoteKey } satisfies Introduction)
const [remote] = (await introduced) as [Introduction]
player.connectTo(remote.address, { ...defaultAttributes, timeoutExponent: 18 })
for (let id = 0; id < DEPTH; id++) player.receive(id, { at: id * PLACE_BYTES, length: PLACE_BYTES })

/** A message of one byte asks for the end. */
for (let isOver = false; !isOver; ) {
  rig.until(() => player.completions.length > 0, 'a message')
  for (const { id, byteLength, opcode } of player.completions.splice(0)) {
    if (opcode !== 128) player.receive(id, { at: id * PLACE_BYTES, length: PLACE_BYTES })
    else rig.until(() => player.send(id, { at: id * PLACE_BYTES, length: byteLength }) === 1, 'a free slot')
    if (byteLength === 1) isOver = true
  }
}
rig.until(() => player.completions.some(({ byteLength }) => byteLength === 1), 'the last echo')
rig.close()
process.exit(0)
