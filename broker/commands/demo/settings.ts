/** What a run of the demo is told, and what it found. */
export interface DemoSettings {
  /** On each of the two nodes. */
  readonly processes: number
  readonly lanes: number
  readonly provider: 'soft' | 'verbs' | 'auto'
  readonly file: string
  readonly keep: boolean
}

export interface DemoResult {
  /** Both nodes together. */
  readonly processes: number
  readonly processesPerNode: number
  /** Pairs of processes of different nodes, each with a queue pair on both sides. */
  readonly remotePairs: number
  /** Both nodes together, datagram ones included. */
  readonly queuePairs: number
  readonly sharedQueuePairsPerNode: number
  readonly unsharedQueuePairsPerNode: number
  readonly messages: number
  readonly bytes: number
  readonly file: string
  readonly fileByteLength: number
  readonly fileSha256: string
  readonly counter: number
  readonly verified: boolean
  /** How what was posted to the killed process ended. */
  readonly verdictsOfKilled: Readonly<Record<string, number>>
  /** What did not verify. */
  readonly failures: readonly string[]
  readonly killed: number
  readonly survivorsFinished: number
  readonly seconds: number
  /** Where everything was kept, with --keep. */
  readonly directory: string | null
}

export interface DemoProgress {
  step(name: string, done: number, total: number): void
  end(): void
}

export type NodeName = 'alpha' | 'beta'
