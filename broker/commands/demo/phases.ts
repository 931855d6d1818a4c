/** What the job does, phase by phase. Each says in words what did not hold; a process that fails itself ends the demo. */
import { createHash } from 'node:crypto'
import { createReadStream, truncateSync, writeFileSync } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { type Crew, phaseTimeoutMs, type Seat } from './crew.js'

const COUNTS = 8
const STREAM_MESSAGES = 200

export async function connectAll(crew: Crew): Promise<void> {
  await crew.phase('connect', crew.all, (seat) => {
    const others = seat.node === 'alpha' ? crew.beta : crew.alpha
    const offers = others.map((other) => other.prepared.offers[seat.rank]!)
    return seat.job.order('connect', { offers }, phaseTimeoutMs)
  })
}

export async function exchangeAll(
  crew: Crew,
  seats: readonly Seat[],
  round: number,
  victim: Seat | null,
): Promise<void> {
  await crew.traffic(round === 0 ? 'exchange' : 'exchange, one killed', seats, (seat) => {
    const without = victim !== null && victim.node !== seat.node ? victim.rank : null
    return seat.job.order('exchange', { round, without }, phaseTimeoutMs)
  })
}

export interface MovedFile {
  readonly sha256: string
  readonly equal: boolean
}

/** Scattered over the memories of beta by RDMA write, read back by other processes of alpha than had written it. */
export async function moveFile(crew: Crew, file: string, fileByteLength: number, into: string): Promise<MovedFile> {
  await crew.traffic('write file', crew.alpha, ({ job }) => job.order('scatter', null, phaseTimeoutMs))
  writeFileSync(into, '', { mode: 0o600 })
  truncateSync(into, fileByteLength)
  await crew.traffic('read file back', crew.alpha, ({ job, rank }) => {
    const share = (rank + 1) % crew.alpha.length
    return job.order('gather', { share, into }, phaseTimeoutMs)
  })
  const [sha256, back] = await Promise.all([hashOf(file, fileByteLength), hashOf(into, fileByteLength)])
  return { sha256, equal: sha256 === back }
}

/** Of the length seen at the start: a file that grows meanwhile is no failure of ours. */
async function hashOf(path: string, byteLength: number): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path, { start: 0, end: byteLength - 1 }), hash)
  return hash.digest('hex')
}

export interface Counted {
  readonly value: number
  readonly expected: number
  /** Every value from 0 on was found by exactly one of them. */
  readonly exact: boolean
}

/** All processes of both nodes add to one word in the memory of beta-0. */
export async function countTogether(crew: Crew): Promise<Counted> {
  const owner = crew.beta[0]!
  const at = owner.prepared.datagram
  const { windowKey } = owner.prepared.offers[0]!
  const counts = await crew.traffic('fetch and add', crew.all, ({ job }) =>
    job.order('count', { at, windowKey, times: COUNTS }, phaseTimeoutMs),
  )
  const found = counts.flatMap((one) => one.found).sort((a, b) => a - b)
  const { value } = await owner.job.order('read-counter', null, phaseTimeoutMs)
  const expected = crew.all.length * COUNTS
  return { value, expected, exact: value === expected && found.every((each, index) => each === index) }
}

/** alpha-0 and alpha-1 post to one queue pair at the same time; beta-0 receives both streams. True if each was whole and in order. */
export async function shareQueuePair(crew: Crew): Promise<boolean> {
  const [owner, guest] = crew.alpha
  const receiver = crew.beta[0]!
  const { handle } = await owner!.job.order('share', null, phaseTimeoutMs)
  const messages = STREAM_MESSAGES
  const received = receiver.job.order('receive-streams', { streams: 2, messages }, phaseTimeoutMs)
  await crew.traffic('two post to one queue pair', [owner!, guest!], ({ job, rank }) =>
    job.order('post-stream', { handle: rank === 0 ? null : handle, stream: rank, messages }, phaseTimeoutMs),
  )
  return (await received).inOrder
}

export interface Killed {
  readonly seat: Seat
  /** Verdicts of what its peers had posted to it, all of them. */
  readonly verdicts: readonly string[]
}

/** The last process of beta is killed while everybody works. */
export async function killOne(crew: Crew): Promise<Killed> {
  const seat = crew.beta.at(-1)!
  const survivors = crew.all.filter((one) => one !== seat)
  await crew.phase('prepare the kill', crew.alpha, ({ job }) => job.order('arm', { victim: seat.rank }, phaseTimeoutMs))
  const exchanged = exchangeAll(crew, survivors, 1, seat)
  seat.job.kill()
  await Promise.all([exchanged, seat.job.ended])
  const verdicts = await crew.phase('verdicts of the killed', crew.alpha, async ({ job }) => {
    const answer = await job.order('mourn', { victim: seat.rank }, phaseTimeoutMs)
    return answer.verdicts
  })
  return { seat, verdicts: verdicts.flat() }
}

/** How many ended in order. */
export async function finishAll(crew: Crew, seats: readonly Seat[]): Promise<number> {
  const ends = await crew.phase('finish', seats, async ({ job }) => {
    await job.order('finish', null, phaseTimeoutMs)
    return job.ended
  })
  return ends.filter((how) => how === 'exit status 0').length
}
