/** A broker over explored words: the real engine with the one queue pair, connected to itself, and a device that does nothing. */
import { keyGeneration, keySlot, packKey } from '../../protocol/keys.js'
import { nodeFileGeometry } from '../../protocol/node-file.js'
import { queuePairState } from '../../protocol/queue-pair-segment.js'
import { regionRight } from '../../protocol/wire.js'
import { Memory } from '../../shm/memory.js'
import type { Self } from '../support/explorer-actor.js'
import { MEMBERS } from '../support/explorer-world.js'
import type { Code } from './load.js'
import { mappingAt, NUMBER, type Segments } from './segments.js'

const JOB = 1

type Engine = InstanceType<Code['Engine']>
export interface BrokerProcess {
  readonly engine: Engine
  readonly queuePair: InstanceType<Code['EngineQueuePair']>
}

const given = <Wanted>(value: object): Wanted => value as unknown as Wanted
type EngineArguments = ConstructorParameters<Code['Engine']>

/** Counters and tables are for people; nothing decides by them. One view for all, because an engine is made for each step. */
const memory = new Memory(new ArrayBuffer(nodeFileGeometry.byteLength))
Object.defineProperty(memory.f64, 'subarray', { value: () => memory.f64 })
const nodeFile = given<EngineArguments[2]>({ memory })
const options = given<EngineArguments[0]>({ node: 'here', epoch: 1 })
const device = given<EngineArguments[1]>({ progress: () => 0, nextTimerMs: () => 1e9, prepareSleep: () => true })
const ports = { emit: (): void => {} }

/** Key of the only region, of which anything may be written. What lies in it decides nothing, so it is not explored. */
export const REGION = packKey(1, 1)
const region = { memory: new Memory(new ArrayBuffer(64)), byteLength: 64, rights: regionRight.localWrite }

const numbered = { number: NUMBER, generation: 1, job: JOB }
const job = { number: JOB, domain: { handle: 1 }, members: new Map<number, number>() }
const memberJobs = Array.from({ length: MEMBERS }, () => JOB)

export function boot(code: Code, segments: Segments, self: Self): BrokerProcess {
  const engine = new code.Engine(options, device, nodeFile, ports)
  Object.assign(engine, { memberJobs, doorbells: segments.doorbells })
  engine.jobs.set(JOB, { ...job, activity: mappingAt(self, segments.activity) })
  const { sendSlots, receiveSlots, completions: capacity } = segments.shape
  const mapping = mappingAt(self, segments.completionQueue)
  const queue = new code.EngineCompletionQueue({ ...numbered, capacity }, mapping)
  const queuePair = new code.EngineQueuePair(
    {
      ...numbered,
      type: 'connected',
      sendSlots,
      receiveSlots,
      inlineByteLength: 64,
      rnrRetry: 7,
      rnrTimerMs: 1,
      trafficClass: 0,
    },
    mappingAt(self, segments.queuePair),
    queue,
    queue,
  )
  engine.completionQueues[NUMBER] = queue
  engine.queuePairs[NUMBER] = queuePair
  engine.regions.set(
    new code.Region({ number: keySlot(REGION), generation: keyGeneration(REGION), job: JOB, ...region }),
  )
  const flow = new code.Flow(queuePair, code.thisNode, NUMBER, 1, null, true)
  flow.twin = flow
  queuePair.flow = flow
  // Privately: the word in the segment is for clients, and was stored when the queue pair was connected.
  queuePair.state = queuePairState.connected
  return { engine, queuePair }
}

/** Turns until one does nothing, so that no request is in the engine's private memory. */
export function turnUntilIdle(engine: Engine): number {
  let work = 0
  for (let done = engine.turn(0, 0); done > 0; done = engine.turn(0, 0)) work += done
  return work
}
