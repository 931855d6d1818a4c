/** The responder as what it is: a function of a request and its state, without sockets. */
import test, { type ExecutionContext } from 'ava'
import { CompletionBatch, WorkRequestBatch } from '../../../broker/provider/provider.js'
import { Arena } from '../../../broker/provider/soft-arena.js'
import { SoftCompletionQueue } from '../../../broker/provider/soft-completion-queue.js'
import { MemoryTable, type SoftRegion } from '../../../broker/provider/soft-memory.js'
import { OUTPUT_PLAN_BYTES, Output } from '../../../broker/provider/soft-output.js'
import { Placement } from '../../../broker/provider/soft-placement.js'
import { ReceiveQueue } from '../../../broker/provider/soft-receive-queue.js'
import { firstSequence } from '../../../broker/provider/soft-requester.js'
import { Responder } from '../../../broker/provider/soft-responder.js'
import { Trouble } from '../../../broker/provider/soft-trouble.js'
import {
  CODE_RECEIVER_NOT_READY,
  decodeFrame,
  Frame,
  frameFlag,
  frameType,
  paddingOf,
} from '../../../broker/provider/soft-wire.js'
import { status } from '../../../protocol/statuses.js'

const DOMAIN = 4
const NUMBER = 77
const PACKET_SEQUENCE = 0x7fffff
const READS_ACCEPTED = 2
const COPIED_BYTES_MAX = 8192
const MEMORY_BYTES = 4 << 20
const rights = { localWrite: true, remoteRead: true, remoteWrite: true }
const BOTH = frameFlag.first | frameFlag.last

function counters() {
  return {
    queuePairs: 0,
    queuePairsCreated: 0,
    memoryRegions: 0,
    messagesSent: 0,
    bytesSent: 0,
    bytesReceived: 0,
    receiverNotReady: 0,
    systemCalls: 0,
  }
}

class Bench {
  readonly arena = new Arena(OUTPUT_PLAN_BYTES)
  readonly pages = new Arena(MEMORY_BYTES)
  readonly table = new MemoryTable((byteLength) => new Uint8Array(byteLength).fill(0x5a))
  readonly region: SoftRegion
  readonly receives = new ReceiveQueue(8, 2)
  readonly completions = new SoftCompletionQueue(1, 16, false, () => {})
  readonly output = new Output(this.arena.memory)
  readonly trouble = new Trouble()
  readonly counters = counters()
  readonly placement = new Placement(this.table, DOMAIN)
  readonly responder: Responder
  #sequence = firstSequence(PACKET_SEQUENCE)
  #heard = 0

  constructor() {
    this.region = this.table.register(this.pages.memory.address, MEMORY_BYTES, DOMAIN, rights)!
    this.responder = new Responder({
      number: NUMBER,
      domain: DOMAIN,
      table: this.table,
      receives: this.receives,
      completions: this.completions,
      output: this.output,
      trouble: this.trouble,
      counters: this.counters,
      faults: null,
    })
    this.responder.start(PACKET_SEQUENCE, READS_ACCEPTED, 0.64)
  }

  receive(id: number, byteLength: number): void {
    const batch = new WorkRequestBatch(1)
    batch.begin(id, 0, 0, 0, 0, 0)
    batch.addSge(this.region.address, byteLength, this.region.localKey)
    this.receives.write(this.receives.posted & this.receives.mask, batch, 0, byteLength)
    this.receives.posted++
  }

  /** One request of one frame; its payload is as good as placed. */
  ask(fields: Partial<Frame>): string {
    const frame = Object.assign(new Frame(), { flags: BOTH, sequence: this.#sequence, ...fields })
    if (fields.sequence === undefined) this.#sequence = (this.#sequence + 1) | 0
    const admission = this.responder.admit(frame, this.placement)
    if (admission === 'place') this.responder.finish(frame)
    return admission
  }

  /** As if the socket had taken everything. */
  sent(): void {
    this.responder.planTaken(this.output.pending)
    this.output.clear()
    this.#heard = 0
  }

  /** The same request once more, as after a refusal. */
  rewind(): void {
    this.#sequence = (this.#sequence - 1) | 0
  }

  /** Frames that were answered since the last call. */
  answers(): Frame[] {
    this.responder.answer()
    const frames: Frame[] = []
    while (this.#heard < this.output.end) {
      const frame = new Frame()
      const header = decodeFrame(this.output.memory, this.#heard, this.output.end - this.#heard, frame)
      // The payload of a long answer is named, not copied into the buffer.
      const copied = frame.byteLength > COPIED_BYTES_MAX ? 0 : frame.byteLength + paddingOf(frame.byteLength)
      this.#heard += header + copied
      frames.push(frame)
    }
    return frames
  }

  completed(): [number, number, number][] {
    const batch = new CompletionBatch(16)
    this.completions.poll(batch)
    return Array.from({ length: batch.count }, (_, index) => [
      batch.idLow[index]!,
      batch.status[index]!,
      batch.byteLength[index]!,
    ])
  }

  close(): void {
    this.arena.close()
    this.pages.close()
  }
}

function withBench(run: (t: ExecutionContext, bench: Bench) => void): (t: ExecutionContext) => void {
  return (t) => {
    const bench = new Bench()
    try {
      run(t, bench)
    } finally {
      bench.close()
    }
  }
}

const write = (bench: Bench): Partial<Frame> => ({
  type: frameType.write,
  flags: BOTH | frameFlag.extended,
  byteLength: 8,
  messageByteLength: 8,
  remoteAddress: 0,
  remoteKey: bench.region.remoteKey | 0,
})
const read = (bench: Bench, byteLength: number): Partial<Frame> => ({
  ...write(bench),
  type: frameType.read,
  byteLength: 0,
  messageByteLength: byteLength,
})
const send: Partial<Frame> = { type: frameType.send, byteLength: 8 }

test(
  'what is executed is answered, in one number for all',
  withBench((t, bench) => {
    bench.receive(5, 8)
    const first = bench.responder.answered
    t.is(bench.ask(write(bench)), 'place')
    t.is(bench.ask(send), 'place')
    t.is(bench.responder.untold, 2)
    t.is(bench.responder.answered, (first + 2) | 0)
    t.deepEqual(bench.completed(), [[5, status.success, 8]])
    bench.responder.encodeAcknowledgement()
    t.is(bench.responder.untold, 0)
    t.deepEqual(
      bench.answers().map(({ type, acknowledged }) => [type, acknowledged]),
      [[frameType.acknowledge, (first + 2) | 0]],
    )
  }),
)

test(
  'answers never pass a read whose data has not been sent, and the data comes first',
  withBench((t, bench) => {
    const first = bench.responder.answered
    bench.ask(read(bench, 20_000))
    bench.ask(write(bench))
    t.is(bench.responder.answered, first)
    const frames = bench.answers()
    t.deepEqual(
      frames.map(({ type, byteLength, acknowledged }) => [type, byteLength, acknowledged]),
      [[frameType.readResponse, 20_000, first]],
    )
    t.is(bench.responder.answered, (first + 2) | 0)
    t.is(bench.responder.untold, 1, 'the data acknowledged the read itself')
  }),
)

test(
  'a send without receive is refused for now; what follows is dropped until it comes again',
  withBench((t, bench) => {
    const first = bench.responder.answered
    t.is(bench.ask(send), 'discard')
    t.is(bench.counters.receiverNotReady, 1)
    t.is(bench.ask(write(bench)), 'discard')
    t.is(bench.ask(read(bench, 8)), 'discard')
    const [refusal] = bench.answers()
    t.is(refusal?.code, CODE_RECEIVER_NOT_READY)
    t.is(refusal?.sequence, first)
    t.is(refusal?.messageByteLength, 640)
    t.true(bench.trouble.isNone)
    bench.receive(6, 8)
    for (let count = 0; count < 3; count++) bench.rewind()
    t.is(bench.ask(send), 'place')
    t.is(bench.responder.answered, (first + 1) | 0)
  }),
)

test(
  'a refusal for good comes after the data of earlier reads',
  withBench((t, bench) => {
    bench.ask(read(bench, 1_500_000))
    t.is(bench.ask({ ...write(bench), remoteKey: 1 }), 'discard')
    t.is(bench.trouble.kind, 'responder')
    t.is(bench.trouble.status, status.remoteAccessError)
    const types: number[] = []
    for (let round = 0; round < 3; round++, bench.sent()) types.push(...bench.answers().map(({ type }) => type))
    const { readResponse } = frameType
    t.deepEqual(types, [...Array.from({ length: 2 }, () => readResponse), frameType.refuse], 'more than one plan holds')
  }),
)

test(
  'more reads than accepted are refused, answered ones count until they have left',
  withBench((t, bench) => {
    t.is(bench.ask(read(bench, 8)), 'discard')
    t.is(bench.ask(read(bench, 8)), 'discard')
    t.true(bench.trouble.isNone)
    // The peer has all of the first read as soon as this much has left, and may ask for another.
    const half = bench.output.pending / 2
    bench.responder.planTaken(half - 8)
    bench.responder.planTaken(8)
    t.is(bench.ask(read(bench, 8)), 'discard')
    t.true(bench.trouble.isNone)
    bench.ask(read(bench, 8))
    t.is(bench.trouble.status, status.remoteInvalidRequest)
  }),
)

test(
  'a read whose memory went away is refused only if nothing after it was executed',
  withBench((t, bench) => {
    bench.ask(read(bench, 20_000))
    bench.table.deregister(bench.region)
    bench.answers()
    t.is(bench.trouble.status, status.remoteAccessError)
  }),
)

test(
  'else the stream ends without a word',
  withBench((t, bench) => {
    bench.receive(1, 8)
    bench.ask(read(bench, 20_000))
    bench.ask(send)
    bench.table.deregister(bench.region)
    t.deepEqual(bench.answers(), [])
    t.is(bench.trouble.kind, 'stream')
  }),
)

test(
  'out of turn, out of shape: no peer would send that',
  withBench((t, bench) => {
    const first = bench.responder.answered
    t.is(bench.ask({ ...send, sequence: (first + 1) | 0 }), 'violation')
    t.is(bench.ask({ ...send, sequence: (first - 1) | 0 }), 'violation')
    const segment = { ...write(bench), sequence: first }
    t.is(bench.ask({ ...segment, flags: frameFlag.last | frameFlag.extended }), 'violation', 'an end without beginning')
    t.is(bench.ask({ ...segment, messageByteLength: 16 }), 'violation', 'a last segment before the end')
    t.is(
      bench.ask({ ...segment, flags: frameFlag.first | frameFlag.extended }),
      'violation',
      'all of it, but not the last',
    )
    t.is(
      bench.ask({ ...segment, flags: frameFlag.first | frameFlag.extended, byteLength: 0 }),
      'violation',
      'no progress',
    )
    t.is(bench.responder.answered, first)
  }),
)
