/**
 * What the benchmark (broker/commands/bench) and its processes (client/bench-job.ts) say to each other over the channel between a Node
 * process and its child: one order, one answer. It stands here because broker and client never import each other.
 */
import type { QueuePairAddress } from './address.js'

/**
 * How a process waits for completions.
 *
 *   block       polls; when there is nothing, `cq.waitSync` sleeps until the broker rings
 *   brief       polls for some microseconds, then sleeps as `block` does
 *   spin        polls without end: only for machines with a core for each process
 *   event-loop  polls; when there is nothing, awaits `cq.wait()`, as an application that does other things meanwhile would
 */
export const benchWaits = ['block', 'brief', 'spin', 'event-loop'] as const
export type BenchWait = (typeof benchWaits)[number]

export type PingPongOpcode = 'send' | 'write'
export type OneSidedOpcode = 'write' | 'read' | 'fetch-and-add' | 'compare-and-swap'

export interface BenchPlan {
  readonly runtimeDirectory: string
  readonly job: string
  readonly jobKey: string
  readonly name: string
}

/** The queue pair of one measurement, and its memory: `slots` pieces of `byteLength` that messages go from and to. */
export interface BenchLinkPlan {
  readonly wait: BenchWait
  /** Requests that can be outstanding in one direction. */
  readonly depth: number
  readonly slots: number
  readonly byteLength: number
  /** Small payloads are copied into their work requests instead of being named by them. */
  readonly inline: boolean
}

/** How a peer reaches the process's queue pair and memory. */
export interface BenchOffer {
  readonly address: QueuePairAddress
  readonly memoryKey: number
}

/** By the monotonic clock of the machine, so that many processes measure the same piece of time: work before `fromMs` warms up. */
export interface BenchWindow {
  readonly fromMs: number
  readonly untilMs: number
}

/** Times of single things, as an HDR histogram sees them. */
export interface BenchTimes {
  readonly samples: number
  readonly unit: 'ns' | 'us' | 'ms'
  readonly minimum: number
  readonly p50: number
  readonly p99: number
  readonly p999: number
  readonly maximum: number
}

/** What went through in the window. */
export interface BenchFlow {
  readonly messages: number
  readonly bytes: number
}

interface Order<Arguments, Answer> {
  readonly arguments: Arguments
  readonly answer: Answer
}

export interface BenchOrders {
  attach: Order<BenchPlan, { readonly processId: number }>
  open: Order<BenchLinkPlan, BenchOffer>
  connect: Order<BenchOffer, null>
  /** Sends and waits for the answer, one at a time; the times are halves of round trips. */
  ping: Order<BenchWindow & { readonly opcode: PingPongOpcode }, BenchTimes>
  /** Answers each message until `ping` says that it was the last. */
  pong: Order<{ readonly opcode: PingPongOpcode }, null>
  /** Posts sends as fast as they are taken. */
  stream: Order<BenchWindow, null>
  /** Takes them, and counts. */
  drain: Order<BenchWindow, BenchFlow>
  /**
   * Keeps that many one-sided requests outstanding; with one, the times are from the post to the completion. `all`: from the first post to
   * the last completion, for requests that take longer than the window.
   */
  'one-sided': Order<
    BenchWindow & { readonly opcode: OneSidedOpcode; readonly outstanding: number },
    BenchFlow & { readonly times: BenchTimes; readonly all: { readonly messages: number; readonly durationMs: number } }
  >
  /** Nanoseconds for each work request of lists of that many; what the broker does for them is not timed. */
  'post-poll': Order<
    BenchWindow & { readonly list: number },
    { readonly post: BenchTimes; readonly poll: BenchTimes; readonly both: BenchTimes }
  >
  close: Order<null, null>
  /** Sessions made and ended, one after the other. */
  'attach-often': Order<{ readonly warmUp: number; readonly count: number }, BenchTimes>
  /** A session in a job of its own, with queue pairs: the first that is connected gets a shared queue pair made. */
  'open-job': Order<
    { readonly job: string; readonly jobKey: string; readonly queuePairs: number },
    { readonly addresses: readonly QueuePairAddress[] }
  >
  /** Connects them, all at once or one after the other, and tells how long each took. */
  'connect-job': Order<
    { readonly addresses: readonly QueuePairAddress[]; readonly atOnce: boolean },
    { readonly eachMs: readonly number[] }
  >
  'close-job': Order<null, null>
  /** Sessions that do nothing. */
  'hold-sessions': Order<{ readonly job: string; readonly jobKey: string; readonly sessions: number }, null>
  /** Queue pairs with all defaults, on a session that has one completion queue for them. */
  'hold-queue-pairs': Order<{ readonly queuePairs: number }, null>
  finish: Order<null, null>
}

export type BenchOrderName = keyof BenchOrders
export type BenchArguments<Name extends BenchOrderName> = BenchOrders[Name]['arguments']
export type BenchAnswer<Name extends BenchOrderName> = BenchOrders[Name]['answer']

export interface BenchOrder {
  readonly order: BenchOrderName
  readonly arguments: unknown
}

export type BenchReply =
  | { readonly order: BenchOrderName; readonly answer: unknown }
  | { readonly order: BenchOrderName; readonly failure: string }

/** In the immediate data of the last message of a ping-pong or a stream. */
export const benchEnd = 0xffff_ffff
