/** Writes, reads and atomics: the peer's process has no part in them. */
import type { BenchAnswer, BenchTimes, BenchWindow, OneSidedOpcode } from '../protocol/bench.js'
import { clock, schedulerYield } from '../shm/libc.js'
import { type BenchLink, tailsOf } from './bench-link.js'
import { Times } from './bench-times.js'
import type { SendWorkRequest } from './work-request.js'

function requestOf(link: BenchLink, kind: OneSidedOpcode, slot: number): SendWorkRequest {
  const { slots, byteLength } = link.plan
  const remote = { key: link.remoteKey, offset: (slot % slots) * byteLength }
  const { local, ...inline } = link.payload(slot)
  if (kind === 'write') return { id: slot, opcode: kind, remote, local, ...inline }
  if (kind === 'read') return { id: slot, opcode: kind, remote, local }
  const word = [{ region: link.memory, offset: remote.offset, length: 8 }]
  if (kind === 'fetch-and-add') return { id: slot, opcode: kind, remote, local: word, add: 1n }
  return { id: slot, opcode: kind, remote, local: word, compare: 0n, swap: 0n }
}

/** Posts as many again as have completed. Times are those of requests that were alone. */
export function oneSided(
  link: BenchLink,
  kind: OneSidedOpcode,
  outstanding: number,
  { fromMs, untilMs }: BenchWindow,
): BenchAnswer<'one-sided'> {
  const { queuePair, waiter, plan } = link
  const tails = tailsOf(Array.from({ length: outstanding }, (_, slot) => requestOf(link, kind, slot)))
  const times = new Times()
  const isAlone = outstanding === 1
  const startMs = clock.nowMs()
  let messages = 0
  let completed = 0
  let free = outstanding
  let postedMs = 0
  for (let nowMs = clock.nowMs(); nowMs < untilMs || free < outstanding; ) {
    if (free > 0 && nowMs < untilMs) {
      if (isAlone) postedMs = clock.nowMs()
      free -= queuePair.postSend(tails[free]!)
    }
    const count = waiter.take()
    nowMs = clock.nowMs()
    if (nowMs >= fromMs && nowMs < untilMs) messages += count
    if (isAlone && nowMs >= fromMs) times.recordMs(nowMs - postedMs)
    free += count
    completed += count
  }
  const all = { messages: completed, durationMs: clock.nowMs() - startMs }
  return { messages, bytes: messages * plan.byteLength, times: times.result('us'), all }
}

/** Lists that are posted before the first of them is polled. */
const LISTS = 8

/**
 * What posting and polling cost the process itself. Lists of writes are posted and their completions taken; a poll is counted when it
 * brought a whole list, so that none is counted that came too early.
 */
export function postAndPoll(
  link: BenchLink,
  listLength: number,
  { fromMs, untilMs }: BenchWindow,
): { post: BenchTimes; poll: BenchTimes; both: BenchTimes } {
  const { queuePair, waiter } = link
  const list = Array.from({ length: listLength }, (_, slot) => requestOf(link, 'write', slot))
  const tails = tailsOf(list)
  const [post, poll, both] = [new Times(), new Times(), new Times()]
  const { batch } = waiter
  let lastPostMs = 0
  for (let nowMs = clock.nowMs(); nowMs < untilMs; ) {
    const isCounted = nowMs >= fromMs
    let posted = 0
    for (let index = 0; index < LISTS; index++) {
      const startMs = clock.nowMs()
      posted += queuePair.postSend(tails[listLength]!)
      lastPostMs = (clock.nowMs() - startMs) / listLength
      if (isCounted) post.recordMs(lastPostMs)
    }
    while (posted > 0) {
      const startMs = clock.nowMs()
      const count = queuePair.sendCq.pollInto(batch, listLength)
      nowMs = clock.nowMs()
      posted -= count
      if (count === listLength && isCounted) {
        poll.recordMs((nowMs - startMs) / listLength)
        both.recordMs(lastPostMs + (nowMs - startMs) / listLength)
      } else if (count === 0) schedulerYield()
    }
  }
  return { post: post.result('ns'), poll: poll.result('ns'), both: both.result('ns') }
}
