/**
 * The engine's thread: opens the device, turns the duty cycle, takes commands between turns. It returns to its event loop only while a
 * command waits for its answer, so that the handler's promises go on.
 */
import './compiler.js'
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { counterIndex, nodeFileHeader } from '../../protocol/node-file.js'
import { clock } from '../../shm/libc.js'
import { Mapping } from '../../shm/mapping.js'
import { openDevice } from '../provider/open.js'
import type { Device } from '../provider/provider.js'
import { handlers, toFailure } from './command-handlers.js'
import type { CommandMessage, EngineEventName, EngineEvents, EngineMessage, EngineOptions } from './commands.js'
import { Engine } from './engine.js'
import { Idle } from './idle.js'
import { defaultLaneParameters } from './lane-parameters.js'
import { TableWriter } from './table-writer.js'

/** Commands are looked at every so many turns, and before each sleep. */
const COMMAND_TURNS = 16
/** Tables that inspection reads are refreshed this often. */
const TABLES_MS = 100

const port = parentPort!
/** By a port of its own: what arrives at `port` is only ever taken between turns. */
const options = await new Promise<EngineOptions>((resolve) => {
  const giver = workerData as MessagePort
  giver.once('message', (given: EngineOptions) => {
    giver.close()
    resolve(given)
  })
})

const send = (message: EngineMessage): void => port.postMessage(message)
function emit<Name extends EngineEventName>(name: Name, body: EngineEvents[Name]): void {
  send({ kind: 'event', name, body } as EngineMessage)
}

/** Starts the handler of a command; its answer goes back when it has one. */
function handle(engine: Engine, message: CommandMessage): void {
  const run = handlers[message.name] as (engine: Engine, given: unknown) => Promise<unknown>
  let answered: Promise<unknown>
  try {
    answered = run(engine, message.arguments)
  } catch (error) {
    send({ kind: 'failure', id: message.id, failure: toFailure(error) })
    return
  }
  engine.unanswered++
  answered.then(
    (answer) => {
      engine.unanswered--
      send({ kind: 'answer', id: message.id, answer })
    },
    (error: unknown) => {
      engine.unanswered--
      send({ kind: 'failure', id: message.id, failure: toFailure(error) })
    },
  )
}

function takeCommands(engine: Engine): number {
  let count = 0
  for (let received = receiveMessageOnPort(port); received; received = receiveMessageOnPort(port)) {
    handle(engine, received.message as CommandMessage)
    count++
  }
  return count
}

/** A device that is gone completes nothing any more: whoever waits for it has to be told. */
function loseLanes(engine: Engine): void {
  for (const lane of engine.lanes) if (lane) engine.failLane(lane, 'the device is gone')
}

/** An orderly end closes connections as well: its command comes first. */
const BROKEN_MS = 100

function loseLaneSoon(engine: Engine, queuePair: number): void {
  const broken = engine.lanes.find((lane) => lane?.queuePair.number === queuePair)
  if (!broken) return
  engine.timers.after(clock.nowMs(), BROKEN_MS, () => {
    if (engine.lanes.includes(broken) && broken.state === 'up') engine.failLane(broken, 'its connection broke')
  })
}

/** Continuations of command handlers run here: one round of the event loop drains them all. */
const immediately = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

async function run(engine: Engine, device: Device, page: Mapping): Promise<void> {
  const idle = new Idle(options.idle, options.doorbell, page.words, device.wakeDescriptors())
  const tables = new TableWriter(engine)
  const nowMs = (): number => clock.nowMs()
  const restless = (): boolean => takeCommands(engine) > 0 || engine.restless || !device.prepareSleep()
  const dueMs = (): number => engine.nextDueMs(clock.nowMs())
  let idleTurns = 0
  let tablesMs = 0
  while (!engine.stopping) {
    const now = clock.nowMs()
    let work = engine.turn(now, idleTurns)
    if (engine.turns % COMMAND_TURNS === 0) work += takeCommands(engine)
    if (now - tablesMs > TABLES_MS) {
      tablesMs = now
      tables.write()
      engine.counters[counterIndex['engine-turns']] = engine.turns
      engine.counters[counterIndex['engine-sleeps']] = idle.sleeps
    }
    if (engine.unanswered > 0 && (work === 0 || engine.turns % COMMAND_TURNS === 0)) await immediately()
    if (work > 0) {
      idleTurns = 0
      idle.worked()
      if (engine.expectsAnswers) idle.handOver(nowMs)
    } else if (idleTurns++ > 0) {
      idle.pause(now, restless, dueMs, nowMs)
    }
    const events = device.takeEvents()
    for (const event of events) {
      if (event.kind === 'device-fatal') loseLanes(engine)
      if (event.kind === 'connection-broken') {
        loseLaneSoon(engine, event.subject)
        continue
      }
      emit('device-event', { kind: event.kind, detail: String(event.subject) })
    }
  }
  tables.write()
  idle.close()
}

async function main(): Promise<void> {
  const nodeFile = Mapping.at(options.nodeFile.address, options.nodeFile.byteLength)
  const page = Mapping.at(options.brokerPage.address, options.brokerPage.byteLength)
  const { provider, host, port: devicePort } = options
  const opened = openDevice({
    provider,
    host,
    port: devicePort,
    ...(options.device === null ? {} : { name: options.device }),
    path: options.path,
  })
  if (!opened.device) {
    emit('failed', toFailure(opened.failure))
    port.close()
    return
  }
  const { device } = opened
  const engine = new Engine(options, device, nodeFile, { emit })
  nodeFileHeader.write(nodeFile.memory, 0, { provider: device.kind, device: device.name })
  emit('ready', {
    provider: device.kind,
    device: device.name,
    address: device.port().address,
    laneParameters: defaultLaneParameters(device, options),
  })
  await run(engine, device, page)
  device.close()
  port.close()
}

await main()
