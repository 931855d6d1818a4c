/** The judge of a storm finds each kind of fault in journals that have one, and none in those that do not. */
import { statSync, truncateSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { status } from '../../protocol/statuses.js'
import { temporaryDirectory } from '../support/temporary-directory.js'
import { type JournalRecord, JournalWriter, recordType } from './journal.js'
import { judge, type Tally } from './judge.js'
import { known, Ledger } from './ledger.js'
import { kindNumber } from './plan.js'

const SEND = kindNumber('send')
const ADD = kindNumber('fetch-and-add')

/** Process 0 posts on node 0, process 1 receives on node 1. */
function record(type: number, sequence: number, more: Partial<JournalRecord> = {}): JournalRecord {
  return { type, kind: SEND, queuePair: 1, status: 0, process: 0, sequence, count: 0, timeMs: 1, value: 0, ...more }
}

interface Scene {
  readonly poster: JournalRecord[]
  readonly receiver: JournalRecord[]
}

/** Three messages and an addition, as they should be. */
function faultless(): Scene {
  const sends = [0, 1, 2]
  const poster = [
    ...sends.map((sequence) => record(recordType.intent, sequence)),
    record(recordType.accepted, 0, { count: 3 }),
    record(recordType.intent, 3, { kind: ADD }),
    record(recordType.accepted, 3, { count: 1 }),
    ...sends.map((sequence) => record(recordType.verdict, sequence)),
    record(recordType.verdict, 3, { kind: ADD, value: 0 }),
  ]
  return { poster, receiver: sends.map((sequence) => record(recordType.received, sequence, { status: 1 })) }
}

interface Circumstances {
  readonly dead?: readonly number[]
  readonly killed?: number
  readonly counter?: number
  readonly inBuffer?: readonly number[]
}

function tallyOf(t: ExecutionContext, scene: Scene, circumstances: Circumstances = {}): Tally {
  const { dead = [], killed = 0, counter = 1, inBuffer = [] } = circumstances
  const directory = temporaryDirectory(t)
  const paths = [scene.poster, scene.receiver].map((records, process) => {
    const path = `${directory}/${process}`
    const writer = new JournalWriter(path)
    for (const one of records) writer.add(one)
    writer.close()
    return { process, path }
  })
  const ledger = new Ledger()
  ledger.add(paths)
  for (const sequence of inBuffer) ledger.line(0, 1).known[sequence]! |= known.inBuffer
  return judge({
    ledger,
    nodeOf: (process) => process,
    isDead: (process) => dead.includes(process),
    killedAt: () => killed,
    counter: () => counter,
  })
}

type Fault = 'lost' | 'duplicated' | 'reordered' | 'corrupted' | 'wrongVerdicts'
const faults: readonly Fault[] = ['lost', 'duplicated', 'reordered', 'corrupted', 'wrongVerdicts']

function only(t: ExecutionContext, tally: Tally, fault: Fault | null): void {
  for (const name of faults) {
    if (name === fault) t.true(tally[name] > 0, `${name} is not found`)
    else t.is(tally[name], 0, `${name}: ${tally.notes.join('; ')}`)
  }
}

test('nothing is wrong', (t) => {
  const tally = tallyOf(t, faultless())
  only(t, tally, null)
  t.is(tally.messages, 4)
  t.is(tally.unrecorded, 0)
})

test('a message that succeeded and never came is lost', (t) => {
  const scene = faultless()
  scene.receiver.splice(1, 1)
  only(t, tallyOf(t, scene), 'lost')
  only(t, tallyOf(t, scene, { killed: 1 }), 'lost')
  // In a receive buffer, and somebody who polled there was killed.
  only(t, tallyOf(t, scene, { killed: 1, inBuffer: [1] }), null)
  only(t, tallyOf(t, scene, { killed: 0, inBuffer: [1] }), 'lost')
})

test('a message that comes twice, or in another order, or changed', (t) => {
  const twice = faultless()
  twice.receiver.push(record(recordType.received, 1, { status: 1 }))
  only(t, tallyOf(t, twice), 'duplicated')
  const turned = faultless()
  turned.receiver.reverse()
  only(t, tallyOf(t, turned), 'reordered')
  const changed = faultless()
  changed.receiver.push(record(recordType.spoilt, 1, { status: 1 }))
  only(t, tallyOf(t, changed), 'corrupted')
  const strange = faultless()
  strange.receiver.push(record(recordType.received, 9, { status: 1 }))
  only(t, tallyOf(t, strange), 'corrupted')
})

test('verdicts that are not true', (t) => {
  const flushed = faultless()
  flushed.poster[6] = record(recordType.verdict, 0, { status: status.flushed })
  only(t, tallyOf(t, flushed), 'wrongVerdicts')
  const second = faultless()
  second.poster.push(record(recordType.verdict, 0))
  only(t, tallyOf(t, second), 'wrongVerdicts')
  const unsure = faultless()
  unsure.poster[8] = record(recordType.verdict, 2, { status: status.unknown })
  const tally = tallyOf(t, unsure)
  only(t, tally, 'wrongVerdicts')
  t.is(tally.unknownVerdicts, 1)
})

test('a refused request must not come', (t) => {
  const scene = faultless()
  scene.poster[3] = record(recordType.accepted, 0, { count: 2 })
  only(t, tallyOf(t, scene), 'wrongVerdicts')
})

test('killed between intent and what came of it: both are possible', (t) => {
  const scene = faultless()
  scene.poster.push(record(recordType.intent, 4))
  only(t, tallyOf(t, scene), 'lost')
  only(t, tallyOf(t, scene, { dead: [0] }), null)
  scene.receiver.push(record(recordType.received, 4, { status: 1 }))
  only(t, tallyOf(t, scene, { dead: [0], killed: 1 }), null)
})

test('the counter says how many additions there were', (t) => {
  only(t, tallyOf(t, faultless(), { counter: 0 }), 'lost')
  only(t, tallyOf(t, faultless(), { counter: 2 }), 'duplicated')
})

test('a torn record at the end of a journal does not count', (t) => {
  const path = `${temporaryDirectory(t)}/torn`
  const writer = new JournalWriter(path)
  writer.add(record(recordType.intent, 0))
  writer.add(record(recordType.intent, 1))
  writer.close()
  truncateSync(path, statSync(path).size - 1)
  const ledger = new Ledger()
  ledger.add([{ process: 0, path }])
  t.is(ledger.line(0, 1).count, 1)
})
