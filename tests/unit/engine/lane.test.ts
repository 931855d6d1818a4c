/** A lane by itself: credit by tier, frames and their room, the ledger of what is posted. */
import test from 'ava'
import type { Flow } from '../../../broker/engine/flow.js'
import { creditTier, Lane } from '../../../broker/engine/lane.js'
import { LaneGroup } from '../../../broker/engine/lane-group.js'
import { laneSizes, SIGNALED_CHUNK_BYTES } from '../../../broker/engine/lane-sizes.js'
import { tellDelivered } from '../../../broker/engine/news.js'
import type { SendRequest } from '../../../broker/engine/request.js'
import { sendFlag, sendOpcode } from '../../../broker/provider/provider.js'
import type { LaneParameters } from '../../../protocol/link.js'
import { laneHeader } from '../../../protocol/wire.js'
import { Memory } from '../../../shm/memory.js'
import { Choices } from '../../support/engine-stage.js'

function parameters(bounceCount: number, bounceByteLength = 1024): LaneParameters {
  return {
    providerKind: 'soft',
    readsInitiated: 4,
    readsAccepted: 4,
    bounceByteLength,
    bounceCount,
    chunkByteLength: 4096,
    mtu: 4096,
    trafficClass: 0,
    atomicWindow: 16,
    maxMessageByteLength: 1 << 30,
  }
}

function laneOf(bounceCount: number, bounceByteLength = 1024): Lane {
  const of = parameters(bounceCount, bounceByteLength)
  return new Lane({
    index: 3,
    incarnation: 7,
    job: 1,
    peer: 1,
    peerNode: 'peer',
    group: new LaneGroup(1, 1),
    path: { job: 1, peer: 1, trafficClass: 0, index: 0 },
    shared: 7,
    parameters: of,
    queuePair: { number: 1, limits: { sendDepth: 1, receiveDepth: 1, scatterGather: 1, inlineByteLength: 0 } },
    memory: new Memory(new ArrayBuffer(laneSizes(of).byteLength)),
    registered: { localKey: 1, remoteKey: 2, address: 0, byteLength: laneSizes(of).byteLength },
    queueIndex: 0,
  })
}

/** Frames of one tier until none is left; what was put together is posted, nothing is retired. */
function spend(lane: Lane, tier: (typeof creditTier)[keyof typeof creditTier]): number {
  let frames = 0
  while (lane.beginMessage(lane.payloadCapacity, tier) >= 0) {
    lane.closeFrame()
    lane.batch.clear()
    frames++
  }
  return frames
}

test('data leaves credit for control, control leaves one, and the last goes only with news of consumed frames', (t) => {
  for (const [bounceCount, reserve] of [
    [4, 1],
    [5, 1],
    [8, 2],
    [16, 4],
    [64, 4],
  ] as const) {
    const lane = laneOf(bounceCount)
    t.is(spend(lane, creditTier.data), bounceCount - 1 - reserve)
    t.is(spend(lane, creditTier.control), reserve)
    t.is(spend(lane, creditTier.acknowledgement), 0, 'nothing was consumed: it would tell nothing')
    lane.consumed = 1
    t.is(spend(lane, creditTier.acknowledgement), 1)
    lane.consumed = 2
    t.is(spend(lane, creditTier.acknowledgement), 0, 'there is none left')
    lane.peerLimit = (lane.peerLimit + bounceCount) | 0
    t.true(spend(lane, creditTier.data) > 0)
  }
})

test('whatever both sides spend first, one of them can always report: every order of every tier', (t) => {
  const tiers = [creditTier.data, creditTier.control, creditTier.acknowledgement]
  for (const first of tiers) {
    for (const second of tiers) {
      const lanes = [laneOf(4), laneOf(4)] as const
      for (const lane of lanes) for (const tier of [first, second, ...tiers]) spend(lane, tier)
      // Both consume everything that the other sent.
      for (const [index, lane] of lanes.entries()) lane.consumed = lanes[1 - index]!.lastSequence
      t.true(lanes.some((lane) => lane.reportConsumed() === 1))
    }
  }
})

test('a frame tells what was consumed, and never holds more than the smaller of both sides', (t) => {
  const lane = laneOf(8)
  lane.agree(parameters(4, 512))
  t.is(lane.credit, 4)
  t.is(lane.payloadCapacity, 512 - 56)
  lane.lastReceived = 9
  lane.consumed = 9
  const offset = lane.beginMessage(100, creditTier.data)
  t.is(lane.beginMessage(280, creditTier.data), offset + 144, 'what fits stands behind it')
  t.not(lane.beginMessage(8, creditTier.data), offset + 144 + 320, 'what does not stands in the next frame')
  const header = laneHeader.read(lane.memory, offset - laneHeader.byteLength)
  t.is(header.frame & 0xffff, 16 + 144 + 320)
  t.is(header.laneAcknowledged, 9)
  t.is(header.laneLimit, 9 + 8, 'as many as we have buffers, not as few as were agreed at first')
})

test('the ledger retires in posting order, up to the completion that is told; positions wrap', (t) => {
  const choices = new Choices(7)
  for (const start of [0, 0x7fffffe0, -32]) {
    const lane = laneOf(16)
    lane.startLedgerAt(start)
    const settled: number[] = []
    const posted: { position: number; bulk: number }[] = []
    let next = 0
    for (let round = 0; round < 3000; round++) {
      if (choices.chance(2) && lane.chunkRoom) {
        const request = { chunksOutstanding: 0, id: next } as unknown as SendRequest
        lane.addChunk(request, choices.chance(2) ? sendOpcode.write : sendOpcode.read, 0, 1, 0, 100, 1, -1)
        posted.push({ position: lane.batch.idLow[lane.batch.count - 1]!, bulk: next++ })
      } else if (lane.beginMessage(8, creditTier.data) >= 0) {
        lane.closeFrame()
        posted.push({ position: lane.batch.idLow[lane.batch.count - 1]!, bulk: -1 })
      }
      t.true(lane.outstanding <= lane.sendDepth)
      if (choices.chance(3)) {
        lane.sealBatch()
        if (lane.batch.count > 0) t.is(lane.batch.flags[lane.batch.count - 1]! & sendFlag.signaled, sendFlag.signaled)
        lane.batch.clear()
      }
      if (posted.length === 0 || !choices.chance(4)) continue
      const upTo = choices.below(posted.length)
      const told = posted.splice(0, upTo + 1)
      const count = lane.retire(told.at(-1)!.position, (request) =>
        settled.push((request as unknown as { id: number }).id),
      )
      t.is(count, told.length)
      lane.peerLimit = (lane.lastSequence + lane.bounceCount) | 0
    }
    t.deepEqual(settled, [...settled.keys()], 'each chunk once, in order')
    t.is(
      lane.retire(0x12345678, () => t.fail()),
      -1,
      'a position that is not outstanding',
    )
    t.is(lane.bulkPostedByteLength, lane.bulkChunks * 100)
  }
})

test('what is told as delivered stays below a failure that is not told yet, and below what is published', (t) => {
  const flow = { lastDelivered: 3, failedSequences: [] as number[], acknowledgementDue: true } as unknown as Flow
  t.is(tellDelivered(flow), 3)
  t.false(flow.acknowledgementDue)
  flow.failedSequences.push(6)
  t.is(tellDelivered(flow), 3, 'four and five are not published yet')
  flow.lastDelivered = 8
  t.is(tellDelivered(flow), 5)
  t.true(flow.acknowledgementDue, 'the rest is due when the failure was told')
  flow.failedSequences.length = 0
  t.is(tellDelivered(flow), 8)
})

test('small chunks are completed together by the last of their batch, long ones each by itself', (t) => {
  const lane = laneOf(64)
  const request = { chunksOutstanding: 0 } as unknown as SendRequest
  const add = (byteLength: number): void => lane.addChunk(request, sendOpcode.write, 0, 1, 4096, byteLength, 1, -1)
  for (let count = 0; count < 8; count++) add(64)
  add(SIGNALED_CHUNK_BYTES)
  add(64)
  add(64)
  lane.sealBatch()
  const signaled = [...lane.batch.flags.subarray(0, lane.batch.count)].map((flags) => (flags & sendFlag.signaled) !== 0)
  t.deepEqual(signaled, [...new Array<boolean>(8).fill(false), true, false, true])
})
