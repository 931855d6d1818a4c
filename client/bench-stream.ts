/** Rate and bandwidth: as many messages as the queues take, one way. */
import { type BenchFlow, type BenchWindow, benchEnd } from '../protocol/bench.js'
import { opcode } from '../protocol/opcodes.js'
import { clock } from '../shm/libc.js'
import { type BenchLink, receivesFor, tailsOf } from './bench-link.js'
import type { SendWorkRequest } from './work-request.js'

/** Posts lists of which only the last request makes a completion; waits only when the queue is full. */
export function stream(link: BenchLink, { untilMs }: BenchWindow): void {
  const { queuePair, waiter, listLength } = link
  const list = Array.from({ length: listLength }, (_, index): SendWorkRequest => {
    return { id: index, opcode: 'send', signaled: index === listLength - 1, ...link.payload(index) }
  })
  const tails = tailsOf(list)
  while (clock.nowMs() < untilMs) {
    for (let left = listLength; left > 0; ) {
      left -= queuePair.postSend(tails[left]!)
      if (left > 0) waiter.take()
    }
    waiter.poll()
  }
  const last: SendWorkRequest = {
    id: listLength,
    opcode: 'send-with-immediate',
    immediate: benchEnd,
    ...link.payload(0),
  }
  while (queuePair.postSend(last) === 0) waiter.take()
  for (let isOver = false; !isOver; ) {
    const count = waiter.take()
    for (let row = 0; row < count; row++) isOver ||= waiter.batch.id[row] === listLength
  }
}

/** Takes what `stream` sends, keeps receives posted, and counts what came inside the window. */
export function drain(link: BenchLink, { fromMs, untilMs }: BenchWindow): BenchFlow {
  const { waiter, listLength, plan } = link
  const receives = link.receives(receivesFor(Math.min(plan.slots, plan.depth)))
  link.postReceives(receives)
  const list = receives.slice(0, listLength)
  const { batch } = waiter
  let messages = 0
  let used = 0
  for (let isOver = false; !isOver; ) {
    const count = waiter.take()
    const nowMs = clock.nowMs()
    if (nowMs >= fromMs && nowMs < untilMs) messages += count
    for (let row = 0; row < count; row++) {
      if (batch.byteLength[row] !== plan.byteLength) throw new Error(`a message had ${batch.byteLength[row]} bytes`)
      isOver ||= batch.opcode[row] === opcode.receiveWithImmediate && batch.immediate[row] === benchEnd
    }
    for (used += count; used >= listLength && !isOver; used -= listLength) link.postReceives(list)
  }
  return { messages, bytes: messages * plan.byteLength }
}
