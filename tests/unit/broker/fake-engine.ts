/**
 * An engine without a data path: it keeps a ledger of what it was told, answers as commands.ts says, and lets tests hold back or fail
 * any command. Lanes of two fake engines of one process meet through a table of provider numbers.
 */
import { EventEmitter } from 'node:events'
import type { Engine, StartedEngine } from '../../../broker/control/engine.js'
import type {
  EngineAnswer,
  EngineArguments,
  EngineCommandName,
  EngineEventName,
  EngineEvents,
  EngineOptions,
} from '../../../broker/engine/commands.js'
import { SharedVerbsError } from '../../../protocol/errors.js'
import type { LaneParameters } from '../../../protocol/link.js'
import { counterIndex, nodeFileGeometry } from '../../../protocol/node-file.js'
import { Mapping } from '../../../shm/mapping.js'

export interface Call<Name extends EngineCommandName = EngineCommandName> {
  readonly name: Name
  readonly arguments: EngineArguments<Name>
}

type Answers = {
  [Name in EngineCommandName]: (given: EngineArguments<Name>) => EngineAnswer<Name> | Promise<EngineAnswer<Name>>
}

export const fakeLaneParameters: LaneParameters = {
  providerKind: 'soft',
  readsInitiated: 16,
  readsAccepted: 16,
  bounceByteLength: 4096,
  bounceCount: 64,
  chunkByteLength: 65536,
  mtu: 4096,
  trafficClass: 0,
  atomicWindow: 16,
  maxMessageByteLength: 2 ** 30,
}

export class FakeEngine implements Engine {
  readonly calls: Call[] = []
  readonly options: EngineOptions
  readonly ended: Promise<void>
  readonly objects = new Set<string>()
  /** Replaces the answer of a command. */
  readonly overrides: Partial<Answers> = {}
  readonly #events = new EventEmitter()
  readonly #beat: NodeJS.Timeout
  readonly #nodeFile: Mapping
  #end: () => void = () => {}
  #nextNumber = 1
  #stalled = false

  constructor(options: EngineOptions) {
    this.options = options
    this.ended = new Promise((resolve) => {
      this.#end = resolve
    })
    this.#nodeFile = Mapping.at(options.nodeFile.address, options.nodeFile.byteLength)
    this.#beat = setInterval(() => this.turn(), 100)
    this.#beat.unref()
  }

  /** From here on the engine's turns stand still, as those of a hung engine do. */
  stall(): void {
    this.#stalled = true
  }

  on<Name extends EngineEventName>(name: Name, listener: (body: EngineEvents[Name]) => void): this {
    this.#events.on(name, listener)
    return this
  }

  emit<Name extends EngineEventName>(name: Name, body: EngineEvents[Name]): void {
    this.#events.emit(name, body)
  }

  called<Name extends EngineCommandName>(name: Name): EngineArguments<Name>[] {
    return this.calls.filter((call) => call.name === name).map((call) => call.arguments as EngineArguments<Name>)
  }

  async call<Name extends EngineCommandName>(name: Name, given: EngineArguments<Name>): Promise<EngineAnswer<Name>> {
    this.calls.push({ name, arguments: given })
    await Promise.resolve()
    const override = this.overrides[name] as Answers[Name] | undefined
    const answer = override ?? (this.#answers[name] as Answers[Name])
    return await answer(given)
  }

  readonly #answers: Answers = {
    'add-job': ({ job }) => this.#add(`job ${job}`),
    'remove-job': ({ job }) => this.#remove(`job ${job}`),
    'add-member': ({ member }) => this.#add(`member ${member}`),
    'remove-member': ({ member }) => this.#remove(`member ${member}`),
    'add-completion-queue': ({ number }) => this.#add(`completion queue ${number}`),
    'remove-completion-queue': ({ number }) => this.#remove(`completion queue ${number}`),
    'add-queue-pair': ({ number }) => this.#add(`queue pair ${number}`),
    'remove-queue-pair': ({ number }) => this.#remove(`queue pair ${number}`),
    'connect-queue-pair': ({ remote }) => ('service' in remote ? { number: 1, generation: 1 } : remote),
    'disconnect-queue-pair': () => null,
    'accept-connection': () => ({ number: 7, generation: 7, peer: 0 }),
    'reject-connection': () => null,
    'add-datagram-path': () => null,
    'add-region': ({ number }) => {
      this.#add(`region ${number}`)
      return { deviceKey: number }
    },
    'remove-region': ({ number }) => this.#remove(`region ${number}`),
    'create-lane': ({ lane }) => {
      this.#add(`lane ${lane}`)
      return { number: this.#nextNumber++, packetSequence: 1, path: {} }
    },
    'connect-lane': () => null,
    'destroy-lane': ({ lane }) => this.#remove(`lane ${lane}`),
    'resume-job': () => ({ queuePairs: 0 }),
    'abandon-path': () => ({ queuePairs: 0 }),
    'sweep-member': () => ({ slotsSwept: 0 }),
    drain: () => ({ outstanding: 0 }),
    stop: () => {
      clearInterval(this.#beat)
      this.#end()
      return null
    },
  }

  /** As often as a test likes; a real engine turns all the time. */
  turn(): void {
    const index = nodeFileGeometry.countersOffset / 8 + counterIndex['engine-turns']
    if (!this.#stalled) this.#nodeFile.memory.f64[index] = (this.#nodeFile.memory.f64[index] ?? 0) + 1
  }

  #add(object: string): null {
    if (this.objects.has(object)) throw new SharedVerbsError('internal-error', `${object} was added twice`)
    this.objects.add(object)
    return null
  }

  #remove(object: string): null {
    if (!this.objects.delete(object)) throw new SharedVerbsError('internal-error', `${object} is not there`)
    return null
  }
}

export interface FakeStart {
  readonly start: (options: EngineOptions) => Promise<StartedEngine>
  readonly engine: () => FakeEngine
}

/** For the `startEngine` option, with a look at the engine it made. */
export function fakeStart(parameters: Partial<LaneParameters> = {}): FakeStart {
  let made: FakeEngine | undefined
  return {
    start: async (options) => {
      made = new FakeEngine(options)
      const laneParameters = { ...fakeLaneParameters, ...parameters }
      return {
        engine: made,
        ready: { provider: laneParameters.providerKind, device: 'fake0', address: 'fake', laneParameters },
      }
    },
    engine: () => {
      if (!made) throw new Error('the engine was not started')
      return made
    },
  }
}
