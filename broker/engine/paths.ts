/**
 * Which flow a request belongs to. A connected queue pair has one; a datagram queue pair has one for each peer queue pair it sends to or
 * hears from, made at first use and bounded: idle ones give way.
 */
import { limits } from '../../protocol/limits.js'
import { flowRecord } from '../../protocol/queue-pair-segment.js'
import { thisNode } from './commands.js'
import type { Engine } from './engine.js'
import { Flow } from './flow.js'
import type { Lane } from './lane.js'
import { pathKey } from './lane-path.js'
import { type EngineQueuePair, flowKey } from './queue-pair.js'
import type { SendRequest } from './request.js'
import { beginSuspension } from './suspend.js'

/** Null: not connected, no path to that node, or too many destinations at once. */
export function flowOf(engine: Engine, queuePair: EngineQueuePair, request: SendRequest): Flow | null {
  if (queuePair.connected) return queuePair.flow
  const { destinationNode: peer, destinationNumber: number, destinationGeneration: generation } = request
  if (peer >= limits.peers || number >= limits.queuePairs) return null
  const known = queuePair.flows.get(flowKey(peer, number))
  if (known && known.remoteGeneration === generation) return known
  if (peer === thisNode) return datagramFlow(engine, queuePair, peer, number, generation, null)
  const lane = engine.datagramLane(queuePair.job, peer)
  if (lane) return datagramFlow(engine, queuePair, peer, number, generation, lane)
  if (!engine.lostDatagramPaths.has(pathKey(queuePair.job, peer))) return null
  const flow = datagramFlow(engine, queuePair, peer, number, generation, null)
  if (flow) beginSuspension(engine, flow)
  return flow
}

/** The flow that a request would join, if there is one. */
export function knownFlow(queuePair: EngineQueuePair, request: SendRequest): Flow | null {
  if (queuePair.connected) return queuePair.flow
  return queuePair.flows.get(flowKey(request.destinationNode, request.destinationNumber)) ?? null
}

/** The flow between a datagram queue pair and one peer queue pair; null when the table is full of busy ones. */
export function datagramFlow(
  _engine: Engine,
  queuePair: EngineQueuePair,
  peer: number,
  number: number,
  generation: number,
  lane: Lane | null,
): Flow | null {
  const key = flowKey(peer, number)
  const known = queuePair.flows.get(key)
  if (known && known.remoteGeneration === generation) return known
  if (known && !known.idle) return null
  if (!known && queuePair.flows.size >= limits.datagramFlows && !evictIdle(queuePair)) return null
  const remembered = queuePair.remembersFlows ? findRecord(queuePair, peer, number, generation) : -1
  const recordIndex = remembered >= 0 ? remembered : (known?.recordIndex ?? freeRecord(queuePair))
  if (known) detach(known)
  const flow = new Flow(queuePair, peer, number, generation, lane, false)
  flow.recordIndex = recordIndex
  if (remembered >= 0) {
    const { last, failedSequence, failedStatus } = readRecord(queuePair, remembered)
    flow.continueInbound(last | 0)
    // One that was not delivered comes again.
    const isTold = failedStatus !== 0 && ((failedSequence - last) | 0) <= 0
    if (isTold) flow.toldFailures.push({ sequence: failedSequence | 0, status: failedStatus })
    flow.retellFailures()
  } else writeRecord(flow)
  queuePair.flows.set(key, flow)
  lane?.flows.add(flow)
  return flow
}

/** A flow gives way only when nothing about it would be missed: both ends may begin it anew at any sequence. */
function evictIdle(queuePair: EngineQueuePair): boolean {
  for (const [key, flow] of queuePair.flows) {
    if (!flow.idle || flow.suspended || flow.parked || flow.resumeDue || flow.acknowledgementDue) continue
    if (flow.inAcknowledgementList || flow.inControlList || flow.scheduled) continue
    queuePair.flows.delete(key)
    detach(flow)
    return true
  }
  return false
}

/** Rows of flows that went with a lane are free again, so the number of flows says nothing. */
function freeRecord(queuePair: EngineQueuePair): number {
  const used = new Set<number>()
  for (const flow of queuePair.flows.values()) used.add(flow.recordIndex)
  if (queuePair.remembersFlows) {
    // Rows of senders that may still come back go last.
    for (let index = 0; index < queuePair.geometry.flowRecords; index++) {
      if (!used.has(index) && readRecord(queuePair, index).sourceGeneration === 0) return index
    }
  }
  for (let index = 0; ; index++) if (!used.has(index)) return index
}

const recordOffset = (queuePair: EngineQueuePair, index: number): number =>
  queuePair.geometry.flowTableOffset + index * flowRecord.byteLength
const readRecord = (queuePair: EngineQueuePair, index: number) =>
  flowRecord.read(queuePair.memory, recordOffset(queuePair, index))

/** Row of a sender that a predecessor knew; -1 if there is none. */
function findRecord(queuePair: EngineQueuePair, peer: number, number: number, generation: number): number {
  for (let index = 0; index < queuePair.geometry.flowRecords; index++) {
    const row = readRecord(queuePair, index)
    if (row.sourceNode === peer && row.sourceNumber === number && row.sourceGeneration === generation) return index
  }
  return -1
}

function detach(flow: Flow): void {
  flow.dead = true
  flow.lane?.flows.delete(flow)
  flow.queuePair.parkedFlows.delete(flow)
  if (flow.twin) flow.twin.twin = null
}

/** The row that lets a successor recognise repeated messages of this sender. */
function writeRecord(flow: Flow): void {
  const { queuePair } = flow
  if (flow.recordIndex >= queuePair.geometry.flowRecords) return
  flowRecord.write(queuePair.memory, queuePair.geometry.flowTableOffset + flow.recordIndex * flowRecord.byteLength, {
    sourceNode: flow.peer,
    sourceNumber: flow.remoteNumber,
    sourceGeneration: flow.remoteGeneration,
    last: flow.lastDelivered,
    failedSequence: 0,
    failedStatus: 0,
  })
}
