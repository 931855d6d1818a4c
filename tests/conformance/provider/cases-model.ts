/** Random scripts in both directions at once, compared with a model that executes each request when it is posted. */
import fc from 'fast-check'
import type { ProviderCase } from './cases.js'
import { isSame, type Player, withRig } from './rig.js'

const AREA_BYTES = 1 << 20
/** Own bytes of a player: what it sends. The peer's requests change only the area of their target. */
const SOURCE = 0
const TARGET = AREA_BYTES
const RECEIVES = 2 * AREA_BYTES
const READS = 3 * AREA_BYTES
const RECEIVE_BYTES = 1 << 17

interface Step {
  readonly isFirst: boolean
  readonly kind: 'send' | 'write' | 'read'
  readonly length: number
  readonly at: number
  readonly to: number
  readonly signaled: boolean
  readonly turns: number
}

/** Mostly short, with some that are cut into segments. Reads stay so short that they are taken when they are executed. */
const anyLength = fc.oneof(
  { weight: 6, arbitrary: fc.nat(300) },
  { weight: 2, arbitrary: fc.nat(9000) },
  fc.nat(RECEIVE_BYTES),
)

const anyStep: fc.Arbitrary<Step> = fc.record({
  isFirst: fc.boolean(),
  kind: fc.constantFrom('send' as const, 'write' as const, 'read' as const),
  length: anyLength,
  at: fc.nat(AREA_BYTES - RECEIVE_BYTES - 1),
  to: fc.nat(AREA_BYTES - RECEIVE_BYTES - 1),
  signaled: fc.boolean(),
  turns: fc.constantFrom(0, 0, 0, 1, 3),
})

/** What one player's peer memory and its own read buffer must hold in the end. */
class Model {
  readonly target = new Uint8Array(AREA_BYTES)
  readonly received: Uint8Array[] = []
  readonly read: { at: number; bytes: Uint8Array }[] = []

  apply(step: Step, source: Uint8Array): void {
    const bytes = source.slice(step.at, step.at + step.length)
    if (step.kind === 'send') this.received.push(bytes)
    else if (step.kind === 'write') this.target.set(bytes, step.to)
    else
      this.read.push({ at: READS + step.at, bytes: this.target.slice(step.to, step.to + Math.min(step.length, 8192)) })
  }
}

class Side {
  readonly model = new Model()
  readonly player: Player
  #posted = 0
  signaled = 0
  #receives = 0

  constructor(player: Player) {
    this.player = player
  }

  post(step: Step): void {
    const { player } = this
    const span = {
      at: SOURCE + step.at,
      length: step.length,
      to: TARGET + step.to,
      signaled: step.signaled || this.#posted % 4 === 3,
    }
    this.model.apply(step, player.slice(SOURCE, AREA_BYTES))
    if (span.signaled) this.signaled++
    const id = this.#posted++
    if (step.kind === 'send') {
      const at = RECEIVES + (this.#receives++ % 4) * RECEIVE_BYTES
      player.rig.until(() => player.peer.receive(1000, { at, length: RECEIVE_BYTES }) === 1)
      player.rig.until(() => player.send(id, span) === 1)
      this.#awaitReceive(at, step.length)
    } else if (step.kind === 'write') player.rig.until(() => player.write(id, span) === 1)
    else {
      const length = Math.min(step.length, 8192)
      player.rig.until(() => player.read(id, { ...span, at: READS + step.at, length }) === 1)
      this.#awaitRead()
    }
  }

  #awaitReceive(at: number, length: number): void {
    const { peer, rig } = this.player
    const count = () => peer.ids.filter((id) => id === 1000).length
    rig.until(() => count() === this.model.received.length, 'a receive')
    if (!isSame(peer.slice(at, length), this.model.received.at(-1)!)) throw new Error(`a send of ${length} bytes`)
  }

  /** Only one read is compared at a time, because later ones may fill the same bytes. */
  #awaitRead(): void {
    const { at, bytes } = this.model.read.at(-1)!
    const { player } = this
    player.rig.until(() => isSame(player.slice(at, bytes.length), bytes), `the data of a read of ${bytes.length} bytes`)
  }

  check(): void {
    const { player } = this
    if (!isSame(player.peer.slice(TARGET, AREA_BYTES), this.model.target)) throw new Error('the written memory differs')
    if (player.statuses.some((status) => status !== 'success')) throw new Error(`statuses ${player.statuses}`)
  }
}

export const modelCases: ProviderCase[] = [
  {
    number: 163,
    name: 'random scripts in both directions do what the model does',
    run: (t, factory) => {
      const property = fc.property(fc.array(anyStep, { minLength: 1, maxLength: 120 }), (steps) => {
        withRig(factory, (rig) => {
          const [a, b] = rig.pair({ limits: { sendDepth: 16, receiveDepth: 16 } })
          const sides = [new Side(a), new Side(b)] as const
          for (const [index, { player }] of sides.entries()) player.fill(SOURCE, AREA_BYTES, index + 1)
          for (const step of steps) {
            sides[step.isFirst ? 0 : 1].post(step)
            for (let turn = 0; turn < step.turns; turn++) rig.turn()
          }
          rig.settle()
          for (const side of sides) side.check()
        })
      })
      fc.assert(property, { numRuns: 40 })
      t.pass()
    },
  },
]
