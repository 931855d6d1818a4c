/** One shared queue pair, as the control plane sees it: names, state, and who waits for what. */
import type { LinkMessageBody } from '../../protocol/link.js'
import type { LaneSet } from './lane-set.js'

/** 'gone': nobody may use it any more; its provider queue pair may still be on the way out. */
export type LaneState = 'opening' | 'up' | 'closing' | 'gone'

/** What the other side may say to a question about a lane. */
export interface LaneAnswer<Value> {
  readonly promise: Promise<Value>
  resolve(value: Value): void
  reject(error: Error): void
}

export function createAnswer<Value>(): LaneAnswer<Value> {
  let resolve: (value: Value) => void = () => {}
  let reject: (error: Error) => void = () => {}
  const promise = new Promise<Value>((settle, fail) => {
    resolve = settle
    reject = fail
  })
  // It may be given up before anybody waits for it.
  promise.catch(() => undefined)
  return { promise, resolve, reject }
}

export class Lane {
  readonly set: LaneSet
  readonly index: number
  /** Row of the shared queue pairs; the engine's name for it. */
  readonly row: number
  /** Unique for ever on this node. */
  readonly incarnation: number
  /** The incarnation of the side that opened it: the name both sides use on the link. */
  readonly shared: number
  readonly key: string
  state: LaneState = 'opening'
  /** The engine made it, so the engine must destroy it. */
  made = false
  /** Settles when the engine has answered the creation. */
  creation: Promise<unknown> = Promise.resolve()
  removal: Promise<void> | null = null
  readonly opened = createAnswer<LinkMessageBody<'lane-opened'>>()
  reaped: LaneAnswer<boolean> | null = null

  constructor(of: { set: LaneSet; index: number; row: number; incarnation: number; shared: number; key: string }) {
    this.set = of.set
    this.index = of.index
    this.row = of.row
    this.incarnation = of.incarnation
    this.shared = of.shared
    this.key = of.key
  }

  /** Its name in link messages. */
  get name() {
    const { job, trafficClass } = this.set
    return { job: job.name, userId: job.userId, trafficClass, lane: this.index, incarnation: this.shared }
  }

  /** Whoever waits for the other side hears that nothing will come. May be repeated. */
  giveUp(error: Error): void {
    this.opened.reject(error)
    this.reaped?.reject(error)
  }
}
