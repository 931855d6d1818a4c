/**
 * Segments that hostile or broken clients scribble over, between turns and in the middle of a drain. The engine neither throws nor loops;
 * the queue pair may fail for its holders; the lane, the neighbour and what is counted stay as they were.
 */
import test, { type ExecutionContext } from 'ava'
import { type SendOpcodeName, sendOpcodeOf } from '../../../protocol/opcodes.js'
import { clock } from '../../../shm/libc.js'
import type { Words } from '../../../shm/words.js'
import { Choices, checkAtRest, type End, Stage } from '../../support/engine-stage.js'

const LONGEST_TURN_MS = 2000
const opcodes = Object.keys(sendOpcodeOf) as SendOpcodeName[]

/** Words as a racing thread leaves them: now and then another word of the segment changes while the engine works on one. */
class RacingWords implements Words {
  readonly #words: Words
  readonly #race: () => void

  constructor(words: Words, race: () => void) {
    this.#words = words
    this.#race = race
  }

  load(index: number): number {
    this.#race()
    return this.#words.load(index)
  }
  store(index: number, value: number): void {
    this.#words.store(index, value)
    this.#race()
  }
  peek(index: number): number {
    return this.load(index)
  }
  put(index: number, value: number): void {
    this.store(index, value)
  }
  compareExchange(index: number, expected: number, replacement: number): number {
    this.#race()
    const found = this.#words.compareExchange(index, expected, replacement)
    this.#race()
    return found
  }
  exchange(index: number, value: number): number {
    return this.#words.exchange(index, value)
  }
  add(index: number, value: number): number {
    return this.#words.add(index, value)
  }
  or(index: number, mask: number): number {
    return this.#words.or(index, mask)
  }
  and(index: number, mask: number): number {
    return this.#words.and(index, mask)
  }
  wait(index: number, expected: number, timeoutMs: number): 'woken' | 'changed' | 'timeout' {
    return this.#words.wait(index, expected, timeoutMs)
  }
  wake(index: number, count: number): number {
    return this.#words.wake(index, count)
  }
}

class Vandal {
  readonly choices: Choices
  readonly end: End

  constructor(choices: Choices, end: End) {
    this.choices = choices
    this.end = end
  }

  /** One word of the queue pair's or the completion queue's segment becomes something else. */
  strike(): void {
    const { choices, end } = this
    const mapping = choices.chance(6) ? end.queue.mapping : end.queuePair.mapping
    const { i32 } = mapping.memory
    i32[this.#where(mapping === end.queuePair.mapping, i32.length)] = this.#what(i32)
  }

  /** Rings and the state words of slots are struck more often than their share of bytes. */
  #where(isQueuePair: boolean, length: number): number {
    const { choices } = this
    if (!isQueuePair) return choices.below(Math.min(length, 512))
    const { geometry } = this.end.queuePair
    const { sendSlotsOffset, sendSlotByteLength, receiveSlotsOffset, receiveSlotByteLength } = geometry
    switch (choices.below(6)) {
      case 0:
        return geometry.sendRingOffset / 4 + choices.pick([0, 16, 32 + choices.below(geometry.sendRingCapacity)])
      case 1:
        return geometry.receiveRingOffset / 4 + choices.pick([0, 16, 32 + choices.below(geometry.receiveRingCapacity)])
      case 2:
        return (sendSlotsOffset + choices.below(geometry.sendSlots) * sendSlotByteLength) / 4
      case 3:
        return (receiveSlotsOffset + choices.below(geometry.receiveSlots) * receiveSlotByteLength) / 4
      case 4:
        return (sendSlotsOffset + choices.below(geometry.sendSlots) * sendSlotByteLength) / 4 + choices.below(32)
      default:
        return choices.below(length)
    }
  }

  #what(i32: Int32Array): number {
    const { choices } = this
    switch (choices.below(6)) {
      case 0:
        return 0
      case 1:
        return choices.word() | 0
      case 2:
        return choices.below(20)
      case 3:
        return i32[choices.below(i32.length)]!
      case 4:
        // A claim by somebody, of a generation that may be the right one.
        return (choices.below(4) << 16) | (choices.below(4) << 4) | 1
      default:
        return (choices.below(4) << 4) | choices.below(6)
    }
  }

  /** As a hole in the file would: everything reads zero. */
  punch(): void {
    this.end.queuePair.mapping.memory.i32.fill(0)
  }
}

function post(choices: Choices, from: End, to: End, id: number): void {
  const opcode = choices.pick(opcodes)
  const length = opcode === 'compare-and-swap' || opcode === 'fetch-and-add' ? 8 : choices.pick([0, 16, 5000, 40_000])
  const remote = { key: to.memory.key, offset: 0 }
  const receives = 1 + choices.below(3)
  for (let index = 0; index < receives; index++) to.queuePair.receive({ id, local: to.at(0, 40_000) })
  from.queuePair.send({ id, opcode, local: from.at(0, length), remote, swap: 1n, fence: choices.chance(8) })
}

async function neighbourWorks(stage: Stage, near: End, far: End, count: number): Promise<boolean> {
  const [before, goal] = [far.done.length, near.done.length + count]
  let [sent, received] = [0, 0]
  await stage.until(() => {
    while (received < count && far.queuePair.receive({ id: received, local: far.at(0, 64) }) > 0) received++
    while (sent < received && near.queuePair.send({ id: sent, opcode: 'send', local: near.at(0, 64) }) > 0) sent++
    far.poll()
    return near.poll() >= goal && far.done.length >= before + count
  }, 'the neighbour works')
  return [...near.done, ...far.done].every(({ status }) => status === 'success')
}

interface Attack {
  readonly name: string
  readonly rounds: number
  strike(vandal: Vandal, round: number): void
  /** Also in the middle of what the engine does. */
  readonly racing: boolean
}

const attacks: readonly Attack[] = [
  { name: 'single words between turns', rounds: 300, racing: false, strike: (vandal) => vandal.strike() },
  {
    name: 'bursts of words between turns',
    rounds: 150,
    racing: false,
    strike: (vandal) => {
      for (let count = vandal.choices.below(60); count > 0; count--) vandal.strike()
    },
  },
  { name: 'words while the engine drains and completes (47)', rounds: 300, racing: true, strike: () => {} },
  {
    name: 'holes in the file (59)',
    rounds: 60,
    racing: false,
    strike: (vandal, round) => {
      if (round % 5 === 4) vandal.punch()
    },
  },
]

async function assault(t: ExecutionContext, where: 'remote' | 'local', attack: Attack, seed: number): Promise<void> {
  const stage = await Stage[where](t)
  const choices = new Choices(seed)
  const [near, far] = await stage.pair()
  const incarnation = where === 'remote' ? stage.lane.incarnation : 0
  let corrupt = 0
  // Each queue pair dies sooner or later; the next one has its turn.
  for (let life = 0; life < 4; life++) {
    const ends = await stage.pair({ sendSlots: 8, receiveSlots: 16, queueCapacity: 16, memoryByteLength: 1 << 16 })
    const [left, right] = ends
    const vandals = ends.map((end) => new Vandal(choices, end))
    if (attack.racing) for (const [index, end] of ends.entries()) race(choices, vandals[index]!, end)
    for (let round = 0; round < attack.rounds; round++) {
      if (choices.chance(2)) post(choices, left, right, round)
      else post(choices, right, left, round)
      attack.strike(choices.pick(vandals), round)
      for (let turns = choices.below(4); turns > 0; turns--) {
        const startMs = clock.nowMs()
        choices.pick(stage.nodes).turn()
        if (clock.nowMs() - startMs > LONGEST_TURN_MS) t.fail(`a turn took ${clock.nowMs() - startMs} ms, seed ${seed}`)
      }
      if (choices.chance(3)) for (const end of ends) end.queue.poll(choices.below(20))
      if (round % 50 === 0) await new Promise(setImmediate)
    }
    t.true(await neighbourWorks(stage, near, far, 250), `seed ${seed}`)
    await Promise.all(ends.map((end) => stage.remove(end, true)))
    corrupt += stage.nodes.flatMap((node) => node.events).filter(({ name }) => name === 'queue-pair-error').length
  }
  await stage.rest()
  checkAtRest(t, stage.nodes)
  if (where === 'remote') t.is(stage.lane.incarnation, incarnation)
  t.deepEqual(
    stage.nodes.flatMap((node) => node.events).filter(({ name }) => name === 'lane-failed'),
    [],
  )
  t.log(`${corrupt} queue pair errors`)
}

function race(choices: Choices, vandal: Vandal, end: End): void {
  const queuePair = end.node.engine.queuePairs[end.queuePair.number]!
  const words = new RacingWords(queuePair.words, () => {
    if (choices.chance(40)) vandal.strike()
  })
  Object.defineProperty(queuePair, 'words', { value: words })
}

let seed = 470
for (const attack of attacks) {
  for (const where of ['remote', 'local'] as const) {
    seed++
    const own = seed
    test.serial(`${attack.name}, ${where}`, (t) => assault(t, where, attack, own))
  }
}
