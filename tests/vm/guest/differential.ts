/**
 * Random programs of provider operations, each run on the soft provider and on Soft-RoCE: the same completions in the same
 * order in each queue, and the same memory at both ends.
 *
 * A program is made so that its outcome does not depend on time: each side writes and reads an area of its peer that nobody
 * else changes, and receives are used in order. One program in three ends with a request that the peer refuses.
 */
import { createHash } from 'node:crypto'
import { openSoftDevice } from '../../../broker/provider/soft-device.js'
import { type DeviceFactory, type Player, Rig, type Span } from '../../conformance/provider/rig.js'
import { verbsFactory } from './conformance.js'

const STEPS_MAX = 40
const SEED = 20_240_601

/** What is written from, what the peer writes to, receives one after another, and where reads go. */
const AREA_BYTES = 128 * 1024
const TARGET = AREA_BYTES
const READS = 2 * AREA_BYTES
const RECEIVES = 3 * AREA_BYTES
const RECEIVE_BYTES = 64 * 1024
const RECEIVE_PLACES = 8
const COMPARED_BYTES = RECEIVES + RECEIVE_PLACES * RECEIVE_BYTES
/** Plus the longest length it stays within an area. */
const PLACES = 64_000
/** A longer read may show what is written behind it, unless it is fenced. */
const READ_BYTES_MAX = 8192
/** Requests of receives count from here on. */
const FIRST_RECEIVE = 1_000_000

interface Step {
  readonly side: 0 | 1
  readonly kind: 'send' | 'write' | 'read'
  readonly length: number
  readonly at: number
  readonly to: number
  readonly signaled: boolean
  readonly inline: boolean
}

interface Program {
  readonly steps: readonly Step[]
  readonly endsInError: boolean
}

/** Small and good enough: mulberry32. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

function programOf(seed: number): Program {
  const random = randomFrom(seed)
  const steps = Array.from({ length: 1 + random(STEPS_MAX) }, (_, index): Step => {
    const kind = (['send', 'write', 'read'] as const)[random(3)]!
    const longest = [65, 300, 9000, 60_000][random(4)]!
    const length = random(kind === 'read' ? Math.min(longest, READ_BYTES_MAX) : longest)
    return {
      side: random(2) === 0 ? 0 : 1,
      kind,
      length,
      at: random(PLACES),
      to: random(PLACES),
      signaled: random(3) > 0 || index % 4 === 3,
      inline: kind !== 'read' && length <= 64 && random(2) === 0,
    }
  })
  // Of what is not signalled only a later completion tells that it is done.
  const last = ([0, 1] as const).map(
    (side): Step => ({ side, kind: 'write', length: 0, at: 0, to: 0, signaled: true, inline: false }),
  )
  return { steps: [...steps, ...last], endsInError: random(3) === 0 }
}

/** Runs programs one after another on the devices of one provider. */
class Stage {
  readonly #rig: Rig
  readonly #first: readonly [Player, Player]

  constructor(factory: DeviceFactory) {
    this.#rig = new Rig(factory)
    this.#first = this.#rig.pair({ limits: { sendDepth: 16, receiveDepth: 32 } })
  }

  outcome(program: Program): string {
    const pair = this.#rig.anotherPair(this.#first, { limits: { sendDepth: 16, receiveDepth: 32 } })
    for (const [index, player] of pair.entries()) {
      player.bytes.fill(0, 0, COMPARED_BYTES)
      player.fill(0, AREA_BYTES, index + program.steps.length)
    }
    const awaited = [0, 0]
    program.steps.forEach((step, id) => {
      this.#post(pair[step.side]!, step, id)
      if (step.signaled) awaited[step.side]!++
    })
    this.#rig.until(() => pair.every((player, side) => sendsOf(player).length >= awaited[side]!))
    this.#rig.settle()
    if (program.endsInError) this.#fail(pair[0]!)
    const result = JSON.stringify(pair.map(outcomeOf))
    for (const player of pair) player.destroy()
    return result
  }

  #post(player: Player, { kind, length, at, to, signaled, inline }: Step, id: number): void {
    const span: Span = { at: kind === 'read' ? READS + at : at, length, to: TARGET + to, signaled, inline }
    if (kind === 'send') {
      const place = RECEIVES + (id % RECEIVE_PLACES) * RECEIVE_BYTES
      this.#rig.until(() => player.peer.receive(FIRST_RECEIVE + id, { at: place, length: RECEIVE_BYTES }) === 1)
    }
    this.#rig.until(() => player[kind](id, span) === 1, `room for request ${id}`)
  }

  /** A write to memory that the peer does not have, between others, with receives outstanding. */
  #fail(player: Player): void {
    const before = player.completions.length
    player.receive(FIRST_RECEIVE + 500, { length: 8 })
    player.receive(FIRST_RECEIVE + 501, { length: 8 })
    player.write(600, { at: 5, length: 8, to: TARGET })
    player.write(601, { length: 8, remoteKey: 0xdead00 })
    player.write(602, { length: 8, to: TARGET, signaled: false })
    this.#rig.until(() => player.done(before + 5))
    this.#rig.settle()
  }

  close(): void {
    this.#rig.close()
  }
}

const sendsOf = (player: Player) => player.completions.filter(({ id }) => id < FIRST_RECEIVE)

/** What the contract promises of a completion: an opcode only with success, a length only of receives. */
function outcomeOf(player: Player) {
  const receives = player.completions.filter(({ id }) => id >= FIRST_RECEIVE)
  return {
    sends: sendsOf(player).map(({ id, status, opcode }) => `${id} ${status} ${status === 'success' ? opcode : ''}`),
    receives: receives.map(({ id, status, byteLength }) => `${id} ${status} ${byteLength}`),
    memory: createHash('sha1').update(player.bytes.subarray(0, COMPARED_BYTES)).digest('hex'),
    state: player.state,
  }
}

export interface Compared {
  readonly count: number
  readonly mismatches: number
}

const softFactory: DeviceFactory = {
  provider: 'soft',
  clockMs: null,
  open: (name) => openSoftDevice({ name, host: '127.0.0.1', port: 0 }),
}

/** Runs some of the programs, in this process. */
export function comparePrograms(first: number, count: number): Compared {
  const soft = new Stage(softFactory)
  const verbs = new Stage(verbsFactory)
  let mismatches = 0
  for (let seed = SEED + first; seed < SEED + first + count; seed++) {
    const program = programOf(seed)
    const [expected, found] = [soft.outcome(program), verbs.outcome(program)]
    if (expected === found) continue
    mismatches++
    console.log(`program ${seed} differs\n  soft  ${expected.slice(0, 1500)}\n  verbs ${found.slice(0, 1500)}`)
  }
  soft.close()
  verbs.close()
  return { count, mismatches }
}
