/** What does the responder do with more reads at once than it was told to accept? */
import { RawEnd } from './raw-end.js'

export function probeReads(): Record<string, unknown> {
  const [a, b] = [new RawEnd(), new RawEnd()]
  a.connect(b.address, { readsInitiated: 16 })
  b.connect(a.address, { readsAccepted: 1 })
  const accepted = a.post('read', 1, b.remoteKey, 16, 20_000)
  const seen = [...a.watch(5000, 16)]
  a.close()
  b.close()
  return { accepted, successes: seen.filter((text) => text.endsWith('success')).length, last: seen.at(-1) ?? null }
}
