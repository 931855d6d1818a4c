import test from 'ava'
import * as broker from '../../../protocol/broker-page.js'
import { brokerPage } from '../../../protocol/broker-page.js'
import * as completionQueue from '../../../protocol/completion-queue-segment.js'
import * as nodeFile from '../../../protocol/node-file.js'
import * as queuePair from '../../../protocol/queue-pair-segment.js'
import {
  abiVersion,
  clientFacts,
  clientFingerprint,
  clientLayouts,
  fingerprintOf,
  linkVersion,
  nodeFileFacts,
  nodeFileFingerprint,
  wireFacts,
  wireFingerprint,
} from '../../../protocol/version.js'
import * as wire from '../../../protocol/wire.js'
import {
  bytes,
  cacheLine,
  type Field,
  type FieldKind,
  f64,
  gap,
  i32,
  i64,
  type Layout,
  layout,
  text,
  u32,
  word,
} from '../../../shm/layout.js'

type Signed = Pick<Layout, 'name' | 'fields' | 'signature'>

const groups = [
  { name: 'client', layouts: clientLayouts as readonly Signed[], facts: clientFacts, fingerprint: clientFingerprint },
  { name: 'wire', layouts: wire.wireLayouts as readonly Signed[], facts: wireFacts, fingerprint: wireFingerprint },
  {
    name: 'node file',
    layouts: nodeFile.nodeFileLayouts as readonly Signed[],
    facts: nodeFileFacts,
    fingerprint: nodeFileFingerprint,
  },
]

const makers: Readonly<Record<FieldKind, (byteLength: number) => Field>> = {
  word,
  u32,
  i32,
  f64,
  i64,
  text,
  bytes,
  gap,
  line: cacheLine,
}
/** Another kind of the same size. */
const otherKind: Readonly<Record<FieldKind, FieldKind>> = {
  word: 'u32',
  u32: 'i32',
  i32: 'word',
  f64: 'i64',
  i64: 'f64',
  text: 'bytes',
  bytes: 'text',
  gap: 'bytes',
  line: 'gap',
}

type Named = readonly [name: string, field: Field]

const fieldsOf = (of: Signed): Named[] =>
  of.fields.map((field) => [field.name, makers[field.kind](field.byteLength)] as const)
const layoutOf = (name: string, fields: readonly Named[]): Signed => layout(name, Object.fromEntries(fields))

/** The layout, changed in one field in every way that leaves it legal. */
function* changed(of: Signed): Generator<{ what: string; copy: Signed }> {
  const fields = fieldsOf(of)
  for (const [index, [name]] of fields.entries()) {
    const { kind, byteLength } = of.fields[index]!
    const replaced = (...by: readonly Named[]): Signed => layoutOf(of.name, fields.toSpliced(index, 1, ...by))
    yield { what: `${name} renamed`, copy: replaced([`${name}2`, fields[index]![1]]) }
    if (byteLength === 0) continue
    yield { what: `${name} of another kind`, copy: replaced([name, makers[otherKind[kind]](byteLength)]) }
    yield { what: `a line before ${name}`, copy: replaced(['inserted', gap(64)], fields[index]!) }
    yield { what: `${name} away`, copy: replaced([`${name}Gone`, gap(byteLength)]) }
  }
  yield { what: 'a line at the end', copy: layoutOf(of.name, [...fields, ['appended', gap(64)]]) }
  yield { what: 'the layout renamed', copy: layoutOf(`${of.name}-2`, fields) }
}

for (const { name, layouts, facts, fingerprint } of groups) {
  test(`the fingerprint of the ${name} changes with every field of every layout`, (t) => {
    t.is(fingerprintOf(layouts, facts), fingerprint)
    let changes = 0
    for (const [index, of] of layouts.entries()) {
      t.is(layoutOf(of.name, fieldsOf(of)).signature(), of.signature())
      for (const { what, copy } of changed(of)) {
        t.not(copy.signature(), of.signature(), `${of.name}: ${what}`)
        t.not(fingerprintOf(layouts.with(index, copy), facts), fingerprint, `${of.name}: ${what}`)
        changes++
      }
    }
    t.true(changes > 4 * layouts.length)
    t.not(fingerprintOf(layouts.slice(1), facts), fingerprint)
    t.not(fingerprintOf(layouts.toReversed(), facts), fingerprint)
  })

  test(`the fingerprint of the ${name} changes with every number that both sides must know alike`, (t) => {
    const print = JSON.stringify(facts)
    const numbers = [...print.matchAll(/(?<=[:,[])\d+(?=[,\]}])/g)]
    t.true(numbers.length > 3)
    for (const { index, 0: digits } of numbers) {
      const other = `${print.slice(0, index)}${Number(digits) + 1}${print.slice(index + digits.length)}`
      t.not(fingerprintOf(layouts, JSON.parse(other) as object), fingerprint, other)
    }
  })
}

test('no layout that two processes share is missing', (t) => {
  const isLayout = (value: unknown): value is Signed =>
    typeof value === 'object' && value !== null && 'signature' in value
  const shared = [broker, completionQueue, queuePair, nodeFile, wire].flatMap((module) =>
    Object.values(module as Readonly<Record<string, unknown>>).filter(isLayout),
  )
  const signed = new Set(groups.flatMap(({ layouts }) => layouts))
  t.true(shared.length >= 30)
  for (const one of shared) t.true(signed.has(one), one.name)
})

test('fingerprints fit the field that carries them, and differ', (t) => {
  const prints = groups.map(({ fingerprint }) => fingerprint)
  t.is(new Set(prints).size, prints.length)
  for (const print of prints) t.true(Number.isInteger(print) && print > 0 && print <= 0xffffffff)
})

test('version and fingerprint stand where every version finds them', (t) => {
  const { magic, version, fingerprint } = brokerPage.offset
  t.deepEqual([magic, version, fingerprint], [0, 4, 8])
  const header = nodeFile.nodeFileHeader.offset
  t.deepEqual([header.magic, header.version, header.fingerprint, header.ready], [0, 4, 8, 12])
  for (const of of [queuePair.queuePairHeader.offset, completionQueue.completionQueueHeader.offset]) {
    t.deepEqual([of.magic, of.version], [0, 4])
  }
  t.true(Number.isInteger(abiVersion) && abiVersion >= 1)
  t.true(linkVersion.minimum <= linkVersion.maximum)
})
