/**
 * Each broker tells its peers every second how far its engine has turned; a peer whose engine does not move is suspected after three
 * seconds and dead after ten, whatever its socket says. A sleeping engine is woken for each beat, so that silence means trouble.
 */
export const heartbeatTimes = { periodMs: 1000, suspectMs: 3000, deadMs: 10_000 } as const

export type Verdict = 'alive' | 'suspect' | 'dead'

/** `heardMs`: when the peer's engine was last seen to move. */
export function judge(heardMs: number, nowMs: number): Verdict {
  const silentMs = nowMs - heardMs
  if (silentMs >= heartbeatTimes.deadMs) return 'dead'
  return silentMs >= heartbeatTimes.suspectMs ? 'suspect' : 'alive'
}
