/** The requester without sockets: what answers it believes, and how it starts again. */
import test, { type ExecutionContext } from 'ava'
import { CompletionBatch, sendFlag, sendOpcode, WorkRequestBatch } from '../../../broker/provider/provider.js'
import { Arena } from '../../../broker/provider/soft-arena.js'
import { SoftCompletionQueue } from '../../../broker/provider/soft-completion-queue.js'
import { MemoryTable, type SoftRegion } from '../../../broker/provider/soft-memory.js'
import { OUTPUT_PLAN_BYTES, Output } from '../../../broker/provider/soft-output.js'
import { Placement } from '../../../broker/provider/soft-placement.js'
import { firstSequence, Requester } from '../../../broker/provider/soft-requester.js'
import { SendQueue } from '../../../broker/provider/soft-send-queue.js'
import { Trouble } from '../../../broker/provider/soft-trouble.js'
import { CODE_RECEIVER_NOT_READY, Frame, frameFlag, frameType } from '../../../broker/provider/soft-wire.js'
import { status } from '../../../protocol/statuses.js'

const DOMAIN = 1
const PACKET_SEQUENCE = 0xffffff
const BOTH = frameFlag.first | frameFlag.last

class Bench {
  readonly arena = new Arena(OUTPUT_PLAN_BYTES)
  readonly pages = new Arena(1 << 22)
  readonly table = new MemoryTable((byteLength) => new Uint8Array(byteLength))
  readonly region: SoftRegion
  readonly queue = new SendQueue(16, 2, this.arena.memory, 0, 0)
  readonly completions = new SoftCompletionQueue(1, 64, false, () => {})
  readonly output = new Output(this.arena.memory)
  readonly trouble = new Trouble()
  readonly placement = new Placement(this.table, DOMAIN)
  readonly requester: Requester

  constructor() {
    const rights = { localWrite: true, remoteRead: true, remoteWrite: true }
    this.region = this.table.register(this.pages.memory.address, 1 << 22, DOMAIN, rights)!
    this.requester = new Requester(
      this.queue,
      this.table,
      DOMAIN,
      9,
      this.output,
      this.completions,
      this.trouble,
      PACKET_SEQUENCE,
    )
    this.requester.start({ readsInitiated: 2, timeoutExponent: 14, retryCount: 1, rnrRetryCount: 1 })
  }

  post(id: number, opcode: number, byteLength = 8): void {
    const batch = new WorkRequestBatch(1)
    batch.begin(id, 0, opcode, sendFlag.signaled, 0, 0)
    batch.addSge(this.region.address, byteLength, this.region.localKey)
    this.queue.writeSend(this.queue.posted & this.queue.mask, batch, 0, byteLength)
    this.queue.posted++
  }

  /** Sequence of the request at a position. */
  sequence(position: number): number {
    return (firstSequence(PACKET_SEQUENCE) + position) | 0
  }

  refusal(position: number, code: number): Frame {
    return Object.assign(new Frame(), {
      type: frameType.refuse,
      sequence: this.sequence(position),
      code,
      messageByteLength: 5000,
    })
  }

  response(position: number, byteLength: number, flags: number = BOTH): Frame {
    return Object.assign(new Frame(), {
      type: frameType.readResponse,
      sequence: this.sequence(position),
      byteLength,
      flags,
    })
  }

  completed(): [number, number][] {
    const batch = new CompletionBatch(64)
    this.completions.poll(batch)
    return Array.from({ length: batch.count }, (_, index) => [batch.idLow[index]!, batch.status[index]!])
  }
}

function withBench(run: (t: ExecutionContext, bench: Bench) => void): (t: ExecutionContext) => void {
  return (t) => {
    const bench = new Bench()
    try {
      run(t, bench)
    } finally {
      bench.arena.close()
      bench.pages.close()
    }
  }
}

test(
  'only what was sent can be answered, and nothing twice',
  withBench((t, bench) => {
    bench.post(1, sendOpcode.write)
    t.false(bench.requester.acknowledge(bench.sequence(1)), 'not sent yet')
    t.is(bench.requester.encode(0), 1)
    bench.post(2, sendOpcode.write)
    t.false(bench.requester.acknowledge(bench.sequence(2)))
    t.false(bench.requester.acknowledge(bench.sequence(-1)))
    t.true(bench.requester.acknowledge(bench.sequence(1)))
    t.true(bench.requester.acknowledge(bench.sequence(1)))
    t.false(bench.requester.acknowledge(bench.sequence(0)))
    t.deepEqual(bench.completed(), [[1, status.success]])
  }),
)

test(
  'a read is answered by its data alone, in turn and in full',
  withBench((t, bench) => {
    bench.post(1, sendOpcode.write)
    bench.post(2, sendOpcode.read, 16)
    bench.requester.encode(0)
    t.false(bench.requester.acknowledge(bench.sequence(2)))
    t.false(bench.requester.beginReadResponse(bench.response(0, 16), bench.placement), 'that one is a write')
    t.false(bench.requester.beginReadResponse(bench.response(1, 8), bench.placement), 'too short for the last')
  }),
)

test(
  'data of a read acknowledges what is before it, and may come in segments',
  withBench((t, bench) => {
    bench.post(1, sendOpcode.write)
    bench.post(2, sendOpcode.read, 16)
    bench.requester.encode(0)
    t.true(bench.requester.beginReadResponse(bench.response(1, 8, frameFlag.first), bench.placement))
    t.deepEqual(bench.completed(), [[1, status.success]])
    t.false(bench.requester.beginReadResponse(bench.response(1, 8, BOTH), bench.placement), 'a second beginning')
    t.true(bench.requester.beginReadResponse(bench.response(1, 8, frameFlag.last), bench.placement))
  }),
)

test(
  'reads beyond the negotiated number are not sent, nor what is behind them',
  withBench((t, bench) => {
    for (let id = 0; id < 4; id++) bench.post(id, id === 3 ? sendOpcode.write : sendOpcode.read)
    t.is(bench.requester.encode(0), 2)
    t.false(bench.requester.canEncode)
    bench.requester.beginReadResponse(bench.response(0, 8), bench.placement)
    bench.requester.finishRead()
    t.is(bench.requester.encode(0), 2)
    t.deepEqual(bench.completed(), [[0, status.success]])
  }),
)

test(
  'a receiver that is not ready gets everything from there on again, after a pause, so many times',
  withBench((t, bench) => {
    for (let id = 0; id < 3; id++) bench.post(id, sendOpcode.send)
    t.is(bench.requester.encode(0), 3)
    t.true(bench.requester.refused(bench.refusal(1, CODE_RECEIVER_NOT_READY), 100))
    t.deepEqual(bench.completed(), [[0, status.success]])
    t.is(bench.requester.encode(0), 0)
    t.is(bench.requester.nextTimerMs(101), 4)
    bench.requester.lookAtClock(104)
    t.is(bench.requester.encode(0), 0)
    bench.requester.lookAtClock(105)
    t.is(bench.requester.encode(0), 2)
    t.true(bench.requester.refused(bench.refusal(1, CODE_RECEIVER_NOT_READY), 110))
    t.is(bench.trouble.status, status.rnrRetryExceeded)
    bench.requester.flush(bench.trouble.status)
    t.deepEqual(bench.completed(), [
      [1, status.rnrRetryExceeded],
      [2, status.flushed],
    ])
  }),
)

test(
  'a refusal must name a request that was sent and give a reason that responders give',
  withBench((t, bench) => {
    bench.post(1, sendOpcode.write)
    bench.post(2, sendOpcode.write)
    t.false(bench.requester.refused(bench.refusal(0, status.remoteAccessError), 0), 'not sent')
    bench.requester.encode(0)
    for (const code of [0, status.flushed, status.unknown, 999])
      t.false(bench.requester.refused(bench.refusal(1, code), 0))
    t.true(bench.trouble.isNone)
    t.true(bench.requester.refused(bench.refusal(1, status.remoteOperationError), 0))
    t.is(bench.trouble.status, status.remoteOperationError)
    t.false(bench.requester.refused(bench.refusal(2, status.remoteAccessError), 0), 'not posted')
  }),
)

test(
  'patience counts from the first look at the clock after the last sign of life',
  withBench((t, bench) => {
    // 4.096 µs × 2^14 × 2 = 134.2 ms
    bench.requester.lookAtClock(1000)
    bench.post(1, sendOpcode.write)
    bench.requester.encode(0)
    bench.requester.lookAtClock(5000)
    bench.requester.lookAtClock(5134)
    t.true(bench.trouble.isNone)
    t.true(bench.requester.nextTimerMs(5134) < 1)
    bench.requester.lookAtClock(5135)
    t.is(bench.trouble.status, status.retryExceeded)
  }),
)

test(
  'a request with bad memory waits for its turn to fail',
  withBench((t, bench) => {
    bench.post(1, sendOpcode.write)
    bench.post(2, sendOpcode.write, 1 << 23)
    bench.post(3, sendOpcode.write)
    t.is(bench.requester.encode(0), 1)
    t.true(bench.trouble.isNone)
    t.true(bench.requester.acknowledge(bench.sequence(1)))
    t.is(bench.trouble.status, status.localProtectionError)
  }),
)
