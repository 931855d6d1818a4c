/** What is compared, and what a peer has to be able to do for it. */
export interface Work {
  readonly name: string
  readonly kind: 'latency' | 'rate' | 'bandwidth'
  readonly bytes: number
  readonly pairs: number
  readonly place: 'remote' | 'local'
  readonly unit: 'us' | 'M/s' | 'MB/s'
}

export const works: readonly Work[] = [
  { name: 'latency', kind: 'latency', bytes: 64, pairs: 1, place: 'remote', unit: 'us' },
  { name: 'latency-pairs', kind: 'latency', bytes: 64, pairs: 8, place: 'remote', unit: 'us' },
  { name: 'rate', kind: 'rate', bytes: 64, pairs: 1, place: 'remote', unit: 'M/s' },
  { name: 'rate-pairs', kind: 'rate', bytes: 64, pairs: 8, place: 'remote', unit: 'M/s' },
  { name: 'bandwidth', kind: 'bandwidth', bytes: 2 ** 20, pairs: 1, place: 'remote', unit: 'MB/s' },
  { name: 'local-latency', kind: 'latency', bytes: 64, pairs: 1, place: 'local', unit: 'us' },
  { name: 'local-rate', kind: 'rate', bytes: 64, pairs: 1, place: 'local', unit: 'M/s' },
]

export const peerNames = ['ucx', 'libfabric', 'zeromq', 'net', 'tcp'] as const
export type PeerName = (typeof peerNames)[number]

export interface Peer {
  readonly name: PeerName
  /** How it does the work, for a reader of the table. */
  readonly how: string
  /** Why it cannot be measured here; undefined: it can. */
  missing(): string | undefined
  /** In the unit of the work; undefined: it has no such test. */
  measure(work: Work, durationMs: number): Promise<number | undefined>
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

export const isSmallerBetter = ({ kind }: Work): boolean => kind === 'latency'
