/** Memory is deregistered while 8 MiB are being written into it: what do both ends see, and is it touched afterwards? */
import { clock } from '../../../shm/libc.js'
import { withRig } from '../../conformance/provider/rig.js'
import { verbsFactory } from '../guest/conformance.js'

const BYTES = 8 << 20

export function probeDeregistration(): Record<string, unknown> {
  let found: Record<string, unknown> = {}
  withRig(verbsFactory, (rig) => {
    const [a, b] = rig.pair()
    b.receive(7, { length: 8 })
    a.fill(0, BYTES, 1)
    a.write(1, { length: BYTES })
    a.write(2, { length: 8 })
    const startMs = clock.nowMs()
    rig.control<true>((done) => b.device.deregisterMemory(b.memory, done))
    const deregisteringMs = Math.round(clock.nowMs() - startMs)
    const arrived = writtenBytes(b.bytes)
    rig.until(() => a.done(2), 'completions of the writer')
    rig.settle()
    found = {
      deregisteringMs,
      arrivedBefore: arrived,
      arrivedAfter: writtenBytes(b.bytes) - arrived,
      writer: a.completions.map(({ id, status }) => `${id} ${status}`),
      writerState: a.state,
      owner: b.completions.map(({ id, status }) => `${id} ${status}`),
      ownerState: b.state,
      ownerEvents: b.events(),
    }
  })
  return found
}

/** The pattern has a zero now and then, so the last byte that is none tells. */
function writtenBytes(bytes: Uint8Array): number {
  let last = BYTES
  while (last > 0 && bytes[last - 1] === 0) last--
  return last
}
