/**
 * Random programs for the engine: every opcode and length on connected and datagram queue pairs, to the other node and to the own, random
 * receive sizes and cuts, queue pairs that close and lanes that are lost in between. The oracle judges what comes of them.
 */
import type { SendOpcodeName } from '../../protocol/opcodes.js'
import { diesWithin } from './dying-words.js'
import { connect, type EngineNode, type Entry, JOB, linkAgain, turnDuring, turnUntil } from './engine-node.js'
import { Actor, Oracle, type Posted } from './engine-oracle.js'
import { Choices, destination, type End, pattern, type Stage } from './engine-stage.js'

const SLOTS = 12
const BUFFER = 24 * 1024
/** Memory of an end: buffers of sends, buffers of receives, then what others read, write and add to. */
const RECEIVES = SLOTS * BUFFER
const READ_AREA = 2 * SLOTS * BUFFER
const WRITE_AREA = READ_AREA + BUFFER
export const ADD_WORD = WRITE_AREA + SLOTS * BUFFER
const MEMORY = ADD_WORD + 4096

const LENGTHS = [0, 1, 7, 8, 63, 64, 500, 967, 968, 969, 3871, 3872, 3873, 8192, 8193, 20_000, BUFFER - 8]
const OPCODES: readonly SendOpcodeName[] = [
  'send',
  'send',
  'send-with-immediate',
  'write',
  'write-with-immediate',
  'read',
  'fetch-and-add',
]

export interface Plan {
  readonly seed: number
  readonly steps: number
  /** Queue pairs close now and then. */
  readonly disturb: boolean
  /** Connected queue pairs only: nothing of them waits for a time. */
  readonly connectedOnly?: boolean
  /** Writes may be executed again: nothing but datagrams' atomics may then end as unknown when a lane is lost. */
  readonly replayable?: boolean
}

export class Program {
  readonly stage: Stage
  readonly choices: Choices
  readonly plan: Plan
  readonly actors: Actor[] = []
  readonly oracle: Oracle
  readonly removals: Promise<unknown>[] = []
  #nextId = 1
  /** What was added to each target's word: certainly, and at most. */
  readonly added = new Map<Actor, { least: bigint; most: bigint }>()
  #incarnation = 1

  constructor(stage: Stage, plan: Plan) {
    this.stage = stage
    this.plan = plan
    this.choices = new Choices(plan.seed)
    this.oracle = new Oracle(this.actors)
  }

  async set(): Promise<void> {
    const { stage } = this
    const shape = {
      sendSlots: SLOTS,
      receiveSlots: SLOTS,
      memoryByteLength: MEMORY,
      inlineByteLength: 64,
      queueCapacity: this.plan.connectedOnly ? 256 : 8,
    }
    const { left, right } = stage
    for (const [one, two] of [
      [left, right],
      [left, right],
      [right, left],
      [left, left],
      [right, right],
    ] as const) {
      const ends = [await stage.end(one, 'connected', shape), await stage.end(two, 'connected', shape)] as const
      await connect(ends[0].queuePair, ends[1].queuePair)
      const pair = [this.#actor(ends[0], true), this.#actor(ends[1], true)] as const
      pair[0].peers.push(pair[1])
      pair[1].peers.push(pair[0])
    }
    const self = await stage.end(left, 'connected', shape)
    await connect(self.queuePair, self.queuePair)
    const itself = this.#actor(self, true)
    itself.peers.push(itself)
    await stage.datagramPaths()
    if (this.plan.connectedOnly) return
    const datagrams: Actor[] = []
    for (const node of [left, right, left]) datagrams.push(this.#actor(await stage.end(node, 'datagram', shape), false))
    for (const actor of datagrams) actor.peers.push(...datagrams)
  }

  #actor(end: End, connected: boolean): Actor {
    for (let index = 0; index < BUFFER; index++) end.u8[READ_AREA + index] = pattern(1, READ_AREA + index)
    const actor = new Actor(end, connected)
    this.actors.push(actor)
    this.added.set(actor, { least: 0n, most: 0n })
    return actor
  }

  async run(): Promise<void> {
    for (let step = 0; step < this.plan.steps; step++) {
      const actor = this.choices.pick(this.actors)
      const what = this.choices.below(12)
      if (what < 4) this.#postReceives(actor, 1 + this.choices.below(4))
      else if (what < 8) this.#postSends(actor)
      else if (what < 9) this.#poll(actor)
      else for (let turns = this.choices.below(6); turns > 0; turns--) this.choices.pick(this.stage.nodes).turn()
      if (this.plan.disturb && this.choices.chance(120)) this.#close(actor)
      if (step % 64 === 0) await new Promise(setImmediate)
    }
  }

  /** The lane is lost at both ends, in any order; `lose` says how it begins at one of them. */
  async loseLane(lose: (node: EngineNode) => void): Promise<void> {
    const { left, right, nodes } = this.stage
    if (!this.plan.replayable) this.oracle.disturbed = true
    const lanes = nodes.map(({ engine }) => engine.lanes[0]!)
    const first = this.choices.below(2)
    lose(nodes[first]!)
    for (let turns = this.choices.below(20); turns > 0; turns--) this.choices.pick(nodes).turn()
    // The control planes tell each other.
    for (const [index, node] of nodes.entries()) node.engine.failLane(lanes[index]!, 'the peer lost it')
    await this.stage.until(() => lanes.every(({ state }) => state === 'failed'), 'both ends are fenced')
    const gone = { lane: 0, incarnation: this.#incarnation, orderly: false, reason: 'test' }
    await this.stage.during(Promise.all(nodes.map((node) => node.call('destroy-lane', gone))))
    this.#incarnation++
    await linkAgain(left, right, 0, lanes[0]!.parameters, this.#incarnation)
    for (const [node, peer] of [
      [left, right],
      [right, left],
    ] as const) {
      await node.call('add-datagram-path', { job: JOB, peer: node.peerOf(peer), lane: 0, trafficClass: 0 })
    }
  }

  /**
   * The broker of one node, or of both, is killed at some store to shared memory, or between turns; its successor adopts what is left. The
   * other side fences its end of the lane, as its control plane would.
   */
  async kill(doomed: readonly EngineNode[]): Promise<void> {
    const { left, right, nodes } = this.stage
    if (!this.plan.replayable) this.oracle.disturbed = true
    const lanes = nodes.map(({ engine }) => engine.lanes[0]!)
    for (const node of doomed) {
      if (this.choices.chance(4)) continue
      for (let turn = 0; turn < 20; turn++) if (diesWithin(1 + this.choices.below(200), () => node.turn())) break
    }
    for (const [index, node] of nodes.entries()) {
      if (doomed.includes(node)) continue
      for (let turns = this.choices.below(20); turns > 0; turns--) node.turn()
      node.engine.failLane(lanes[index]!, 'the peer has started again')
      await turnUntil([node], () => lanes[index]!.state === 'failed', 'this end is fenced')
      const gone = { lane: 0, incarnation: this.#incarnation, orderly: false, reason: 'test' }
      await turnDuring([node], node.call('destroy-lane', gone))
    }
    for (const node of doomed) {
      await node.restart((adopt) => this.choices.chance(2) && diesWithin(1 + this.choices.below(300), adopt))
    }
    this.#incarnation++
    await linkAgain(left, right, 0, lanes[0]!.parameters, this.#incarnation)
    for (const [node, peer] of [
      [left, right],
      [right, left],
    ] as const) {
      await node.call('add-datagram-path', { job: JOB, peer: node.peerOf(peer), lane: 0, trafficClass: 0 })
    }
  }

  /** Takes every completion until all engines sleep; nothing new is posted. */
  async rest(): Promise<void> {
    await this.stage.until(() => {
      for (const actor of this.actors) this.#poll(actor, 1000)
      return this.stage.nodes.every((node) => node.rests)
    }, `everything sleeps, seed ${this.plan.seed}`)
    await this.stage.rest()
    for (const actor of this.actors) this.#poll(actor, 1000)
  }

  /** Receives for everything, until nobody waits for a verdict; then all queue pairs are closed. */
  async finish(): Promise<void> {
    await this.stage.until(() => {
      for (const actor of this.actors) {
        if (!actor.closed) this.#postReceives(actor, SLOTS, true)
        this.#poll(actor)
      }
      return (
        this.stage.nodes.every(({ engine }) => engine.outstanding() === 0) &&
        this.actors.every((actor) => this.#quiet(actor))
      )
    }, `everything has its verdict, seed ${this.plan.seed}`)
    for (const actor of this.actors) if (!actor.closed) this.#remove(actor)
    let removed = false
    void Promise.all(this.removals).then(() => {
      removed = true
    })
    await this.stage.until(() => {
      for (const actor of this.actors) this.#poll(actor)
      return removed
    }, `all are closed, seed ${this.plan.seed}`)
    for (const actor of this.actors) this.#poll(actor)
  }

  #quiet(actor: Actor): boolean {
    for (const { list } of actor.sent.values()) {
      if (list.some(({ verdict, signaled }) => verdict === null && signaled)) return false
    }
    const queuePair = actor.end.node.engine.queuePairs[actor.end.queuePair.number]
    if (!queuePair) return true
    for (const flow of queuePair.everyFlow()) if (!flow.idle) return false
    return true
  }

  #poll(actor: Actor, most = 1 + this.choices.below(8)): void {
    for (const completion of actor.end.queue.poll(most)) {
      this.oracle.completed(actor, completion)
      const request = actor.byId.get(completion.id)
      if (request?.opcode !== 'fetch-and-add') continue
      const sum = this.added.get(request.to)!
      if (completion.status === 'success') sum.least++
      if (completion.status === 'success' || completion.status === 'unknown') sum.most++
    }
  }

  /** Posted work of a queue pair that is gone is nobody's. */
  #isGone({ end }: Actor): boolean {
    return end.node.engine.queuePairs[end.queuePair.number] === undefined
  }

  #postReceives(actor: Actor, count: number, large = false): void {
    if (this.#isGone(actor)) return
    for (let index = 0; index < count; index++) {
      const buffer = [...Array(SLOTS).keys()].find((slot) => {
        return [...actor.receives.values()].every(({ offset }) => offset !== RECEIVES + slot * BUFFER)
      })
      if (buffer === undefined) return
      const offset = RECEIVES + buffer * BUFFER
      const length = large || !this.choices.chance(8) ? BUFFER : this.choices.pick(LENGTHS)
      const id = this.#nextId++
      if (actor.end.queuePair.receive({ id, local: this.#cut(actor.end, offset, length) }) === 0) return
      actor.receives.set(id, { id, offset, length })
    }
  }

  #postSends(actor: Actor): void {
    if (this.#isGone(actor)) return
    for (let count = 1 + this.choices.below(3); count > 0; count--) {
      const buffer = [...Array(SLOTS).keys()].find((slot) => !this.#inUse(actor, slot * BUFFER))
      if (buffer === undefined) return
      if (!this.#postSend(actor, buffer * BUFFER)) return
    }
  }

  #inUse(actor: Actor, offset: number): boolean {
    for (const { list, settled } of actor.sent.values()) {
      for (let index = settled; index < list.length; index++) {
        if (list[index]!.offset === offset && list[index]!.verdict === null) return true
      }
    }
    return false
  }

  #postSend(actor: Actor, offset: number): boolean {
    const { choices } = this
    const to = choices.pick(actor.peers)
    const opcode = choices.pick(OPCODES)
    const atomic = opcode === 'fetch-and-add'
    const length = atomic ? 8 : choices.pick(LENGTHS)
    const id = this.#nextId++
    const oneSided = opcode !== 'send' && opcode !== 'send-with-immediate'
    // Each sender writes into a part of the target's memory that is its own, in the place of its own buffer.
    const area = opcode === 'read' ? READ_AREA : atomic ? ADD_WORD : WRITE_AREA + offset
    if (oneSided && !atomic && opcode !== 'read' && this.#writtenByOthers(actor, to, area)) return true
    if (opcode !== 'read' && !atomic)
      for (let index = 0; index < length; index++) actor.end.u8[offset + index] = pattern(id, index)
    const inline = length <= 64 && length > 0 && opcode !== 'read' && !atomic && choices.chance(3)
    const signaled = atomic || !choices.chance(4)
    const posted = actor.end.queuePair.send({
      id,
      opcode,
      signaled,
      fence: choices.chance(8),
      solicited: choices.chance(4),
      replayable: this.plan.replayable === true,
      immediate: id,
      ...(inline
        ? { inline: actor.end.u8.slice(offset, offset + length) }
        : { local: this.#cut(actor.end, offset, length, atomic) }),
      ...(oneSided ? { remote: { key: to.end.memory.key, offset: area } } : {}),
      ...(atomic ? { swap: 1n } : {}),
      ...(actor.connected ? {} : { destination: destination(actor.end.node, to.end.queuePair) }),
    })
    if (posted === 0) return false
    const remote = oneSided ? { end: { u8: to.end.u8 }, offset: area } : null
    const request: Posted = {
      id,
      from: actor,
      to,
      opcode,
      length,
      signaled,
      remote,
      offset,
      verdict: null,
      delivered: null,
    }
    this.oracle.posted(request)
    return true
  }

  /** Another request that has no verdict yet writes there, so the bytes could not be told apart. */
  #writtenByOthers(actor: Actor, to: Actor, area: number): boolean {
    return this.actors.some((other) => {
      const flow = other.sent.get(to)
      return flow?.list.slice(flow.settled).some(({ remote, verdict, from }) => {
        return verdict === null && remote?.offset === area && from !== actor
      })
    })
  }

  #cut(end: End, offset: number, length: number, whole = false): Entry[] {
    const cuts = [0, length]
    if (!whole) for (let more = this.choices.below(4); more > 0; more--) cuts.push(this.choices.below(length + 1))
    cuts.sort((one, two) => one - two)
    return cuts
      .slice(1)
      .map((to, index) => ({ region: end.memory, offset: offset + cuts[index]!, length: to - cuts[index]! }))
  }

  #close(actor: Actor): void {
    if (actor.closed) return
    this.oracle.disturbed = true
    this.#remove(actor)
  }

  #remove(actor: Actor): void {
    actor.closed = true
    const { number, generation } = actor.end.queuePair
    const { node } = actor.end
    this.removals.push(node.call('remove-queue-pair', { number, generation, discard: false, reason: 'test' }))
  }
}
