/**
 * What the demo (broker/commands/demo) and its job processes (client/demo-job.ts) say to each other over the channel between a Node
 * process and its child: one order, one answer. It stands here because broker and client never import each other.
 */
import type { ObjectHandle, QueuePairAddress } from './address.js'

export interface DemoPlan {
  readonly runtimeDirectory: string
  readonly node: string
  readonly otherNode: string
  readonly rank: number
  /** On each node. */
  readonly processes: number
  readonly job: string
  readonly jobKey: string
  readonly file: string
  readonly fileByteLength: number
  /** Messages of one pair in one direction and one round. */
  readonly smallMessages: number
  readonly smallByteLength: number
  readonly largeByteLength: number
  /** Holds parts of the file for the other node's processes. */
  readonly holdsFile: boolean
}

/** What a process offers to one of the other node. */
export interface DemoOffer {
  readonly address: QueuePairAddress
  readonly windowKey: number
}

export interface DemoPrepared {
  /** For each rank of the other node. */
  readonly offers: readonly DemoOffer[]
  readonly datagram: QueuePairAddress
}

/** What was moved, successes only. */
export interface DemoTraffic {
  readonly messages: number
  readonly bytes: number
}

interface Prepare {
  readonly arguments: DemoPlan
  readonly answer: DemoPrepared
}

/** Every order with its arguments and its answer. */
export interface DemoOrders {
  prepare: Prepare
  connect: { readonly arguments: { readonly offers: readonly DemoOffer[] }; readonly answer: null }
  /** Small and large messages with every process of the other node, `without` one that is about to die. */
  exchange: {
    readonly arguments: { readonly round: number; readonly without: number | null }
    readonly answer: DemoTraffic
  }
  /** Writes this process's share of the file into the memory of all processes of the other node. */
  scatter: { readonly arguments: null; readonly answer: DemoTraffic }
  /** Reads the share of another process back, and puts it into a file at its place. */
  gather: { readonly arguments: { readonly share: number; readonly into: string }; readonly answer: DemoTraffic }
  /** Adds one, that often, to the counter in the memory of `at`; answers what it found each time. */
  count: {
    readonly arguments: { readonly at: QueuePairAddress; readonly windowKey: number; readonly times: number }
    readonly answer: DemoTraffic & { readonly found: readonly number[] }
  }
  'read-counter': { readonly arguments: null; readonly answer: { readonly value: number } }
  /** Gives away the right to post to the queue pair with rank 0 of the other node. */
  share: { readonly arguments: null; readonly answer: { readonly handle: ObjectHandle } }
  'post-stream': {
    readonly arguments: { readonly handle: ObjectHandle | null; readonly stream: number; readonly messages: number }
    readonly answer: DemoTraffic
  }
  'receive-streams': {
    readonly arguments: { readonly streams: number; readonly messages: number }
    readonly answer: { readonly inOrder: boolean }
  }
  /** Posts to a process that will be killed before it takes anything. */
  arm: { readonly arguments: { readonly victim: number }; readonly answer: null }
  /** Waits for the verdicts of what `arm` posted. */
  mourn: { readonly arguments: { readonly victim: number }; readonly answer: { readonly verdicts: readonly string[] } }
  finish: { readonly arguments: null; readonly answer: null }
}

export type DemoOrderName = keyof DemoOrders
export type DemoArguments<Name extends DemoOrderName> = DemoOrders[Name]['arguments']
export type DemoAnswer<Name extends DemoOrderName> = DemoOrders[Name]['answer']

export interface DemoOrder {
  readonly order: DemoOrderName
  readonly arguments: unknown
}

export type DemoReply =
  | { readonly order: DemoOrderName; readonly answer: unknown }
  | { readonly order: DemoOrderName; readonly failure: string }

/** Where the counter lies in the memory of the process that has it. */
export const demoCounterOffset = 0
/** Where parts of the file begin in the memory of a process that holds some. */
export const demoWindowOffset = 64

export interface FilePart {
  readonly fileOffset: number
  readonly windowOffset: number
  readonly byteLength: number
}

/** The file is cut into N² parts: the part of `writer` (who moves it) and `holder` (in whose memory it lies). */
export function filePart(
  of: { readonly fileByteLength: number; readonly processes: number },
  writer: number,
  holder: number,
): FilePart {
  const partByteLength = filePartByteLength(of)
  const fileOffset = Math.min(of.fileByteLength, (writer * of.processes + holder) * partByteLength)
  return {
    fileOffset,
    windowOffset: demoWindowOffset + writer * partByteLength,
    byteLength: Math.min(partByteLength, of.fileByteLength - fileOffset),
  }
}

/** Longest part, whole cache lines. */
export function filePartByteLength(of: { readonly fileByteLength: number; readonly processes: number }): number {
  return Math.ceil(of.fileByteLength / of.processes ** 2 / 64) * 64
}
